"""Ways between latents and between classes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgan_jax import train_state
from cgan_jax.data.batches import to_uint8
from cgan_jax.errors import UsageError
from cgan_jax.networks.architectures.dcgan import Generator
from cgan_jax.sampling import interpolation, sampling
from tests.conftest import small_recipe
from tests.random_run import write_random_run


def test_a_quarter_circle_is_gone_at_an_even_pace():
    first, second = np.float32([[2.0, 0.0]]), np.float32([[0.0, 2.0]])
    for weight in (0.0, 0.25, 0.5, 1.0):
        angle = weight * np.pi / 2
        expected = [[2 * np.cos(angle), 2 * np.sin(angle)]]
        np.testing.assert_allclose(interpolation.between(first, second, weight), expected, atol=1e-6)


def test_the_same_latents_stay_and_lengths_go_from_one_to_the_other():
    latents = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    np.testing.assert_allclose(interpolation.between(latents, latents, 0.3), latents, rtol=1e-6)
    np.testing.assert_allclose(interpolation.between(latents, 2 * latents, 0.5), 1.5 * latents, rtol=1e-5)


@pytest.fixture(scope="module")
def generator():
    return Generator(8, 1, 3, latent_dim=4, width=4, embedding_dim=3, output_kernel_size=4, dtype="float32")


@pytest.fixture(scope="module")
def variables(generator):
    shapes = jax.eval_shape(lambda: train_state.init_generator(generator, jax.random.key(0)))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) / 3, jnp.float32), shapes)


def test_between_two_classes_the_embedding_is_mixed(generator, variables):
    latents = np.random.default_rng(1).normal(size=(2, 4)).astype(np.float32)
    ends = [interpolation.End(latents, np.int32([label, label])) for label in (0, 2)]
    draw = interpolation.make_drawer(generator, mixed=True)
    for weight in (0.0, 0.3, 1.0):
        embeddings = np.array(variables["params"]["LabelMap_0"]["Embed_0"]["embedding"])
        embeddings[1] = (1 - weight) * embeddings[0] + weight * embeddings[2]
        mixed = jax.tree.map(lambda x: x, variables)
        mixed["params"]["LabelMap_0"]["Embed_0"]["embedding"] = embeddings
        expected = to_uint8(generator.apply(mixed, latents, np.int32([1, 1]), train=False))
        images = np.asarray(draw(variables, *ends, np.float32(weight)))
        assert np.abs(images.astype(int) - np.asarray(expected)).max() <= 1 and images.std() > 5


class OneHot(nn.Module):
    """A generator into which labels enter without a layer of their own."""

    @nn.compact
    def __call__(self, latents, labels, train):
        return nn.Dense(4)(jnp.concatenate([latents, jax.nn.one_hot(labels, 3)], axis=-1)).reshape(-1, 2, 2, 1)


def test_classes_without_a_layer_of_their_own_are_refused():
    end = interpolation.End(np.zeros((1, 2), np.float32), np.int32([0]))
    variables = OneHot().init(jax.random.key(0), *end, train=False)
    with pytest.raises(UsageError, match="cannot be interpolated: it has no layer of labels alone"):
        interpolation.make_drawer(OneHot(), mixed=True)(variables, end, end, np.float32(0.5))


def test_a_way_begins_and_ends_with_the_images_of_its_ends(tmp_path):
    sampler = sampling.Sampler(write_random_run(tmp_path / "run", small_recipe()))
    labels, indices = np.int32([3, 3, 5]), np.int32([0, 1, 0])
    way = list(interpolation.frames(sampler, (7, 8), (labels, labels), indices, 3))
    assert len(way) == 3
    # The latents of a class belong to the seed, so that both ends are images of `cgan sample`.
    for frame, seed in ((way[0], 7), (way[2], 8)):
        expected = sampling.gathered(sampler.images(seed, labels, indices))
        assert np.abs(frame.astype(int) - expected).max() <= 1
    assert np.abs(way[1].astype(int) - way[0]).max() > 1
