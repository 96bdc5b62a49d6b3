"""dcgan against the same network written out in NumPy, and its parameters counted by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgan_jax.errors import UsageError
from cgan_jax.networks.architectures.dcgan import Discriminator, Generator
from tests import by_hand, half_precision

LATENTS = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
LABELS = np.array([0, 2, 2], np.int32)
IMAGES = np.random.default_rng(1).uniform(-1, 1, size=(3, 8, 8, 1)).astype(np.float32)


def random_params(module, *inputs):
    """Parameters of the shapes that the module makes, biases too, so that no part of it is 0."""
    shapes, rng = (
        jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, False))["params"],
        np.random.default_rng(2),
    )
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32) / 4, shapes)


@pytest.mark.parametrize("num_classes", [0, 3])
def test_the_generator_is_a_dense_layer_two_doublings_and_an_image(num_classes):
    generator = Generator(
        8, 1, num_classes, latent_dim=4, width=5, embedding_dim=3, output_kernel_size=8, dtype="float32"
    )
    params = random_params(generator, LATENTS, LABELS)
    x = by_hand.leaky_relu(by_hand.dense(LATENTS, params["Dense_0"])).reshape(3, 2, 2, 5)
    if num_classes:
        x = np.concatenate([x, by_hand.label_map(LABELS, params["LabelMap_0"], 2)], axis=-1)
    for name in ("ConvTranspose_0", "ConvTranspose_1"):
        x = by_hand.leaky_relu(by_hand.conv_transpose(x, **params[name], stride=2))
    expected = np.tanh(by_hand.conv(x, **params["Conv_0"], stride=1))
    images = jax.jit(generator.apply, static_argnums=3)({"params": params}, LATENTS, LABELS, True)
    assert images.shape == (3, 8, 8, 1) and images.dtype == jnp.float32
    # Four layers of float32 sums, up to 320 products each, below a tanh that is not saturated everywhere.
    np.testing.assert_allclose(images, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected).mean() < 0.99


@pytest.mark.parametrize("num_classes", [0, 3])
def test_the_discriminator_is_two_halvings_and_one_logit(num_classes):
    discriminator = Discriminator(8, 1, num_classes, width=5, embedding_dim=3, dropout=0.5, dtype="float32")
    params = random_params(discriminator, IMAGES, LABELS)
    x = IMAGES
    if num_classes:
        x = np.concatenate([x, by_hand.label_map(LABELS, params["LabelMap_0"], 8)], axis=-1)
    for name in ("Conv_0", "Conv_1"):
        x = by_hand.leaky_relu(by_hand.conv(x, **params[name], stride=2))
    expected = by_hand.dense(x.reshape(3, -1), params["Unconditional_0"]["Dense_0"])[:, 0]
    apply = jax.jit(discriminator.apply, static_argnums=3)
    output = apply({"params": params}, IMAGES, LABELS, False)
    assert output.logits.shape == (3,) and output.extras == {}
    np.testing.assert_allclose(output.logits, expected, rtol=1e-5, atol=1e-5)
    dropped = apply({"params": params}, IMAGES, LABELS, True, rngs={"dropout": jax.random.key(0)})
    assert np.abs(dropped.logits - output.logits).min() > 1e-3, "dropout is on when training"


def test_the_label_decides_a_conditional_networks_output_and_nothing_else_does_an_unconditional_ones():
    for num_classes in (0, 3):
        generator = Generator(
            8, 1, num_classes, latent_dim=4, width=5, embedding_dim=3, output_kernel_size=8, dtype="float32"
        )
        params = random_params(generator, LATENTS, LABELS)
        one, other = (
            jax.jit(generator.apply, static_argnums=3)({"params": params}, LATENTS, labels, False)
            for labels in (LABELS, LABELS * 0 + 1)
        )
        assert np.array_equal(one, other) == (num_classes == 0)


def count(module, *inputs):
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, False))["params"]
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize(
    ("num_classes", "expected"),
    [
        # dense 128 -> 8*8*128, two 4x4x128x128 transposed convolutions, an 8x8x128x3 convolution, and biases
        (0, (128 + 1) * 8192 + 2 * (16 * 128 * 128 + 128) + 8 * 8 * 128 * 3 + 3),
        # the first transposed convolution sees one more channel; the map: 10 embeddings of 50, dense 50 -> 8*8
        (
            10,
            (128 + 1) * 8192
            + (16 * 129 * 128 + 128)
            + (16 * 128 * 128 + 128)
            + (8 * 8 * 128 * 3 + 3)
            + 10 * 50
            + (50 + 1) * 64,
        ),
    ],
)
def test_the_generator_has_as_many_parameters_as_by_hand(num_classes, expected):
    generator = Generator(
        32, 3, num_classes, latent_dim=128, width=128, embedding_dim=50, output_kernel_size=8, dtype="float32"
    )
    message = "a change of the architecture makes old checkpoints useless; if it is meant, count anew here"
    assert count(generator, jnp.zeros((1, 128)), jnp.zeros(1, jnp.int32)) == expected, message


@pytest.mark.parametrize(
    ("num_classes", "expected"),
    [
        # 3x3x3x128 and 3x3x128x128 convolutions, dense 8*8*128 -> 1, and biases
        (0, (9 * 3 * 128 + 128) + (9 * 128 * 128 + 128) + (8 * 8 * 128 + 1)),
        # one more channel; the map: 10 embeddings of 50, dense 50 -> 32*32
        (10, (9 * 4 * 128 + 128) + (9 * 128 * 128 + 128) + (8 * 8 * 128 + 1) + 10 * 50 + (50 + 1) * 1024),
    ],
)
def test_the_discriminator_has_as_many_parameters_as_by_hand(num_classes, expected):
    discriminator = Discriminator(32, 3, num_classes, width=128, embedding_dim=50, dropout=0.3, dtype="float32")
    message = "a change of the architecture makes old checkpoints useless; if it is meant, count anew here"
    assert count(discriminator, jnp.zeros((1, 32, 32, 3)), jnp.zeros(1, jnp.int32)) == expected, message


@pytest.mark.parametrize("image_size", [28, 64])
def test_images_of_other_multiples_of_4_have_their_size(image_size):
    generator = Generator(
        image_size, 3, 10, latent_dim=4, width=2, embedding_dim=3, output_kernel_size=8, dtype="float32"
    )
    images = jax.eval_shape(lambda: generator.init_with_output(jax.random.key(0), LATENTS, LABELS, False)[0])
    assert images.shape == (3, image_size, image_size, 3)


@pytest.mark.parametrize("image_size", [2, 10, 30])
def test_a_side_that_doublings_cannot_reach_is_refused(image_size):
    generator = Generator(
        image_size, 3, 10, latent_dim=4, width=2, embedding_dim=3, output_kernel_size=8, dtype="float32"
    )
    with pytest.raises(UsageError) as caught:
        jax.eval_shape(lambda: generator.init(jax.random.key(0), LATENTS, LABELS, False))
    assert str(caught.value) == f"dcgan draws images whose side is a multiple of 4, given image_size {image_size}"


def test_in_bfloat16_images_logits_and_variables_are_float32_and_nearly_the_same():
    half_precision.assert_nearly_the_same(
        lambda dtype: Generator(8, 1, 3, latent_dim=4, width=5, embedding_dim=3, output_kernel_size=8, dtype=dtype),
        LATENTS,
        LABELS,
    )
    half_precision.assert_nearly_the_same(
        lambda dtype: Discriminator(8, 1, 3, width=5, embedding_dim=3, dropout=0.5, dtype=dtype), IMAGES, LABELS
    )
