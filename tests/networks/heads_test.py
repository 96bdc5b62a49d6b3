"""Heads against their formulas in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgan_jax.errors import UsageError
from cgan_jax.networks import heads
from tests import by_hand

FEATURES = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
LABELS = np.array([0, 3, 1, 1, 2, 0], np.int32)


def test_the_unconditional_head_is_one_dense_unit_that_reads_no_labels():
    head = heads.Unconditional()
    params = head.init(jax.random.key(0), FEATURES, LABELS)["params"]
    assert jax.tree.map(jnp.shape, params) == {"Dense_0": {"kernel": (5, 1), "bias": (1,)}}
    params["Dense_0"]["bias"] = jnp.float32([0.25])
    output = head.apply({"params": params}, FEATURES, LABELS)
    np.testing.assert_allclose(output.logits, by_hand.dense(FEATURES, params["Dense_0"])[:, 0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(head.apply({"params": params}, FEATURES, LABELS * 0).logits, output.logits)
    assert output.extras == {}


def test_the_projection_head_adds_the_inner_product_with_the_labels_embedding():
    head = heads.Projection(4)
    params = head.init(jax.random.key(0), FEATURES, LABELS)["params"]
    assert params["Embed_0"]["embedding"].shape == (4, 5)
    params["Dense_0"]["bias"] = jnp.float32([0.25])
    output = head.apply({"params": params}, FEATURES, LABELS)
    products = np.sum(np.asarray(params["Embed_0"]["embedding"], np.float64)[LABELS] * FEATURES, axis=1)
    expected = by_hand.dense(FEATURES, params["Dense_0"])[:, 0] + products
    np.testing.assert_allclose(output.logits, expected, rtol=1e-5, atol=1e-6)  # sums of ten products that cancel


def test_a_spectral_head_divides_its_weights_by_their_norms():
    """For a dense unit the length of its weights; for embeddings the largest singular value, after convergence of u."""
    head = heads.Projection(4, spectral_epsilon=1e-6)
    variables = head.init(jax.random.key(0), FEATURES, LABELS)
    turn = jax.jit(lambda variables: head.apply(variables, FEATURES, LABELS, mutable=["spectral"])[1])
    for _ in range(100):
        variables |= turn(variables)
    kernel, embedding = (
        np.asarray(variables["params"][name][its], np.float64)
        for name, its in (("Dense_0", "kernel"), ("Embed_0", "embedding"))
    )
    embedding /= np.linalg.svd(embedding, compute_uv=False)[0]
    expected = (FEATURES @ kernel)[:, 0] / np.linalg.norm(kernel) + np.sum(embedding[LABELS] * FEATURES, axis=1)
    np.testing.assert_allclose(head.apply(variables, FEATURES, LABELS).logits, expected, rtol=1e-4, atol=1e-5)


def test_the_auxiliary_classifier_gives_a_logit_and_one_for_each_class():
    head = heads.AuxiliaryClassifier(4)
    params = head.init(jax.random.key(0), FEATURES, LABELS)["params"]
    output = head.apply({"params": params}, FEATURES, LABELS)
    np.testing.assert_allclose(output.logits, by_hand.dense(FEATURES, params["Dense_0"])[:, 0], rtol=1e-5, atol=1e-6)
    class_logits = by_hand.dense(FEATURES, params["Dense_1"])
    np.testing.assert_allclose(output.extras["class_logits"], class_logits, rtol=1e-5, atol=1e-6)
    assert class_logits.shape == (6, 4)


def test_the_proxies_are_unit_vectors_of_images_and_of_their_classes():
    head = heads.ClassProxies(4, 3)
    params = head.init(jax.random.key(0), FEATURES, LABELS)["params"]
    output = head.apply({"params": params}, FEATURES, LABELS)
    np.testing.assert_allclose(output.logits, by_hand.dense(FEATURES, params["Dense_0"])[:, 0], rtol=1e-5, atol=1e-6)
    directions = {
        "embeddings": by_hand.dense(FEATURES, params["Dense_1"]),
        "proxies": np.asarray(params["Embed_0"]["embedding"], np.float64)[LABELS],
    }
    for name, vectors in directions.items():
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        np.testing.assert_allclose(output.extras[name], unit, rtol=1e-5, atol=1e-6)


def test_the_discriminative_classifier_gives_two_logits_for_each_class():
    head = heads.DiscriminativeClassifier(4)
    params = head.init(jax.random.key(0), FEATURES, LABELS)["params"]
    output = head.apply({"params": params}, FEATURES, LABELS)
    np.testing.assert_allclose(output.logits, by_hand.dense(FEATURES, params["Dense_0"])[:, 0], rtol=1e-5, atol=1e-6)
    expected = by_hand.dense(FEATURES, params["Dense_1"]).reshape(6, 4, 2)
    np.testing.assert_allclose(output.extras["real_fake_class_logits"], expected, rtol=1e-5, atol=1e-6)


def test_directions_learn_from_their_own_logits_alone_and_lengths_and_features_from_the_others():
    """By hand, with v = s w: d s<h, w> / d v is <h, w> w if w is held, and h - <h, w> w if s and h are held."""
    head = heads.ClassDirections(4)
    params = head.init(jax.random.key(0), FEATURES, LABELS)["params"]
    params["Embed_0"]["embedding"] *= jnp.float32([[0.5], [1.0], [2.0], [3.0]])
    by_logit, by_direction = np.random.default_rng(1).normal(size=(2, 6)).astype(np.float32)

    def total(params, features):
        output = head.apply({"params": params}, features, LABELS)
        weighted = by_logit * output.logits + by_direction * output.extras["direction_logits"]
        return jnp.sum(weighted), output

    slopes, output = jax.grad(total, argnums=(0, 1), has_aux=True)(params, FEATURES)
    vectors = np.asarray(params["Embed_0"]["embedding"], np.float64)[LABELS]
    logits = np.sum(vectors * FEATURES, axis=1)
    for given in (output.logits, output.extras["direction_logits"]):
        np.testing.assert_allclose(given, logits, rtol=1e-5, atol=1e-6)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    along = np.sum(unit * FEATURES, axis=1, keepdims=True) * unit
    by_sample = by_logit[:, None] * along + by_direction[:, None] * (FEATURES - along)
    expected = np.zeros((4, 5))
    np.add.at(expected, LABELS, by_sample)
    np.testing.assert_allclose(slopes[0]["Embed_0"]["embedding"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(slopes[1], by_logit[:, None] * vectors, rtol=1e-5, atol=1e-6)


HEADS = [heads.Unconditional(), *(make(4) for make in heads.OF_CLASSES.values())]


@pytest.mark.parametrize("head", HEADS, ids=lambda head: type(head).__name__)
def test_logits_are_float32_vectors_whatever_the_features_are(head):
    variables = head.init(jax.random.key(0), FEATURES, LABELS)
    features, variables = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), (FEATURES, variables))
    output = head.apply(variables, features, LABELS)
    assert (output.logits.shape, output.logits.dtype) == ((6,), jnp.float32)


def test_a_head_goes_by_its_name_and_without_classes_there_is_but_one():
    assert heads.make("projection", 4, spectral_epsilon=1e-6) == heads.Projection(4, spectral_epsilon=1e-6)
    assert heads.make("class_proxies", 4) == heads.ClassProxies(4)
    assert heads.make("projection", 0) == heads.Unconditional()
    with pytest.raises(UsageError, match=r"^unknown head 'none'; there are: projection, auxiliary_classifier, class_"):
        heads.make("none", 0)
