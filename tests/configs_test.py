"""Every recipe is complete, says where it comes from, and builds networks of a known size."""

import ast
import functools
import importlib.util
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from cgan_jax import recipe as recipes
from cgan_jax import train_state, train_step
from cgan_jax.build import ImageSpec, build
from cgan_jax.data import sources
from cgan_jax.data.batches import on_host

CONFIGS = Path(__file__).parent.parent / "configs"

# (channels, parameters of the generator, of the discriminator). A change here changes what old checkpoints mean: make
# sure that it is meant, say so in the commit, and write the new numbers down.
PARAMETERS = {
    # As cifar10_biggan, with 90 classes more: 90*128 in the generator, 90*192 against it
    "cifar100_biggan_cr": (3, 9_427_716, 2_432_450),
    # tests/architectures/biggan_test.py and sngan_test.py have them by hand
    "cifar10_biggan": (3, 9_416_196, 2_415_170),
    "cifar10_biggan_cr": (3, 9_416_196, 2_415_170),
    "cifar10_biggan_cr_short": (3, 9_416_196, 2_415_170),
    "cifar10_biggan_diffaug": (3, 9_416_196, 2_415_170),
    "cifar10_sngan": (3, 4_304_387, 1_055_105),
    # dense 129*1024; three blocks of 4*10*64 scales and biases, 2*(9*64*64+64) and 64*64+64; 128; 9*64*3+3
    # against it 9*3*32+32 + 9*32*32+32 + 3*32+32, 2*(9*32*32+32) + 32*32+32, 4*(9*32*32+32); dense 33, 10*32
    "cifar10_sngan_narrow": (3, 375_683, 67_169),
    # As cifar10_cgan_embedding.
    "cifar10_cgan": (3, 1_382_327, 213_237),
    # dense 101*4096, 7x7 convolutions 49*257*128+128, 49*128*64+64, 49*64*64+64, 49*64*3+3, map 10*50 + 51*16;
    # 25*(4*64 + 64*128 + 128*256 + 256*512) + 960, dense 2049, map 10*50 + 51*1024
    "cifar10_cgan_deep": (3, 2_638_695, 4_362_933),
    # cifar10_dcgan, one more channel in (16*128 and 9*128), maps 10*50 + 51*64 and 10*50 + 51*1024
    "cifar10_cgan_embedding": (3, 1_382_327, 213_237),
    # dense 65*4096; blocks from I to O channels, 256 to 128 to 64 to 32: 20*(I+O) + 9*O*(I+O) + 2*O + I*O + O; 64;
    # 9*32*3+3; against it, for 32, 64, 128, 192 and 3 channels, 3, 2, 1, 0 and 3 of 16*I*64+64, then 9*I*64+64, 65, 640
    "cifar10_cpu": (3, 904_899, 822_597),
    # dense 101*8192, two of 16*128*128+128, 64*128*3+3; 9*3*128+128, 9*128*128+128, dense 8193
    "cifar10_dcgan": (3, 1_376_515, 159_361),
    # dense 101*8192, 16*128*128+128, 9*128*64+64, 9*64*3+3, scales and biases 2*320;
    # 9*(3*64 + 64*128 + 128*256) + 448, dense 4097
    "cifar10_gan_upsample": (3, 1_165_827, 374_913),
    # 8 blocks of 2*768*1536 + 9*16*1536 + 2*1536, colours 3*768, 4x4 basis 16*768; embedding 10*64, dense 128*768;
    # dense 768*768, embedding 10*768
    "cifar10_r3gan": (3, 20_781_952, 21_280_512),
    # The same with 256 for 768.
    "cifar10_r3gan_lite": (3, 2_733_440, 2_768_128),
    # tests/networks/architectures/stylegan2_test.py has them by hand
    "cifar10_stylegan2_ada": (3, 20_215_315, 23_089_664),
    # The head has a dense unit 513, embeddings 513*512 and proxies 10*512 in place of 513*512 + 11*512 + 8*513*512
    "cifar10_stylegan2_d2dce": (3, 20_215_315, 20_988_417),
    # as cifar10_dcgan, with dense 129*8192
    "cifar10_wgan_gp": (3, 1_605_891, 159_361),
    "digits": (1, 102_689, 29_473),
    # dense 33*512; three blocks of 4*10*32 scales and biases, 2*(9*32*32+32) and 32*32+32; 64; 9*32+1
    # against it 9*16+16 + 9*16*16+16 + 16+16, 2*(9*16*16+16) + 16*16+16, 4*(9*16*16+16); dense 17, 10*16
    "digits_sngan": (1, 79_745, 66_529),
    # STYLED
    # embedding 11*32, dense 65*32 and 33*32, 4x4 of 32; three convolutions of 9*32*32+32 + 1 + 33*32, colours twice
    # 32+1 + 33*32; against it 2*64 + 2*(9*64*64+64) + 9*65*64+64 + 1025*64, head 65*64 + 11*64 + 2*65*64
    "digits_stylegan2": (1, 37_093, 190_272),
    # dense 101*6272, 16*129*128+128, 16*128*128+128, 49*128+1, map 10*50 + 51*49;
    # 9*2*128+128, 9*128*128+128, dense 6273, map 10*50 + 51*784
    "fashion_mnist_cgan_embedding": (1, 1_169_336, 196_773),
    # dense 129*4096; blocks of 256, 128, 64, 32, 16 channels as in imagenet64_biggan, but 2*10*(I+O) scales and biases
    # and no attention; 32; 9*16*3+3; against it the same from 3 to 16 to 256, and 256 to 256; dense 257, 10*256
    "images": (3, 1_175_011, 1_225_649),
    # dense 21*20480; 1000*128; blocks of 1280, 640, 320, 160, 80 channels, from each I to the next O: scales and biases
    # 2*148*(I+O), 3x3 of 9*I*O+O and 9*O*O+O, 1x1 of I*O+O; attention 160*120 + 80*160 + 1; 160; 9*80*3+3;
    # against it such blocks back from 3 to 80 to 1280 without the first, and 1280 to 1280 from 640; attention
    # 80*60 + 40*80 + 1; dense 1281, 1000*1280
    "imagenet64_biggan": (3, 17_437_604, 31_820_722),
}
# Where there are not ten.
CLASSES = {"cifar100_biggan_cr": 100, "imagenet64_biggan": 1000}


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
    spec = ImageSpec(recipe["dataset"]["image_size"], channels, CLASSES.get(name, 10))
    algorithm = build(recipe, spec)
    state = jax.eval_shape(lambda: train_state.create(algorithm, spec, jax.random.key(0)))
    assert (count(state.g_params), count(state.d_params)) == (in_generator, in_discriminator)


@pytest.mark.slow  # compiles a whole step for every recipe
@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_a_recipe_trains_one_step(name):
    """With a few channels and images, made up in the recipe's size and colours."""
    recipe = load(CONFIGS / f"{name}.py").get_config().to_dict()
    channels = PARAMETERS[name][0]
    recipe["dataset"].update(source="synthetic", name=f"classes10_images16_channels{channels}", split="train")
    for player in ("generator", "discriminator"):
        small = {"width": 8 if recipe["architecture"] == "r3gan" else 2, "embedding_dim": 2, "style_dim": 2}
        recipe[player].update({name: number for name, number in small.items() if name in recipe[player]})
    recipe["train"].update(batch_size=4, g_batch_size=4)
    size = recipe["dataset"]["image_size"]
    dataset = sources.load("synthetic", recipe["dataset"]["name"], "train", "", size)
    spec = ImageSpec(size, channels, 10)
    algorithm = build(recipe, spec)
    state = jax.jit(lambda: train_state.create(algorithm, spec, jax.random.key(0)))()
    step = jax.jit(functools.partial(train_step.train_step, algorithm))
    after, scalars = step(state, on_host(dataset.images, dataset.labels))
    assert int(after.step) == 1
    assert all(np.isfinite(value) for value in scalars.values()), scalars
    listed = {f"g_{term}" for term, entry in recipe["loss"]["g_terms"].items() if entry["weight"]}
    for update in recipe["loss"]["d_updates"].values():
        listed |= {f"d_{term}" for term in update}
    assert listed <= scalars.keys()
    for before, moved in ((state.g_params, after.g_params), (state.d_params, after.d_params)):
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(moved))
        assert any(np.any(a != b) for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(moved), strict=True))


@pytest.mark.parametrize("term", ["l2", "ssim"])
def test_the_deep_recipes_wishes_are_flags(term):
    recipe = load(CONFIGS / "cifar10_cgan_deep.py").get_config().to_dict()
    spec = ImageSpec(32, 3, 10)
    assert [listed.name for listed in build(recipe, spec).g_terms] == ["bce"]
    recipe["loss"]["g_terms"][term]["weight"] = 1.0
    recipe["generator"]["skips"] = recipe["discriminator"]["skips"] = True
    built = build(recipe, spec)
    assert [listed.name for listed in built.g_terms] == ["bce", term]
    assert built.generator.skips and built.discriminator.skips


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_a_recipe_opens_with_what_it_is_and_ends_with_its_command(name):
    text = load(CONFIGS / f"{name}.py").__doc__
    first, *_, last = text.strip().split("\n\n")
    assert first.count("\n") == 0 and first.endswith(".") and len(first) <= 69, "a line of cgan recipes"
    assert last == f"    cgan train --config={name} --workdir=runs/{name}"
    for word in ("Source: ", "Expected: ", "Hardware and time: "):
        assert f"\n{word}" in text


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_a_recipe_sets_nothing_to_what_it_is_already(name):
    """A line of a recipe is a decision; if it repeats a default, it hides the lines that are."""
    unset = dict(recipes.flattened(recipes.defaults().to_dict()))
    for line in (CONFIGS / f"{name}.py").read_text().splitlines():
        decision = re.match(r"    config\.([\w.]+) = (.*?)(  #.*)?$", line)
        if decision and decision[1] in unset and decision[1] != "augment.probability":
            assert ast.literal_eval(decision[2]) != unset[decision[1]], line
