"""BigGAN against the same networks in PyTorch's functions: images, logits and gradients; its exact sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgan_jax.errors import UsageError
from cgan_jax.networks.architectures.biggan import Discriminator, Generator
from tests.residual_networks import assert_like_pytorch, count, random_variables, sizes

LATENTS = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
LABELS = np.array([0, 2, 2], np.int32)
IMAGES = np.random.default_rng(1).uniform(-1, 1, size=(3, 32, 32, 3)).astype(np.float32)


def make_generator(num_classes=3, image_size=32, latent_dim=8, dtype="float32"):
    return Generator(image_size, 3, num_classes, latent_dim=latent_dim, width=2, embedding_dim=5, dtype=dtype)


def make_discriminator(num_classes=3, dtype="float32"):
    return Discriminator(32, 3, num_classes, width=4, head="projection", dtype=dtype)


@pytest.mark.parametrize("train", [True, False])
def test_the_generator_has_the_images_and_gradients_of_pytorchs(train):
    assert_like_pytorch(make_generator(), LATENTS, LABELS, train, chunked=True)


def test_the_discriminator_has_the_logits_and_gradients_of_pytorchs():
    assert_like_pytorch(make_discriminator(), IMAGES, LABELS, True)


@pytest.mark.parametrize(("make", "given"), [(make_generator, LATENTS), (make_discriminator, IMAGES)])
def test_in_bfloat16_images_logits_weights_and_statistics_stay_float32(make, given):
    wide, narrow = make(), make(dtype="bfloat16")
    variables = random_variables(wide, given, LABELS)
    assert sizes(narrow, given, LABELS) == sizes(wide, given, LABELS)
    moved = jax.eval_shape(lambda: narrow.apply(variables, given, LABELS, True, mutable=["batch_stats", "spectral"]))
    float32 = {jnp.dtype("float32")}
    assert {leaf.dtype for leaf in jax.tree.leaves(moved)} == float32
    made = jax.eval_shape(lambda: narrow.init(jax.random.key(0), given, LABELS, True))
    assert {leaf.dtype for leaf in jax.tree.leaves(made)} == float32
    expected, actual = (
        jax.tree.leaves(jax.jit(module.apply, static_argnums=3)(variables, given, LABELS, True))[0]
        for module in (wide, narrow)
    )
    # 8 bits of mantissa, through a dozen layers.
    assert 0 < np.abs(actual - expected).mean() < 0.02 * np.abs(expected).mean()


def test_a_part_of_the_latents_reaches_the_image_through_its_block_alone():
    generator = make_generator()
    variables = random_variables(generator, LATENTS, LABELS)
    captured = jax.jit(
        lambda z: generator.apply(
            variables,
            z,
            LABELS,
            False,
            capture_intermediates=lambda module, _: "Block" in type(module).__name__,
            mutable=["intermediates"],
        )[1]["intermediates"]
    )
    before, after = captured(LATENTS), captured(LATENTS + np.float32([0, 0, 0, 0, 1, 0, 0, 0]))
    same = [bool(np.array_equal(before[name]["__call__"][0], after[name]["__call__"][0])) for name in sorted(before)]
    assert same == [True, False, False]


@pytest.mark.parametrize(
    ("num_classes", "expected"),
    [
        # dense 20 -> 4*4*384; embeddings; three blocks of four linear maps 148 -> 384, two 3x3 and one 1x1
        # convolution; attention to 48, 48, 192 and back, a gate; scale and bias; 3x3 to the image
        (
            10,
            (20 + 1) * 6144
            + 10 * 128
            + 3 * (4 * 148 * 384 + 2 * (9 * 384 * 384 + 384) + (384 * 384 + 384))
            + (384 * (48 + 48 + 192) + 192 * 384 + 1)
            + 2 * 384
            + (9 * 384 * 3 + 3),
        ),
        # without embeddings, and with maps of 20 numbers only
        (0, 9_416_196 - 10 * 128 - 3 * 4 * 128 * 384),
    ],
)
def test_the_generator_has_as_many_parameters_as_by_hand(num_classes, expected):
    generator = Generator(32, 3, num_classes, latent_dim=80, width=96, embedding_dim=128, dtype="float32")
    assert count(generator, jnp.zeros((1, 80)), jnp.zeros(1, jnp.int32)) == expected


def test_the_discriminator_has_as_many_parameters_as_by_hand():
    # blocks of 3x3 convolutions 3 -> 192 -> 192 and 1x1, 192 -> 192 -> 192 and 1x1, and two without a 1x1;
    # attention to 24, 24, 96 and back, a gate; a dense unit and embeddings
    wide, shortcut = 9 * 192 * 192 + 192, 192 * 192 + 192
    expected = (
        ((9 * 3 * 192 + 192) + wide + (3 * 192 + 192))
        + (2 * wide + shortcut)
        + 2 * 2 * wide
        + (192 * (24 + 24 + 96) + 96 * 192 + 1)
        + (192 + 1)
        + 10 * 192
    )
    discriminator = Discriminator(32, 3, 10, width=96, head="projection", dtype="float32")
    assert count(discriminator, jnp.zeros((1, 32, 32, 3)), jnp.zeros(1, jnp.int32)) == expected


@pytest.mark.parametrize("image_size", [64, 128])
def test_larger_images_take_a_block_and_a_part_of_the_latents_more(image_size):
    parts = {64: 5, 128: 6}[image_size]
    generator = make_generator(image_size=image_size, latent_dim=2 * parts)
    latents, labels = jnp.zeros((1, 2 * parts)), jnp.zeros(1, jnp.int32)
    variables = jax.eval_shape(lambda: generator.init(jax.random.key(0), latents, labels, False))
    assert sum(name.startswith("GeneratorBlock") for name in variables["params"]) == parts - 1
    # Attention where the image has half its size, which is the last block's input.
    kernel = variables["params"]["SelfAttention_0"]["Conv_3"]["kernel"]
    assert kernel.shape[-1] == variables["params"][f"GeneratorBlock_{parts - 2}"]["Conv_1"]["kernel"].shape[2]
    images = jax.eval_shape(lambda v: generator.apply(v, latents, labels, False), variables)
    assert images.shape == (1, image_size, image_size, 3)
    discriminator = Discriminator(image_size, 3, 3, width=2, head="projection", dtype="float32")
    output = jax.eval_shape(lambda x: discriminator.init_with_output(jax.random.key(0), x, labels, False)[0], images)
    assert output.logits.shape == (1,)


def test_latents_that_cannot_be_split_evenly_are_one_line():
    with pytest.raises(UsageError) as caught:
        sizes(make_generator(latent_dim=10), np.zeros((3, 10), np.float32), LABELS)
    assert str(caught.value) == "biggan splits its latents into 4 parts for 32 pixels, given latent_dim 10"


@pytest.mark.parametrize("image_size", [16, 28, 48, 33])
def test_a_size_that_is_not_32_times_a_power_of_two_is_one_line(image_size):
    with pytest.raises(UsageError) as caught:
        sizes(make_generator(image_size=image_size), LATENTS, LABELS)
    line = f"residual networks draw images of 32 times a power of two pixels, given {image_size}"
    assert str(caught.value) == line
