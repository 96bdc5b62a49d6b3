"""The state before the first step."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgan_jax import build, train_state
from cgan_jax.losses import terms
from cgan_jax.networks import heads

SPEC = build.ImageSpec(image_size=8, channels=1, num_classes=10)


@pytest.fixture
def built(recipe):
    return build.build(recipe, SPEC)


class Generator(nn.Module):
    """The smallest generator with statistics, so that making a whole state takes no time."""

    latent_dim: int = 2

    @nn.compact
    def __call__(self, latents, labels, train):
        self.variable("running", "mean", jnp.zeros, (3,))
        return nn.Dense(64)(latents).reshape(-1, 8, 8, 1)


class Discriminator(nn.Module):
    @nn.compact
    def __call__(self, images, labels, train):
        return heads.Output(nn.Dense(1)(images.reshape(-1, 64))[:, 0], {})


@pytest.fixture
def small(built):
    return built._replace(generator=Generator(), discriminator=Discriminator())


@pytest.fixture
def created(small):
    return train_state.create(small, SPEC, jax.random.key(0))


def buffers(tree):
    arrays = [jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in tree]
    return [array.unsafe_buffer_pointer() for array in arrays]


def test_no_buffer_is_held_twice_so_that_all_can_be_donated(created):
    leaves = jax.tree.leaves(created)
    assert len(leaves) > 20 and all(isinstance(leaf, jax.Array) for leaf in leaves)
    assert len(set(buffers(leaves))) == len(leaves)


def test_the_shapes_are_known_without_computing_anything(small, created):
    shapes = jax.eval_shape(lambda: train_state.create(small, SPEC, jax.random.key(0)))
    assert jax.tree.structure(shapes) == jax.tree.structure(created)
    for shape, leaf in zip(jax.tree.leaves(shapes), jax.tree.leaves(created), strict=True):
        assert (shape.shape, shape.dtype) == (leaf.shape, leaf.dtype)


def test_the_average_starts_as_the_generator(created):
    assert created.step == 0 and created.step.dtype == jnp.int32
    assert jax.tree.structure(created.ema_params) == jax.tree.structure(created.g_params)
    jax.tree.map(np.testing.assert_array_equal, created.ema_params, created.g_params)
    jax.tree.map(np.testing.assert_array_equal, created.ema_stats, created.g_stats)
    assert jax.tree.map(jnp.shape, created.average["running"]) == {"mean": (3,)}
    assert set(created.average) == {"params", "running"} and created.average["params"] is created.ema_params


def test_the_optimizers_start_with_nothing_seen(created):
    for state in (created.g_opt_state, created.d_opt_state):
        assert all(not np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(state))


def test_seeds_and_players_start_differently(small, created):
    other = train_state.create(small, SPEC, jax.random.key(1))
    for ours, theirs in ((created.g_params, other.g_params), (created.d_params, other.d_params)):
        assert np.all(ours["Dense_0"]["kernel"] != theirs["Dense_0"]["kernel"])
    assert jax.random.key_data(created.key).tolist() != jax.random.key_data(other.key).tolist()


def test_the_parameters_are_as_many_as_by_hand(built):
    state = jax.eval_shape(lambda: train_state.create(built, SPEC, jax.random.key(0)))

    def count(tree):
        return sum(leaf.size for leaf in jax.tree.leaves(tree))

    # The small recipe: 8x8x1, 10 classes, latents of 4, width 4, embeddings of 3.
    label_map = {side: 10 * 3 + (3 + 1) * side * side for side in (2, 8)}
    g = (4 + 1) * 16 + label_map[2] + (16 * 5 * 4 + 4) + (16 * 4 * 4 + 4) + (4 * 4 * 4 * 1 + 1)
    d = label_map[8] + (9 * 2 * 4 + 4) + (9 * 4 * 4 + 4) + (2 * 2 * 4 + 1)
    assert (count(state.g_params), count(state.d_params), count(state.ema_params)) == (g, d, g)


def test_every_term_has_its_memory_under_its_update(small):
    def remembering(start):
        return terms.Term(lambda passed: None, init_memory=jnp.float32(start))

    built = small._replace(
        d_updates={
            "first": (terms.Weighted("a", 1.0, remembering(1)), terms.Weighted("b", 1.0, remembering(2))),
            "second": (terms.Weighted("a", 1.0, remembering(3)),),
        },
        g_terms=(terms.Weighted("a", 1.0, remembering(4)),),
    )
    memory = train_state.create(built, SPEC, jax.random.key(0)).memory
    assert jax.tree.map(float, memory) == {
        "d": {"first": {"a": 1.0, "b": 2.0}, "second": {"a": 3.0}},
        "g": {"a": 4.0},
    }
