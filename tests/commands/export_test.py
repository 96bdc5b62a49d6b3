"""`cgan export`: one file, whole or not at all. What is in a model, tests/exported_test.py asks."""

import numpy as np
import pytest

from cgan_jax import exported
from cgan_jax.sampling import sampling
from tests.command_line import cgan
from tests.conftest import small_recipe
from tests.random_run import write_random_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_random_run(tmp_path_factory.mktemp("export") / "run", small_recipe())


def test_bare_weights_are_those_of_the_average_by_layer(run, tmp_path):
    out = tmp_path / "new" / "weights.safetensors"
    assert cgan("export", f"--workdir={run}", "--step=4", "--format=safetensors", f"--out={out}") == 0
    arrays, metadata = exported.unpack_arrays(out.read_bytes())
    average = sampling.Sampler(run, 4).variables["params"]
    np.testing.assert_array_equal(arrays["params.Dense_0.kernel"], average["Dense_0"]["kernel"])
    assert sum(array.size for array in arrays.values()) == sum(np.size(x) for layer in [average] for x in leaves(layer))
    assert metadata["step"] == "4" and metadata["class_names"] == '["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]'


def leaves(tree):
    return [leaf for part in tree.values() for leaf in leaves(part)] if isinstance(tree, dict) else [tree]


def test_a_file_that_exists_is_replaced_only_if_forced(run, tmp_path, capsys):
    out = tmp_path / "w.safetensors"
    out.write_text("mine")
    arguments = ("export", f"--workdir={run}", "--format=safetensors", f"--out={out}")
    assert cgan(*arguments) == 2 and out.read_text() == "mine"
    assert "w.safetensors exists already; --force replaces it" in capsys.readouterr().err
    assert cgan(*arguments, "--force") == 0
    first = out.read_bytes()
    assert cgan(*arguments, "--force") == 0 and out.read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]
