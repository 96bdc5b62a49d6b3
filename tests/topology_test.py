"""Training compiled for TPUs and NVIDIA devices that are not here: what their compilers make of it may not get worse.

Cases skip without their compiler: pip install 'jax[tpu]' for TPUs; the error of `cgan benchmark --topology=h100` lists
the wheels for NVIDIA's. The budgets are the figures of jax 0.10.2 with libtpu 0.0.42.1. Bytes may be a tenth more.
"""

import importlib.metadata
import json
import re

import pytest

from cgan_jax import augment
from cgan_jax.run.devices import DEVICES
from tests.command_line import start

INSTALLED = {distribution.name for distribution in importlib.metadata.distributions()}
HAS_TPU = "libtpu" in INSTALLED
HAS_CUDA = not INSTALLED.isdisjoint({"jax-cuda13-pjrt", "jax-cuda12-pjrt"})
TPU = pytest.mark.skipif(not HAS_TPU, reason="libtpu, the TPUs' compiler, is not installed")
CUDA = pytest.mark.skipif(not HAS_CUDA, reason="jax's CUDA plugin, the compiler for NVIDIA's devices, is not installed")
pytestmark = pytest.mark.slow  # programs of thousands of operations to compile

BFLOAT16 = ("--config.generator.dtype=bfloat16", "--config.discriminator.dtype=bfloat16")
COUNTED = {"collectives", "products"}  # whole numbers; the others are megabytes


def output_of(process) -> str:
    out, error = process.communicate(timeout=3000)
    assert process.returncode == 0, error
    return out


# Collectives a step: one for the gradients of each update, and on NVIDIA's devices one more. In bfloat16, SNGAN's seven
# batch normalisations take one each, for mean and variance, in the forward passes of both updates at once, and one in
# the backward pass. One convolution or matrix product of ours is one of the compiler's; by taps it would be 9 or 16.
@pytest.mark.parametrize(
    ("recipe", "flags", "topology", "budget"),
    [
        pytest.param(
            *("digits", (), "v5e:2x4"),
            {"collectives": 2, "reduced": 1.07, "products": 33, "moved": 6.67, "peak": 29.5},
            marks=TPU,
        ),
        pytest.param(
            *("cifar10_sngan_narrow", BFLOAT16, "v5e:2x4"),
            {"collectives": 2 + 14, "reduced": 3.64, "products": 91, "moved": 26.4, "peak": 204},
            marks=TPU,
        ),
        pytest.param(
            *("digits", (), "h100:8"),
            {"collectives": 3, "reduced": 0.529, "products": 31, "moved": 46.8, "peak": 9.42},
            marks=CUDA,
        ),
    ],
)
def test_eight_devices_train_within_their_budget(recipe, flags, topology, budget):
    command = ("benchmark", f"--config={recipe}", f"--topology={topology}", "--json", *flags)
    numbers = json.loads(output_of(start(*command, XLA_FLAGS="")))
    assert numbers["fits"] and numbers["devices"] == 8
    assert numbers["donated_leaves"] == numbers["state_leaves"]
    assert not numbers["copies_images"]
    found = {
        "collectives": sum(entry["count"] for entry in numbers["collectives_per_step"].values()),
        "reduced": sum(entry["megabytes"] for entry in numbers["collectives_per_step"].values()),
        "products": sum(numbers["products"].values()),
        "moved": 1e3 * numbers["gigabytes_per_step"],
        "peak": 1e3 * numbers["memory_gigabytes"]["peak"],
    }
    over = {name: found[name] for name in budget if found[name] > (1 if name in COUNTED else 1.1) * budget[name]}
    assert not over, f"over {budget}"
    under = {name: found[name] for name in budget if found[name] < (1 if name in COUNTED else 0.5) * budget[name]}
    assert not under, f"so little that it is not counted: {under} of {budget}"
    assert set(numbers["products"]) == {"bf16" if flags else "f32"}
    assert numbers["bound"] in numbers["images_per_sec"] and 0 < numbers["share_of_peak"] < 1
    assert any("networks/" in one["line"] for one in numbers["costly"])
    for call in (numbers["drawing"], numbers["features"]):
        assert min(call["images_per_sec"].values()) > 1000 and 0 < call["peak_gigabytes"] < 5


@pytest.mark.parametrize("topology", [pytest.param("v5e:1x1", marks=TPU), pytest.param("h100", marks=CUDA)])
def test_every_augmentation_compiles(topology):
    policy = ",".join([*augment.TOGETHER, *augment.OPERATIONS])
    flags = (f"--config.augment.policy={policy}", "--config.augment.probability=0.5")
    numbers = json.loads(output_of(start("benchmark", "--config=digits", f"--topology={topology}", "--json", *flags)))
    assert numbers["fits"] and numbers["donated_leaves"] == numbers["state_leaves"]


# A product of 8192x8192 matrices, and an array that no chip can hold.
PROBE = """
import re, sys
import jax
from jax.sharding import SingleDeviceSharding
from cgan_jax.evaluation.program import Program
from cgan_jax.evaluation.topology import open_topology
for name in sys.argv[1:]:
    mesh = open_topology(name).mesh
    on = SingleDeviceSharding(mesh.devices.flat[0])
    square = jax.ShapeDtypeStruct((8192, 8192), "bfloat16", sharding=on)
    cycles = sum(i.cycles for _, i, _ in Program(jax.jit(lambda a: a @ a).lower(square).compile().as_text()).runs())
    huge = jax.ShapeDtypeStruct((2**40,), "bfloat16", sharding=on)
    try:
        jax.jit(lambda a: 2 * a).lower(huge).compile()
    except jax.errors.JaxRuntimeError as error:
        print("probed", mesh.size, cycles, re.search(r"exceeds available HBM \\(([0-9.]+)G", str(error))[1])
"""


@TPU
def test_the_table_of_tpus_agrees_with_their_compiler():
    kinds = {"v4": "2x2x1", "v5e": "2x2", "v5p": "2x2x1", "v6e": "2x2"}
    out = output_of(start(*(f"{kind}:{shape}" for kind, shape in kinds.items()), program=PROBE, XLA_FLAGS=""))
    probed = re.findall(r"^probed (\d+) (\d+) (.*)$", out, re.MULTILINE)
    assert len(probed) == len(kinds)
    for kind, (devices, cycles, available) in zip(kinds, probed, strict=True):
        device = DEVICES[kind]
        assert int(devices) == 4, f"{kind}: a chip is one device"
        assert float(available) * 2**30 == pytest.approx(device.share * device.memory, rel=1e-4), kind
        # The compiler expects less than the peak of large products, but not far less.
        assert 0.65 < 2 * 8192**3 * device.clock / int(cycles) / device.bfloat16 < 1, kind
