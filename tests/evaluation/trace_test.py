"""The time by operation: of a program that runs here, and of the events that a GPU leaves."""

import time

import jax
import jax.numpy as jnp
import pytest
from jax.profiler import ProfileData
from jax.sharding import NamedSharding

from cgan_jax.evaluation import trace
from cgan_jax.evaluation.program import Program
from cgan_jax.parallel import PARTS, make_mesh


def test_the_operation_that_takes_the_time_comes_first_and_loops_are_not_counted_twice():
    x = jnp.ones((600, 600))

    @jax.jit
    def call(x):
        return jax.lax.fori_loop(0, 4, lambda _, y: jnp.tanh(y @ x), x)

    compiled = call.lower(x).compile()
    jax.block_until_ready(compiled(x))
    began = time.perf_counter()
    result, told = trace.operations(compiled, lambda: compiled(x), turns=2, devices=1, count=3)
    wall = time.perf_counter() - began
    assert result.shape == (600, 600)
    first, *others = told["costly"]
    assert len(others) <= 2 and first["times"] == 2  # 4 in a call of 2 turns
    assert first["operation"] in ("dot", "fusion", "custom-call") and "while" not in {o["operation"] for o in others}
    assert sum(one["milliseconds"] for one in told["costly"]) > 0
    assert first["milliseconds"] <= told["busy_milliseconds"] <= 1000 * wall / 2
    assert told["started"] >= first["times"]


def test_of_several_devices_it_is_the_mean():
    mesh = make_mesh(jax.devices()[:4])
    x = jax.device_put(jnp.ones((4 * 300, 300)), NamedSharding(mesh, PARTS))
    compiled = jax.jit(lambda x: jnp.tanh(x @ x[:300])).lower(x).compile()
    _, told = trace.operations(compiled, lambda: compiled(x), turns=1, devices=4, count=50)
    assert told["costly"] and max(one["milliseconds"] for one in told["costly"]) <= told["busy_milliseconds"]
    assert max(one["times"] for one in told["costly"]) == 1


GPU = """
planes {
  name: "/device:GPU:0"
  lines { name: "Stream #14(Compute)" timestamp_ns: 100
    events { metadata_id: 1 offset_ps: 0 duration_ps: 5000000 stats { metadata_id: 7 str_value: "conv.1" } }
    events { metadata_id: 1 offset_ps: 4000000 duration_ps: 2000000 stats { metadata_id: 7 str_value: "fusion.2" } }
    events { metadata_id: 2 offset_ps: 9000000 duration_ps: 1000000 stats { metadata_id: 7 str_value: "fusion.2" } }
    events { metadata_id: 2 offset_ps: 9000000 duration_ps: 1000000 }
  }
  lines { name: "XLA Modules" timestamp_ns: 100
    events { metadata_id: 2 offset_ps: 0 duration_ps: 90000000 stats { metadata_id: 7 str_value: "conv.1" } }
  }
  event_metadata { key: 1 value { id: 1 name: "sm90_xmma_fprop" } }
  event_metadata { key: 2 value { id: 2 name: "input_reduce" } }
  stat_metadata { key: 7 value { id: 7 name: "hlo_op" } }
}
planes { name: "/host:CPU" lines { name: "python3"
  events { metadata_id: 1 offset_ps: 0 duration_ps: 7000000 stats { metadata_id: 7 str_value: "conv.1" } } }
  event_metadata { key: 1 value { id: 1 name: "thunk" } }
  stat_metadata { key: 7 value { id: 7 name: "hlo_op" } }
}
"""
PROGRAM = """HloModule m
ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %conv.1 = f32[8]{0} custom-call(%x), custom_call_target="__cudnn$convForward"
  ROOT %fusion.2 = f32[8]{0} fusion(%conv.1), kind=kLoop, calls=%f
}
"""


def test_of_a_gpu_the_kernels_of_streams_count_and_nothing_of_the_host():
    profile = ProfileData.from_serialized_xspace(ProfileData.text_proto_to_serialized_xspace(GPU))
    named = Program(PROGRAM).computations["main"]
    events = list(trace._events(profile, named))
    assert {plane for plane, *_ in events} == {"/device:GPU:0"}
    assert [(name, length) for _, name, _, length in events] == [
        ("conv.1", 5000),
        ("fusion.2", 2000),
        ("fusion.2", 1000),
    ]
    # The second begins before the first ends.
    assert trace._covered([(began, began + length) for *_, began, length in events]) == pytest.approx(7000)
