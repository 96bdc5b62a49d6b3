"""Settings with which training fits a device, against what its compiler says of each."""

import jax
import pytest

from cgan_jax.build import ImageSpec
from cgan_jax.errors import UsageError
from cgan_jax.parallel import make_mesh
from cgan_jax.run import memory

SPEC = ImageSpec(image_size=8, channels=1, num_classes=10)


def taken(recipe, mesh, spec=SPEC):
    call = memory.call_of(recipe, 64, spec, mesh)
    return memory.taken(call.compiled(), mesh).peak / 1e9


@pytest.fixture
def mesh():
    return make_mesh(jax.devices()[:2])


def test_a_batch_is_taken_in_as_few_parts_as_fit_and_nothing_else_changes(recipe, mesh):
    recipe["train"] |= {"batch_size": 64, "g_batch_size": 64}
    whole = taken(recipe, mesh)
    in_halves = taken({**recipe, "train": {**recipe["train"], "accumulate": 2}}, mesh)
    assert in_halves < 0.8 * whole
    said = []
    assert memory.fitted(recipe, 64, SPEC, mesh, whole, said.append) == recipe
    assert len(said) == 1 and said[0].endswith("GB of a device with the recipe as it is")
    fitted = memory.fitted(recipe, 64, SPEC, mesh, in_halves, said.append)
    assert fitted == {**recipe, "train": {**recipe["train"], "accumulate": 2}}
    assert said[-1] == f"{in_halves:.3g} GB of a device with --config.train.accumulate=2"


def test_what_fits_in_no_way_is_refused_with_the_least_that_it_takes(recipe, mesh):
    recipe["train"] |= {"batch_size": 4, "g_batch_size": 4}  # two images on each device
    said = []
    with pytest.raises(
        UsageError, match=r"--memory_gigabytes=1e-06 is too little: training takes at least \S+ GB of a device"
    ):
        memory.fitted(recipe, 64, SPEC, mesh, 1e-6, said.append)
    assert [line.split(" with ")[1] for line in said] == ["the recipe as it is", "--config.train.accumulate=2"]


def test_every_number_of_parts_that_shares_divide_by_is_tried(recipe, mesh):
    recipe["train"] |= {"batch_size": 18, "g_batch_size": 36}  # 9 and 18 images on each device
    said = []
    with pytest.raises(UsageError, match="is too little"):
        memory.fitted(recipe, 64, SPEC, mesh, 1e-6, said.append)
    assert [line.rpartition("=")[2] for line in said[1:]] == ["3", "9"]
    assert memory.can_be_cut(recipe, 64, SPEC, mesh)
    recipe["train"] |= {"accumulate": 3}
    assert list(memory._parts(recipe, mesh)) == [9]
    recipe["train"] |= {"accumulate": 9}
    assert not memory.can_be_cut(recipe, 64, SPEC, mesh)


def test_networks_with_batch_statistics_are_not_taken_in_parts(recipe, mesh):
    small = {"width": 2, "embedding_dim": 2, "dtype": "float32"}
    recipe |= {"architecture": "dcgan_upsample", "discriminator": {"dropout": 0.0, **small}}
    recipe["generator"] = {"latent_dim": 4, "batch_norm_momentum": 0.8, **small}
    said = []
    with pytest.raises(UsageError, match="is too little"):
        memory.fitted(recipe, 64, SPEC, mesh, 1e-6, said.append)
    assert len(said) == 1


@pytest.mark.slow
def test_activations_are_recomputed_before_a_batch_is_cut(recipe, mesh):
    recipe |= {"architecture": "r3gan"}
    small = {"width": 16, "blocks": 1, "dtype": "float32", "remat": False}
    recipe |= {"generator": {"latent_dim": 4, "embedding_dim": 4, **small}, "discriminator": small}
    spec, said = ImageSpec(32, 1, 10), []
    with pytest.raises(UsageError, match="is too little"):
        memory.fitted(recipe, 64, spec, mesh, 1e-6, said.append)
    remat = "--config.generator.remat=True --config.discriminator.remat=True"
    assert [line.split(" with ")[1] for line in said[:3]] == [
        "the recipe as it is",
        remat,
        f"{remat} --config.train.accumulate=2",
    ]
    sizes = [float(line.split()[0]) for line in said[:3]]
    assert sizes[2] < sizes[1] <= sizes[0]  # one block on a processor has nothing to recompute
