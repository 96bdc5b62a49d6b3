"""Compiled programs: bytes, cycles, loops and collectives, counted by hand and in what XLA makes of a known loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from cgan_jax.evaluation.program import Program
from cgan_jax.losses.terms import seldom
from cgan_jax.parallel import make_mesh

TEXT = """\
HloModule jit_call, is_scheduled=true, input_output_alias={ {0}: (0, {}, may-alias), {1}: (1, {}, may-alias) }

FileNames
1 "/site/optax/update.py"
2 "/home/cgan_jax/networks/layers.py"
3 "/home/cgan_jax/networks/architectures/dcgan.py"

FunctionNames
1 "f"

FileLocations
1 {file_name_id=3 function_name_id=1 line=40 end_line=40 column=1 end_column=2}
2 {file_name_id=2 function_name_id=1 line=56 end_line=56 column=1 end_column=2}
3 {file_name_id=1 function_name_id=1 line=7 end_line=7 column=1 end_column=2}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}
3 {file_location_id=3 parent_frame_id=3}

%rows (p.0: u8[50000,3072], p.1: s32[64]) -> u8[64,3072] {
  %p.0 = u8[50000,3072]{1,0} parameter(0)
  %p.1 = s32[64]{0} parameter(1)
  ROOT %gather.1 = u8[64,3072]{1,0} gather(%p.0, %p.1), offset_dims={1}
}

%body (state: (s32[], f32[100,3])) -> (s32[], f32[100,3]) {
  %state = (s32[], f32[100,3]{1,0:T(8,128)}) parameter(0)
  %x = f32[100,3]{1,0:T(8,128)} get-tuple-element(%state), index=1
  %near = f32[100,3]{1,0:T(8,128)S(1)} fusion(%x), kind=kLoop, calls=%other, backend_config={"estimated_cycles":"700"}
  %sum = f32[100,3]{1,0:T(8,128)} all-reduce(%x), to_apply=%add, metadata={op_name="a/b" stack_frame_id=3}
  ROOT %next = (s32[], f32[100,3]{1,0:T(8,128)}) tuple(%i, %sum)
}

%condition (state.1: (s32[], f32[100,3])) -> pred[] {
  %limit = s32[] constant(32)
  %state.1 = (s32[], f32[100,3]{1,0:T(8,128)}) parameter(0)
  %i.1 = s32[] get-tuple-element(%state.1), index=0
  ROOT %less = pred[] compare(%i.1, %limit), direction=LT
}

ENTRY %main (images: u8[50000,3072], wanted: s32[64], x.0: f32[100,3]) -> (s32[], f32[100,3]) {
  %images = u8[50000,3072]{1,0} parameter(0)
  %wanted = s32[64]{0} parameter(1)
  %x.0 = f32[100,3]{1,0:T(8,128)} parameter(2)
  %batch = u8[64,3072]{1,0} fusion(%images, %wanted), kind=kLoop, calls=%rows
  %start = (s32[], f32[100,3]{1,0:T(8,128)}) tuple(%zero, %x.0)
  ROOT %loop = (s32[], f32[100,3]{1,0:T(8,128)}) while(%start), condition=%condition, body=%body
}
"""


@pytest.fixture(scope="module")
def by_name():
    program = Program(TEXT)
    return program, {i.name: (program.bytes_of(c, i), i, times) for c, i, times in program.runs()}


def test_a_loop_runs_its_body_as_often_as_its_counter_allows(by_name):
    program, found = by_name
    assert found["batch"][2] == 1 and found["near"][2] == 32 and found["near"][1].cycles == 700
    assert program.donated == 2


def test_bytes_are_padded_to_tiles_leave_out_the_cache_and_count_only_the_rows_read(by_name):
    _, found = by_name
    padded = 104 * 128 * 4
    assert found["batch"][0] == 2 * 64 * 3072 + 4 * 64
    assert found["near"][0] == padded  # the result stays in the cache
    assert found["sum"][0] == 2 * padded
    assert found["x"][0] == 0


def test_a_dataset_that_is_only_read_is_not_made(by_name):
    program, _ = by_name
    assert program.makes("u8", 64 * 3072) and not program.makes("u8", 50_000 * 3072)
    assert program.makes("f32", 104 * 128 * 4) and not program.makes("f32", 104 * 128 * 4 + 1)


def test_a_line_is_that_of_our_code_and_the_architecture_that_called_it(by_name):
    program, found = by_name
    assert program.line_of(found["sum"][1]) == "networks/layers.py:56 from networks/architectures/dcgan.py:40"
    assert program.line_of(found["near"][1]) == ""
    assert program.collectives() == {("all-reduce", 104 * 128 * 4): 32}


ASYNCHRONOUS = """\
HloModule jit_call, is_scheduled=true

ENTRY %main (x: f32[256], y: f32[4096]) -> f32[4096] {
  %x = f32[256]{0} parameter(0)
  %y = f32[4096]{0} parameter(1)
  %gather = (f32[256]{0}, f32[4096]{0}) all-gather-start(%x), dimensions={0}
  %gathered = f32[4096]{0} all-gather-done(%gather)
  %scatter = (f32[4096]{0}, f32[256]{0}) reduce-scatter-start(%y), dimensions={0}, to_apply=%add
  %scattered = f32[256]{0} reduce-scatter-done(%scatter)
  %permute = (f32[256]{0}, f32[256]{0}, u32[], u32[]) collective-permute-start(%x), source_target_pairs={{0,1},{1,0}}
  %permuted = f32[256]{0} collective-permute-done(%permute)
  %sum = f32[256]{0} all-reduce-start(%x), to_apply=%add
  ROOT %summed = f32[256]{0} all-reduce-done(%sum)
}
"""


def test_an_asynchronous_collective_has_its_operands_beside_its_results():
    program, kilobyte = Program(ASYNCHRONOUS), 1024
    assert program.collectives() == {
        ("all-gather", 16 * kilobyte): 1,
        ("reduce-scatter", kilobyte): 1,
        ("collective-permute", kilobyte): 1,
        ("all-reduce", kilobyte): 1,
    }
    moved = {i.name: program.bytes_of(c, i) for c, i, _ in program.runs()}
    both = ("gather", "scatter", "permute", "sum")
    assert [moved[name] // kilobyte for name in both] == [17, 17, 2, 2]


def test_what_xla_makes_of_a_distributed_loop():
    def step(x, y):
        body = lambda x, _: (x + jax.lax.psum(jnp.tanh(x @ y), "data"), None)  # noqa: E731
        return jax.lax.scan(body, x, None, length=5)[0]

    mapped = jax.shard_map(step, mesh=make_mesh(), in_specs=(P(), P("data")), out_specs=P(), check_vma=False)
    x, y = np.ones((4, 4), np.float32), np.ones((32, 4), np.float32)
    program = Program(jax.jit(mapped, donate_argnums=0).lower(x, y).compile().as_text())
    assert program.donated == 1
    assert program.collectives() == {("all-reduce", 4 * 4 * 4): 5}


@pytest.mark.parametrize("differentiated", [False, True])
def test_of_what_runs_at_every_fourth_step_a_fourth_counts(differentiated):
    """Eight steps with an update at every fourth, in which a term at every fourth stands."""

    @jax.jit
    def steps(x):
        def body(i, x):
            term = lambda y: seldom(i, 4, lambda y: jnp.tanh(y @ y), jnp.zeros_like, y)  # noqa: E731
            slope = jax.grad(lambda y: jnp.sum(term(y))) if differentiated else term
            return x + seldom(i, 4, slope, jnp.zeros_like, x)

        return jax.lax.fori_loop(0, 8, body, x)

    program = Program(steps.lower(np.ones((40, 40), np.float32)).compile().as_text())
    products = ("dot", "fusion", "custom-call")
    counts = [times for _, i, times in program.runs() if i.op in products and "[40,40]" in i.shape]
    assert 2 in counts and not {0.5, 1} & set(counts)
