"""Numbers that move during a run."""

import numpy as np
import pytest

from cgan_jax import annealing
from cgan_jax.annealing import Annealed


def test_a_number_goes_from_its_start_to_its_end_and_one_that_does_not_move_stays_a_float():
    assert [annealing.at(Annealed(2.0, 0.5), annealed) for annealed in (0.0, 0.5, 1.0)] == [2.0, 1.25, 0.5]
    assert type(annealing.at(0.3, np.float32(0.7))) is float


def test_the_way_is_half_a_cosine_that_ends_at_1():
    shares = np.array([0.0, 0.25, 0.5, 0.9, 1.0, 7.0])
    expected = 0.5 * (1 + np.cos(np.pi * np.minimum(shares, 1) + np.pi))
    np.testing.assert_allclose(annealing.half_cosine(shares.astype(np.float32)), expected, rtol=1e-5, atol=1e-7)


def test_a_partial_recipe_says_which_numbers_move():
    config = {"seed": 1, "ema": {"halflife_kimg": 0.0, "start_kimg": 2.0}, "loss": {"a": {"b": {"weight": 3.0}}}}
    to = {"ema": {"halflife_kimg": 5.0}, "loss": {"a": {"b": {"weight": 4.0}}}}
    assert annealing.moving(config, to) == {
        "seed": 1,
        "ema": {"halflife_kimg": Annealed(0.0, 5.0), "start_kimg": 2.0},
        "loss": {"a": {"b": {"weight": Annealed(3.0, 4.0)}}},
    }
    assert annealing.moving(config, {}) == config and config["ema"]["halflife_kimg"] == 0.0


@pytest.mark.parametrize("end", [0.0, 1.0])
def test_the_ends_are_reached(end):
    reached = annealing.at(Annealed(0.3, end), annealing.half_cosine(np.float32(1.0)))
    assert float(reached) == pytest.approx(end, abs=1e-7)
