"""Every recipe is complete, says where it comes from, and builds networks of a known size."""

import importlib.util
from pathlib import Path

import jax
import pytest

from cgan_jax import recipe as recipes
from cgan_jax import train_state
from cgan_jax.algorithm import ImageSpec, build

CONFIGS = Path(__file__).parent.parent / "configs"

# (channels, parameters of the generator, of the discriminator). A change here changes what old checkpoints mean: make
# sure that it is meant, say so in the commit, and write the new numbers down.
PARAMETERS = {
    "cifar10_cgan": (3, 1_382_327, 213_237),
    "digits": (1, 102_689, 29_473),
}


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def count(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_every_recipe_is_in_the_table():
    assert {path.stem for path in CONFIGS.glob("*.py")} == PARAMETERS.keys()


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_a_recipe_is_complete_and_its_networks_have_the_known_size(name):
    module = load(CONFIGS / f"{name}.py")
    recipe = module.get_config().to_dict()
    recipes.check(recipe)
    channels, in_generator, in_discriminator = PARAMETERS[name]
    spec = ImageSpec(recipe["dataset"]["image_size"], channels, 10)
    algorithm = build(recipe, spec)
    state = jax.eval_shape(lambda: train_state.create(algorithm, spec, jax.random.key(0)))
    assert (count(state.g_params), count(state.d_params)) == (in_generator, in_discriminator)


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_a_recipe_opens_with_its_command(name):
    text = load(CONFIGS / f"{name}.py").__doc__
    assert f"cgan train --config=configs/{name}.py --workdir=runs/" in text
