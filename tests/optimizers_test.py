"""Adam and the learning-rate schedules against their formulas in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgan_jax import optimizers
from cgan_jax.annealing import Annealed
from cgan_jax.errors import UsageError

SECTION = {"name": "adam", "learning_rate": 2e-3, "b1": 0.5, "b2": 0.99, "eps": 1e-8, "schedule": "constant"}


def adam(gradients, rate, b1, b2, eps):
    """Kingma & Ba (2015), algorithm 1: the update after each gradient."""
    m, v = np.zeros_like(gradients[0]), np.zeros_like(gradients[0])
    for t, g in enumerate(gradients, start=1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        yield -rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)


@pytest.mark.parametrize("numbers", [{}, {"b1": 0.0, "b2": 0.9}, {"b1": 0.9, "b2": 0.999, "eps": 0.1}])
def test_adam_is_its_algorithm(numbers):
    section = {**SECTION, **numbers}
    gradients = np.random.default_rng(0).normal(size=(5, 6)) * 10.0 ** np.arange(-3, 3)
    with jax.enable_x64(True):  # float32 would lose four digits in 1 - b2^t
        optimizer = optimizers.make(section, 100)
        state = optimizer.init(jnp.zeros(6))
        expected = adam(gradients, *(section[name] for name in ("learning_rate", "b1", "b2", "eps")))
        for gradient, update in zip(gradients, expected, strict=True):
            updates, state = optimizer.update(jnp.asarray(gradient), state)
            np.testing.assert_allclose(updates, update, rtol=1e-9)


def keras_adam(gradients, rate, b1, b2, eps):
    """Kingma & Ba (2015), end of section 2: one factor corrects both moments; eps is added to v's root."""
    m, v = np.zeros_like(gradients[0]), np.zeros_like(gradients[0])
    for t, g in enumerate(gradients, start=1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        yield -rate * np.sqrt(1 - b2**t) / (1 - b1**t) * m / (np.sqrt(v) + eps)


@pytest.mark.parametrize("numbers", [{}, {"b1": 0.0, "b2": 0.9}, {"b1": 0.9, "b2": 0.999, "eps": 0.1}])
def test_keras_adam_is_the_reordered_algorithm(numbers):
    section = {**SECTION, "name": "keras_adam", **numbers}
    gradients = np.random.default_rng(0).normal(size=(5, 6)) * 10.0 ** np.arange(-3, 3)
    optimizer = optimizers.make(section, 100)
    state = optimizer.init(jnp.zeros(6))
    expected = keras_adam(gradients, *(section[name] for name in ("learning_rate", "b1", "b2", "eps")))
    for gradient, update in zip(gradients, expected, strict=True):
        updates, state = optimizer.update(jnp.float32(gradient), state)
        np.testing.assert_allclose(updates, update, rtol=2e-4)  # 1 - b2^t in float32


def rates(schedule, total, steps):
    """The learning rate of each step: with b1 = b2 = 0 Adam's update is the rate times the gradient's sign."""
    optimizer = optimizers.make({**SECTION, "schedule": schedule, "b1": 0.0, "b2": 0.0, "eps": 0.0}, total)
    state, found = optimizer.init(jnp.zeros(1)), []
    for _ in range(steps):
        updates, state = optimizer.update(jnp.ones(1), state)
        found.append(-float(updates[0]))
    return found


def test_a_constant_rate_stays():
    np.testing.assert_allclose(rates("constant", 4, 6), [2e-3] * 6, rtol=1e-6)


def test_a_linear_rate_falls_evenly_to_0_and_stays_there():
    np.testing.assert_allclose(rates("linear", 4, 6), 2e-3 * np.array([1, 0.75, 0.5, 0.25, 0, 0]), rtol=1e-6)


def test_a_cosine_rate_falls_to_0_and_stays_there():
    expected = 2e-3 * (1 + np.cos(np.pi * np.minimum(np.arange(6), 4) / 4)) / 2
    np.testing.assert_allclose(rates("cosine", 4, 6), expected, rtol=1e-6, atol=1e-9)  # float32's cos(pi) + 1


def test_a_rate_follows_the_minutes_where_they_are_further_than_the_updates():
    optimizer = optimizers.make({**SECTION, "schedule": "linear", "b1": 0.0, "b2": 0.0, "eps": 0.0}, 10)
    state, found = optimizer.init(jnp.zeros(1)), []
    for time_share in (0.0, 0.05, 0.6, 0.6, 1.0):
        updates, state = optimizer.update(jnp.ones(1), state, time_share=time_share)
        found.append(-float(updates[0]))
    np.testing.assert_allclose(found, 2e-3 * np.array([1, 0.9, 0.4, 0.4, 0]), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["adam", "keras_adam"])
def test_rate_and_b2_may_be_annealed(name):
    """Each update follows from the moments so far and the annealed numbers of that update."""
    section = {**SECTION, "name": name, "b1": 0.0, "learning_rate": Annealed(2e-3, 1e-3), "b2": Annealed(0.9, 0.99)}
    optimizer = optimizers.make(section, 100)
    state, v = optimizer.init(jnp.zeros(3)), np.zeros(3)
    for t, annealed in enumerate((0.0, 0.3, 1.0), start=1):
        g = np.random.default_rng(t).normal(size=3)
        rate, b2 = 2e-3 - 1e-3 * annealed, 0.9 + 0.09 * annealed
        v = b2 * v + (1 - b2) * g**2
        updates, state = optimizer.update(jnp.float32(g), state, annealed=annealed)
        np.testing.assert_allclose(updates, -rate * g / np.sqrt(v / (1 - b2**t)), rtol=1e-4)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_a_run_of_no_updates_has_a_schedule(schedule):
    assert np.isfinite(rates(schedule, 0, 2)).all()


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("name", "unknown optimizer 'x'; there are: adam, keras_adam"),
        ("schedule", "unknown learning rate schedule 'x'; there are: constant, linear, cosine"),
    ],
)
def test_an_unknown_name_is_one_line_that_lists_what_there_is(field, message):
    with pytest.raises(UsageError) as caught:
        optimizers.make({**SECTION, field: "x"}, 10)
    assert str(caught.value) == message
