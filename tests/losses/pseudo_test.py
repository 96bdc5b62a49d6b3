"""Adaptive pseudo augmentation: which images count as real, and how many, by hand and on any number of replicas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from cgan_jax import parallel
from cgan_jax.errors import UsageError
from cgan_jax.losses import pseudo
from cgan_jax.losses.terms import Pass, Weighted, objective
from cgan_jax.networks.heads import Output
from tests.replicas import on_replicas

N = 2000
REAL = np.random.default_rng(0).uniform(0.5, 4.0, N).astype(np.float32)
FAKE = -REAL[::-1].copy()
LOSSES = {"bce_real_pseudo": lambda x: np.logaddexp(0.0, -x), "hinge_real_pseudo": lambda x: np.maximum(0, 1 - x)}


def entry(probability):
    return {"probability": jnp.float32(probability), "signs": jnp.float32(0.0), "batches": jnp.int32(0)}


def evaluated(term, memory, way=("alone", 1)):
    def run(real, fake, memory):
        n = len(real) // parallel.count()
        own = [jax.lax.dynamic_slice_in_dim(x, parallel.index() * n, n) for x in (real, fake)]
        outputs = {name: Output(x, {}) for name, x in zip(("real", "fake"), own, strict=True)}
        values, memory = term.value(Pass({}, outputs, None, None, memory, jax.random.key(0), jnp.int32(0)))
        return values, parallel.mean(parallel.varying(memory))

    values, memory = on_replicas(way, run, REAL, FAKE, memory)
    return np.concatenate(values), {name: x[0] for name, x in memory.items()}


@pytest.mark.parametrize("name", pseudo.DISCRIMINATOR)
def test_a_share_of_the_generated_images_counts_as_real(name):
    term, loss = pseudo.DISCRIMINATOR[name](), LOSSES[name]
    assert set(term.reads) == {"real", "fake"} and term.boundary == 0.0
    values, memory = evaluated(term, entry(0.3))
    of_real, of_fake = (loss(x.astype(np.float64)) for x in (REAL, FAKE))
    deceived = np.isclose(values, of_fake, rtol=1e-5)
    np.testing.assert_allclose(values, np.where(deceived, of_fake, of_real), rtol=1e-5, atol=1e-7)
    assert scipy.stats.binomtest(int(deceived.sum()), N, 0.3).pvalue > 0.01
    np.testing.assert_allclose(memory["signs"], 1 - 2 * deceived.mean(), rtol=1e-5)
    values, _ = evaluated(term, term.init_memory)
    np.testing.assert_allclose(values, of_real, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("way", [("shard_map", 4), ("pmap", 4)], ids=str)
def test_the_same_images_deceive_on_any_number_of_replicas(way):
    term = pseudo.DISCRIMINATOR["bce_real_pseudo"]()
    (values, memory), (expected, expected_memory) = (evaluated(term, entry(0.3), w) for w in (way, ("alone", 1)))
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    np.testing.assert_allclose(memory["signs"], expected_memory["signs"], rtol=1e-5)


def test_the_probability_moves_every_four_batches_by_the_mean_sign():
    """25 images in 2.5 kimg are 0.01, and four batches 0.04. Here all logits have one sign."""
    term = pseudo.DISCRIMINATOR["hinge_real_pseudo"](target=0.6, target_kimg=2.5)

    @jax.jit
    def after(logits, memory):
        outputs = dict.fromkeys(("real", "fake"), Output(logits, {}))
        passed = Pass({}, outputs, None, None, memory, jax.random.key(0), jnp.int32(0))
        return objective((Weighted("pseudo", 1.0, term),), passed)[1:]

    memory, seen = {"pseudo": term.init_memory}, []
    for sign in [1] * 8 + [-1] * 12:
        memory, scalars = after(jnp.full(25, 2.0 * sign), memory)
        assert set(scalars) == {"pseudo", "pseudo_probability"}
        seen.append(float(scalars["pseudo_probability"]))
    np.testing.assert_allclose(seen, [0.0] * 4 + [0.04] * 4 + [0.08] * 4 + [0.04] * 4 + [0.0] * 4, atol=1e-6)


@pytest.mark.parametrize("given", [(0.0, 1.0), (1.5, 1.0), (0.6, 0.0)], ids=str)
def test_numbers_that_never_adapt_are_refused(given):
    with pytest.raises(UsageError, match=r"^APA needs a target in \(0, 1\] and target_kimg above 0, given "):
        pseudo.DISCRIMINATOR["bce_real_pseudo"](*given)
