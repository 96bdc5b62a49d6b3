"""Adversarial losses and their slopes against their formulas in float64, from 0 to logits that overflow exp."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from cgan_jax import parallel
from cgan_jax.annealing import Annealed
from cgan_jax.errors import UsageError
from cgan_jax.losses import adversarial
from cgan_jax.losses.terms import Pass
from cgan_jax.networks.heads import Output
from tests.replicas import on_replicas

LOGITS = np.float32([-1e4, -200.0, -20.0, -3.0, -0.3, 0.0, 0.3, 1.7, 20.0, 200.0, 1e4])
OTHERS = np.float32([1e4, 3.0, -20.0, -3.5, 0.2, 0.0, -0.3, 1.5, 7.0, -1e4, -1e4])


def minus_log_sigmoid(x):
    return np.logaddexp(0.0, -x)


def softplus(x):
    return np.logaddexp(0.0, x)


# name: (the loss of real logits r and fake logits f, the batches read, its slope along each batch read)
DISCRIMINATOR = {
    "bce_real": (lambda r, f: minus_log_sigmoid(r), {"real": lambda r, f: -expit(-r)}),
    "bce_fake": (lambda r, f: softplus(f), {"fake": lambda r, f: expit(f)}),
    "hinge_real": (lambda r, f: np.maximum(0, 1 - r), {"real": lambda r, f: -1.0 * (r < 1)}),
    "hinge_fake": (lambda r, f: np.maximum(0, 1 + f), {"fake": lambda r, f: 1.0 * (f > -1)}),
    "least_squares_real": (lambda r, f: (r - 1) ** 2 / 2, {"real": lambda r, f: r - 1}),
    "least_squares_fake": (lambda r, f: f**2 / 2, {"fake": lambda r, f: f}),
    "wasserstein_real": (lambda r, f: -r, {"real": lambda r, f: -np.ones_like(r)}),
    "wasserstein_fake": (lambda r, f: f, {"fake": lambda r, f: np.ones_like(f)}),
    "relativistic": (
        lambda r, f: minus_log_sigmoid(r - f),
        {"real": lambda r, f: -expit(f - r), "fake": lambda r, f: expit(f - r)},
    ),
}
GENERATOR = {
    "bce": (lambda r, f: minus_log_sigmoid(f), {"fake": lambda r, f: -expit(-f)}),
    "minimax": (lambda r, f: -softplus(f), {"fake": lambda r, f: -expit(f)}),
    "hinge": (lambda r, f: -f, {"fake": lambda r, f: -np.ones_like(f)}),
    "least_squares": (lambda r, f: (f - 1) ** 2 / 2, {"fake": lambda r, f: f - 1}),
    "wasserstein": (lambda r, f: -f, {"fake": lambda r, f: -np.ones_like(f)}),
    "relativistic": (
        lambda r, f: minus_log_sigmoid(f - r),
        {"real": lambda r, f: expit(r - f), "fake": lambda r, f: -expit(r - f)},
    ),
}
TABLES = {"discriminator": (adversarial.DISCRIMINATOR, DISCRIMINATOR), "generator": (adversarial.GENERATOR, GENERATOR)}
CASES = [(player, name) for player, (_, known) in TABLES.items() for name in known]


def evaluate(term, real, fake):
    outputs = {"real": Output(real, {}), "fake": Output(fake, {})}
    outputs = {name: outputs[name] for name in term.reads}
    values, memory = term.value(Pass({}, outputs, None, None, (), None, None))
    assert memory == ()
    return values


@pytest.mark.parametrize("player", TABLES)
def test_every_loss_has_a_formula_here(player):
    table, known = TABLES[player]
    assert set(table) == set(known), "add the formula of a new loss, and its slope, to this file"


@pytest.mark.parametrize(("player", "name"), CASES)
def test_a_loss_is_its_formula_for_every_sample(player, name):
    table, known = TABLES[player]
    values = evaluate(table[name](), jnp.asarray(LOGITS), jnp.asarray(OTHERS))
    expected = known[name][0](LOGITS.astype(np.float64), OTHERS.astype(np.float64))
    assert values.shape == LOGITS.shape and values.dtype == jnp.float32
    # float32 ends at 1e-38; what is smaller may be 0.
    np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-37)


@pytest.mark.parametrize(("player", "name"), CASES)
def test_the_slope_of_a_loss_is_finite_and_right_for_every_sample(player, name):
    table, known = TABLES[player]
    term, slopes = table[name](), known[name][1]
    assert set(term.reads) == set(slopes)
    gradients = jax.grad(lambda r, f: jnp.sum(evaluate(term, r, f)), argnums=(0, 1))(LOGITS, OTHERS)
    for gradient, batch in zip(gradients, ("real", "fake"), strict=True):
        slope = slopes.get(batch, lambda r, f: np.zeros_like(r))
        expected = slope(LOGITS.astype(np.float64), OTHERS.astype(np.float64))
        np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-37)


@pytest.mark.parametrize(("player", "name"), CASES)
def test_logits_that_are_no_vectors_of_one_length_are_refused(player, name):
    term = TABLES[player][0][name]()
    for shapes in [((4, 1), (4, 1)), ((), ()), *([((4,), (3,)), ((4,), (1,))] if len(term.reads) == 2 else [])]:
        with pytest.raises(ValueError, match="logits must be vectors of one length"):
            evaluate(term, *(jnp.zeros(shape) for shape in shapes))


@pytest.mark.parametrize("way", [("alone", 1), ("shard_map", 4), ("pmap", 4)], ids=str)
@pytest.mark.parametrize(
    ("top", "annealed", "k"), [(0.75, 0.0, 6), (0.01, 0.0, 1), (Annealed(1.0, 0.5), 0.5, 6)], ids=str
)
def test_of_the_global_batch_only_the_fakes_that_look_best_count(top, annealed, k, way):
    """Sinha et al. 2020: the mean of the loss over the k largest logits, and no slope of the others."""
    logits = np.float32([0.3, -2.0, 1.5, 0.1, -0.2, 4.0, -1.0, 0.7])
    term = adversarial.GENERATOR["bce"](top)

    def run(logits):
        n = len(logits) // parallel.count()

        def mean(own):
            passed = Pass({}, {"fake": Output(own, {})}, None, None, (), None, jnp.int32(0), jnp.float32(annealed))
            return jnp.mean(term.value(passed)[0])

        own = parallel.varying(jax.lax.dynamic_slice_in_dim(logits, parallel.index() * n, n))
        loss, slope = jax.value_and_grad(mean)(own)
        return parallel.mean(loss), slope / parallel.count()

    losses, slopes = on_replicas(way, run, logits)
    best = np.sort(logits.astype(np.float64))[-k:]
    np.testing.assert_allclose(losses, np.full(way[1], np.mean(minus_log_sigmoid(best))), rtol=1e-6)
    expected = np.where(logits >= best[0], -expit(-logits) / k, 0)
    np.testing.assert_allclose(np.concatenate(slopes), expected, rtol=1e-5)


@pytest.mark.parametrize("top", [0.0, 1.5, Annealed(1.0, 0.0)], ids=str)
def test_a_share_that_keeps_nothing_is_refused(top):
    with pytest.raises(UsageError, match=r"^the share `top` of a loss must be more than 0 and at most 1, given "):
        adversarial.GENERATOR["hinge"](top)
