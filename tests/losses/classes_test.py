"""Losses on classes against their formulas in NumPy, and on any number of replicas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgan_jax import parallel
from cgan_jax.data.batches import Batch
from cgan_jax.errors import UsageError
from cgan_jax.losses import classes, patches
from cgan_jax.losses.terms import Pass
from cgan_jax.networks.heads import Output
from tests.replicas import on_replicas

N, CLASSES = 8, 3
RNG = np.random.default_rng(0)
LABELS = np.array([0, 2, 1, 1, 0, 2, 2, 0], np.int32)
CLASS_LOGITS = (3 * RNG.normal(size=(N, CLASSES))).astype(np.float32)


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


# In 3 dimensions some images are on the right and some on the wrong side of both margins.
EMBEDDINGS = unit(RNG.normal(size=(N, 3)))
PROXIES = unit(EMBEDDINGS + 0.2 * RNG.normal(size=(N, 3)))


def data_to_data(margin, temperature):
    """Image by image, as the paper writes it."""
    e, p, losses = EMBEDDINGS.astype(np.float64), PROXIES.astype(np.float64), []
    for i in range(N):
        positive = np.exp(min(0, e[i] @ p[i] - margin) / temperature)
        negatives = [
            np.exp(max(0, e[i] @ e[j] - (1 - margin)) / temperature) for j in range(N) if LABELS[j] != LABELS[i]
        ]
        losses.append(-np.log(positive / (positive + sum(negatives))))
    return np.array(losses)


def value(term, name, extras):
    output = Output(jnp.zeros(N), {what: jnp.asarray(x) for what, x in extras.items()})
    passed = Pass({name: Batch(None, jnp.asarray(LABELS))}, {name: output}, None, None, (), None, jnp.int32(0))
    assert term.reads == (name,)
    values, memory = term.value(passed)
    assert memory == ()
    return values


@pytest.mark.parametrize(
    ("table", "term", "name"),
    [
        ("DISCRIMINATOR", "class_real", "real"),
        ("DISCRIMINATOR", "class_fake", "fake"),
        ("GENERATOR", "class_fake", "fake"),
    ],
)
def test_the_class_losses_are_cross_entropies(table, term, name):
    shares = np.exp(CLASS_LOGITS.astype(np.float64))
    shares /= shares.sum(axis=1, keepdims=True)
    values = value(getattr(classes, table)[term](), name, {"class_logits": CLASS_LOGITS})
    np.testing.assert_allclose(values, -np.log(shares[np.arange(N), LABELS]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("margin", "temperature"), [(0.98, 0.5), (0.9, 0.25), (0.5, 1.0)])
@pytest.mark.parametrize(
    ("table", "term", "name"),
    [("DISCRIMINATOR", "data_to_data_real", "real"), ("GENERATOR", "data_to_data_fake", "fake")],
)
def test_the_data_to_data_loss_is_its_formula(table, term, name, margin, temperature):
    term = getattr(classes, table)[term](margin, temperature)
    values = value(term, name, {"embeddings": EMBEDDINGS, "proxies": PROXIES})
    np.testing.assert_allclose(values, data_to_data(margin, temperature), rtol=1e-5)


def test_both_margins_are_on_both_sides_in_these_tests():
    positive, negative = np.sum(EMBEDDINGS * PROXIES, axis=1), EMBEDDINGS @ EMBEDDINGS.T
    assert 0 < np.sum(positive > 0.98) < N
    assert 0 < np.sum(negative > 0.02) < N * N


def test_a_batch_of_one_class_has_no_negatives_and_a_finite_slope():
    labels = np.zeros(N, np.int32)

    def total(embeddings):
        return jnp.sum(classes.data_to_data(embeddings, PROXIES, labels, 0.98, 0.5))

    loss, slope = jax.value_and_grad(total)(EMBEDDINGS)
    np.testing.assert_allclose(loss, 0.0, atol=1e-5)
    assert np.all(np.isfinite(slope))


@pytest.mark.parametrize("way", [("shard_map", 4), ("pmap", 4)], ids=str)
def test_the_negatives_are_those_of_the_global_batch_and_so_are_the_gradients(way):
    def mean_loss(scales, embeddings, proxies, labels):
        return jnp.mean(classes.data_to_data(embeddings * scales[None], proxies, labels, 0.9, 0.5))

    def run(scales):
        n = N // parallel.count()
        own = [
            jax.lax.dynamic_slice_in_dim(x, parallel.index() * n, n)
            for x in map(jnp.asarray, (EMBEDDINGS, PROXIES, LABELS))
        ]
        return parallel.mean(jax.value_and_grad(mean_loss)(parallel.varying(scales), *own))

    scales = np.float32([1.0, 0.8, 1.1])
    loss, gradient = on_replicas(way, run, scales)
    expected_loss, expected = jax.value_and_grad(mean_loss)(scales, EMBEDDINGS, PROXIES, LABELS)
    np.testing.assert_allclose(loss, [expected_loss] * 4, rtol=1e-5)
    np.testing.assert_allclose(gradient, [expected] * 4, rtol=1e-4, atol=1e-6)


def contrastive(temperature):
    """Image by image, as the paper writes it."""
    e, p, losses = EMBEDDINGS.astype(np.float64), PROXIES.astype(np.float64), []
    for i in range(N):
        others = {j: np.exp(e[i] @ e[j] / temperature) for j in range(N) if j != i}
        alike = np.exp(e[i] @ p[i] / temperature) + sum(x for j, x in others.items() if LABELS[j] == LABELS[i])
        losses.append(-np.log(alike / (np.exp(e[i] @ p[i] / temperature) + sum(others.values()))))
    return np.array(losses)


@pytest.mark.parametrize("way", [("alone", 1), ("shard_map", 4), ("pmap", 4)], ids=str)
@pytest.mark.parametrize(
    ("table", "term", "name"),
    [("DISCRIMINATOR", "contrastive_real", "real"), ("GENERATOR", "contrastive_fake", "fake")],
)
def test_the_contrastive_loss_is_its_formula_over_the_global_batch(table, term, name, way):
    term = getattr(classes, table)[term](0.5)
    assert term.reads == (name,)

    def run(embeddings, proxies, labels):
        n = N // parallel.count()
        own = [jax.lax.dynamic_slice_in_dim(x, parallel.index() * n, n) for x in (embeddings, proxies, labels)]
        output = Output(jnp.zeros(n), {"embeddings": own[0], "proxies": own[1]})
        passed = Pass({name: Batch(None, own[2])}, {name: output}, None, None, (), None, jnp.int32(0))
        return term.value(passed)[0]

    values = on_replicas(way, run, EMBEDDINGS, PROXIES, LABELS)
    np.testing.assert_allclose(np.concatenate(values), contrastive(0.5), rtol=1e-5)


@pytest.mark.parametrize(
    ("table", "term", "name", "sign"),
    [
        ("DISCRIMINATOR", "real_class_real", "real", {0: -1}),
        ("DISCRIMINATOR", "fake_class_fake", "fake", {1: -1}),
        ("GENERATOR", "real_class_fake", "fake", {0: -1, 1: 1}),
    ],
)
def test_the_discriminative_losses_are_cross_entropies_over_twice_the_classes(table, term, name, sign):
    logits = (3 * np.random.default_rng(1).normal(size=(N, CLASSES, 2))).astype(np.float32)
    shares = np.exp(logits.astype(np.float64))
    shares /= shares.sum(axis=(1, 2), keepdims=True)
    own = np.log(shares[np.arange(N), LABELS])
    values = value(getattr(classes, table)[term](), name, {"real_fake_class_logits": logits})
    np.testing.assert_allclose(values, sum(s * own[:, which] for which, s in sign.items()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "sign"), [("real", -1), ("fake", 1)])
def test_directions_are_led_apart_without_a_margin(name, sign):
    logits = CLASS_LOGITS[:, 0]
    values = value(classes.DISCRIMINATOR[f"direction_{name}"](), name, {"direction_logits": logits})
    np.testing.assert_array_equal(values, sign * logits)


def test_a_head_without_the_extra_is_an_error_of_one_line():
    with pytest.raises(UsageError) as caught:
        value(classes.DISCRIMINATOR["class_real"](), "real", {"embeddings": EMBEDDINGS})
    assert str(caught.value) == "this loss needs a head that computes class_logits; this one computes embeddings"


@pytest.mark.parametrize("name", [*classes.DISCRIMINATOR, *classes.GENERATOR, *patches.DISCRIMINATOR])
def test_every_term_that_reads_an_extra_says_which_it_needs(name):
    term = {**classes.GENERATOR, **classes.DISCRIMINATOR, **patches.DISCRIMINATOR}[name]()
    with pytest.raises(UsageError, match=r"this loss needs a head that computes .*; this one computes no extras"):
        value(term, term.reads[0], {})
