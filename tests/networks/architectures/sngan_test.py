"""SNGAN against the same networks in PyTorch's functions: images, logits and gradients; its exact sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgan_jax.networks.architectures.sngan import Discriminator, Generator
from tests.residual_networks import assert_like_pytorch, count, random_variables, sizes

LATENTS = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
LABELS = np.array([0, 2, 2], np.int32)
IMAGES = np.random.default_rng(1).uniform(-1, 1, size=(3, 32, 32, 1)).astype(np.float32)


def make_generator(num_classes=3):
    return Generator(32, 1, num_classes, latent_dim=6, width=1, dtype="float32")


@pytest.mark.parametrize("train", [True, False])
def test_the_generator_has_the_images_and_gradients_of_pytorchs(train):
    assert_like_pytorch(make_generator(), LATENTS, LABELS, train, chunked=False)


@pytest.mark.parametrize("num_classes", [0, 3])
def test_the_discriminator_has_the_logits_and_gradients_of_pytorchs(num_classes):
    discriminator = Discriminator(32, 1, num_classes, width=2, head="projection", dtype="float32")
    assert_like_pytorch(discriminator, IMAGES, LABELS, True)


def test_without_classes_labels_are_not_read():
    generator = make_generator(num_classes=0)
    variables = random_variables(generator, LATENTS, LABELS)
    images = jax.jit(generator.apply, static_argnums=3)
    np.testing.assert_array_equal(
        images(variables, LATENTS, LABELS, False), images(variables, LATENTS, LABELS + 5, False)
    )


@pytest.mark.parametrize("num_classes", [0, 10])
def test_the_generator_has_as_many_parameters_as_by_hand(num_classes):
    # dense 128 -> 4*4*256; three blocks of two scales and biases a class, two 3x3 and one 1x1 convolution; a scale and
    # bias; 3x3 to the image
    block = 2 * 2 * max(1, num_classes) * 256 + 2 * (9 * 256 * 256 + 256) + (256 * 256 + 256)
    expected = (128 + 1) * 4096 + 3 * block + 2 * 256 + (9 * 256 * 3 + 3)
    generator = Generator(32, 3, num_classes, latent_dim=128, width=64, dtype="float32")
    assert count(generator, jnp.zeros((1, 128)), jnp.zeros(1, jnp.int32)) == expected


@pytest.mark.parametrize("num_classes", [0, 10])
def test_the_discriminator_has_as_many_parameters_as_by_hand(num_classes):
    # blocks of 3x3 convolutions 3 -> 128 -> 128 and 1x1, 128 -> 128 -> 128 and 1x1, and two without a 1x1; a dense
    # unit and embeddings
    wide, shortcut = 9 * 128 * 128 + 128, 128 * 128 + 128
    first = (9 * 3 * 128 + 128) + wide + (3 * 128 + 128)
    expected = first + (2 * wide + shortcut) + 2 * 2 * wide + (128 + 1) + num_classes * 128
    discriminator = Discriminator(32, 3, num_classes, width=64, head="projection", dtype="float32")
    assert count(discriminator, jnp.zeros((1, 32, 32, 3)), jnp.zeros(1, jnp.int32)) == expected


def test_at_64_pixels_channels_double_with_every_halving():
    generator = Generator(64, 3, 10, latent_dim=6, width=2, dtype="float32")
    params = sizes(generator, LATENTS, LABELS)["params"]
    assert [params[f"GeneratorBlock_{i}"]["Conv_0"]["kernel"][-1] for i in range(4)] == [16, 8, 4, 2]
    assert params["Dense_0"]["kernel"] == (6, 16 * 32)
    discriminator = Discriminator(64, 3, 10, width=2, head="projection", dtype="float32")
    params = sizes(discriminator, np.zeros((1, 64, 64, 3), np.float32), LABELS[:1])["params"]
    assert [params[f"DiscriminatorBlock_{i}"]["Conv_0"]["kernel"][-1] for i in range(5)] == [2, 4, 8, 16, 32]
    assert ["PooledConv_0" in params[f"DiscriminatorBlock_{i}"] for i in range(5)] == [True] * 4 + [False]
