"""Training compiled for TPUs that are not here: what their compiler makes of it may not get worse.

The tests skip without libtpu, the compiler: pip install 'jax[tpu]'. On two cores each recipe takes a minute or two.
"""

import importlib.util
import json

import pytest

from tests.command_line import start

pytestmark = [
    pytest.mark.slow,  # programs of thousands of operations to compile
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu, the TPUs' compiler, is not here"),
]


_BFLOAT16 = ("--config.generator.dtype=bfloat16", "--config.discriminator.dtype=bfloat16")


def predicted(recipe: str, topology: str, *flags: str) -> dict:
    """What `cgan benchmark --topology` says."""
    command = start("benchmark", f"--config={recipe}", f"--topology={topology}", "--json", *flags, XLA_FLAGS="")
    out, error = command.communicate(timeout=1200)
    assert command.returncode == 0, error
    return json.loads(out)


# Collectives a step: the gradients of an update take at most two. Each of SNGAN's seven batch normalisations takes two
# for its statistics in every pass of the generator, of which both updates make one, and as many in the backward pass.
@pytest.mark.parametrize(
    ("recipe", "flags", "collectives", "gigabytes"),
    [("digits", (), 4, 0.01), ("cifar10_sngan_narrow", _BFLOAT16, 4 + 4 * 14, 0.5)],
)
def test_a_slice_of_eight_chips_trains_within_its_budget(recipe, flags, collectives, gigabytes):
    numbers = predicted(recipe, "v5e:2x4", *flags)
    assert numbers["fits"] and numbers["devices"] == 8 and numbers["compiler"].startswith("libtpu ")
    assert numbers["donated_leaves"] == numbers["state_leaves"]
    assert not numbers["copies_images"]
    assert numbers["gigabytes_per_step"] < gigabytes
    assert sum(entry["count"] for entry in numbers["collectives_per_step"].values()) <= collectives + 0.5
    if flags:
        assert numbers["products"]["bf16"] > 0.8 * sum(numbers["products"].values())
    assert numbers["bound"] in numbers["images_per_sec"] and 0 < numbers["share_of_peak"] < 1
    assert any("networks/" in one["line"] for one in numbers["costly"])
