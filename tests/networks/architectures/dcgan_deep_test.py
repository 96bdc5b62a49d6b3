"""dcgan_deep against the same network written out in NumPy, and its parameters counted by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgan_jax.errors import UsageError
from cgan_jax.networks.architectures.dcgan_deep import Discriminator, Generator
from tests import by_hand, half_precision

LATENTS = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
LABELS = np.array([0, 2, 2], np.int32)
IMAGES = np.random.default_rng(1).uniform(-1, 1, size=(3, 8, 8, 1)).astype(np.float32)


def make_generator(num_classes=3, skips=False, kernel_size=3, image_size=8, batch_norm_momentum=0.0):
    return Generator(
        image_size,
        1,
        num_classes,
        latent_dim=4,
        width=2,
        embedding_dim=3,
        kernel_size=kernel_size,
        skips=skips,
        dtype="float32",
        batch_norm_momentum=batch_norm_momentum,
    )


def make_discriminator(num_classes=3, skips=False, kernel_size=3):
    return Discriminator(
        8, 1, num_classes, width=2, embedding_dim=3, kernel_size=kernel_size, dropout=0.5, skips=skips, dtype="float32"
    )


def random_params(module, *inputs):
    """Parameters of the shapes that the module makes, biases too, so that no part of it is 0."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, False))["params"]
    rng = np.random.default_rng(2)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32) / 3, shapes)


@pytest.mark.parametrize(
    ("num_classes", "skips", "kernel_size", "momentum"), [(0, False, 3, 0.0), (3, False, 5, 0.9), (3, True, 3, 0.0)]
)
def test_the_generator_is_three_doublings_and_an_image(num_classes, skips, kernel_size, momentum):
    generator = make_generator(num_classes, skips, kernel_size, batch_norm_momentum=momentum)
    params = random_params(generator, LATENTS, LABELS)

    def activated(x, layer):
        if momentum:
            norm, axes = params[f"BatchNorm_{layer}"], (0, 1, 2)
            x = (x - x.mean(axes)) / np.sqrt(x.var(axes) + 1e-5) * norm["scale"] + norm["bias"]
        return np.maximum(x, 0)

    x = activated(by_hand.dense(LATENTS, params["Dense_0"]).reshape(3, 1, 1, 8), 0)
    if num_classes:
        x = np.concatenate([x, by_hand.label_map(LABELS, params["LabelMap_0"], 1)], axis=-1)
    for layer in range(3):
        y = by_hand.conv_transpose(x, **params[f"ConvTranspose_{layer}"], stride=2)
        if skips:
            y += by_hand.conv(by_hand.upsample(x), **params[f"Conv_{layer}"], stride=1)
        x = activated(y, layer + 1)
    expected = np.tanh(by_hand.conv(x, **params[f"Conv_{3 if skips else 0}"], stride=1))
    shapes = jax.eval_shape(lambda: generator.init(jax.random.key(0), LATENTS, LABELS, False))
    variables = {**jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes), "params": params}

    @jax.jit
    def drawn(variables):
        return generator.apply(variables, LATENTS, LABELS, True, mutable=["batch_stats"])[0]

    images = drawn(variables)
    assert ("batch_stats" in shapes) == bool(momentum)
    assert images.shape == (3, 8, 8, 1) and images.dtype == jnp.float32
    np.testing.assert_allclose(images, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected).mean() < 0.99, "a tanh that is not saturated everywhere"


@pytest.mark.parametrize(("num_classes", "skips", "kernel_size"), [(0, False, 3), (3, False, 5), (3, True, 3)])
def test_the_discriminator_is_four_halvings_and_one_logit(num_classes, skips, kernel_size):
    discriminator = make_discriminator(num_classes, skips, kernel_size)
    params = random_params(discriminator, IMAGES, LABELS)
    x = IMAGES
    if num_classes:
        x = np.concatenate([x, by_hand.label_map(LABELS, params["LabelMap_0"], 8)], axis=-1)
    for layer in range(4):
        step = 2 if skips else 1
        y = by_hand.conv(x, **params[f"Conv_{step * layer}"], stride=2)
        if skips:
            y += by_hand.conv(by_hand.halve(x), **params[f"Conv_{step * layer + 1}"], stride=1)
        x = by_hand.leaky_relu(y, 0.01)
    expected = by_hand.dense(x.reshape(3, -1), params["Unconditional_0"]["Dense_0"])[:, 0]
    apply = jax.jit(discriminator.apply, static_argnums=3)
    output = apply({"params": params}, IMAGES, LABELS, False)
    assert output.logits.shape == (3,) and output.extras == {}
    np.testing.assert_allclose(output.logits, expected, rtol=1e-5, atol=1e-5)
    dropped = apply({"params": params}, IMAGES, LABELS, True, rngs={"dropout": jax.random.key(0)})
    assert np.abs(dropped.logits - output.logits).min() > 1e-3, "dropout is on when training"


def count(module, *inputs):
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, False))["params"]
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


MESSAGE = "a change of the architecture makes old checkpoints useless; if it is meant, count anew here"


@pytest.mark.parametrize(
    ("num_classes", "skips", "expected"),
    [
        # dense 100 -> 4*4*256, transposed 7x7 256 -> 128 -> 64 -> 64, 7x7 64 -> 3, and biases
        (
            0,
            False,
            (100 + 1) * 4096 + (49 * 256 * 128 + 128) + (49 * 128 * 64 + 64) + (49 * 64 * 64 + 64) + (49 * 64 * 3 + 3),
        ),
        # one more channel in; the map: 10 embeddings of 50, dense 50 -> 4*4; 1x1 shortcuts
        (
            10,
            True,
            (100 + 1) * 4096
            + (50 * 257 * 128 + 2 * 128)
            + (50 * 128 * 64 + 2 * 64)
            + (50 * 64 * 64 + 2 * 64)
            + (49 * 64 * 3 + 3)
            + 10 * 50
            + (50 + 1) * 16,
        ),
    ],
)
def test_the_generator_has_as_many_parameters_as_by_hand(num_classes, skips, expected):
    generator = Generator(
        32, 3, num_classes, latent_dim=100, width=64, embedding_dim=50, kernel_size=7, skips=skips, dtype="float32"
    )
    assert count(generator, jnp.zeros((1, 100)), jnp.zeros(1, jnp.int32)) == expected, MESSAGE


@pytest.mark.parametrize(
    ("num_classes", "skips", "expected"),
    [
        # 5x5 convolutions 3 -> 64 -> 128 -> 256 -> 512, dense 2*2*512 -> 1, and biases
        (
            0,
            False,
            25 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512) + 64 + 128 + 256 + 512 + 2048 + 1,
        ),
        # one more channel in; the map: 10 embeddings of 50, dense 50 -> 32*32; 1x1 shortcuts
        (
            10,
            True,
            26 * (4 * 64 + 64 * 128 + 128 * 256 + 256 * 512)
            + 2 * (64 + 128 + 256 + 512)
            + 2048
            + 1
            + 10 * 50
            + (50 + 1) * 1024,
        ),
    ],
)
def test_the_discriminator_has_as_many_parameters_as_by_hand(num_classes, skips, expected):
    discriminator = Discriminator(
        32, 3, num_classes, width=64, embedding_dim=50, kernel_size=5, dropout=0.4, skips=skips, dtype="float32"
    )
    assert count(discriminator, jnp.zeros((1, 32, 32, 3)), jnp.zeros(1, jnp.int32)) == expected, MESSAGE


@pytest.mark.parametrize("image_size", [4, 28, 36])
def test_a_side_that_doublings_cannot_reach_is_refused(image_size):
    generator = make_generator(image_size=image_size)
    with pytest.raises(UsageError) as caught:
        jax.eval_shape(lambda: generator.init(jax.random.key(0), LATENTS, LABELS, False))
    assert str(caught.value) == f"dcgan_deep draws images whose side is a multiple of 8, given image_size {image_size}"


def test_in_bfloat16_images_logits_and_variables_are_float32_and_nearly_the_same():
    half_precision.assert_nearly_the_same(
        lambda dtype: Generator(
            8, 1, 3, latent_dim=4, width=2, embedding_dim=3, kernel_size=3, skips=True, dtype=dtype
        ),
        LATENTS,
        LABELS,
    )
    half_precision.assert_nearly_the_same(
        lambda dtype: Discriminator(
            8, 1, 3, width=2, embedding_dim=3, kernel_size=3, dropout=0.5, skips=True, dtype=dtype
        ),
        IMAGES,
        LABELS,
    )
