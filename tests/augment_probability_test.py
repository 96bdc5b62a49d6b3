"""The probability of augmentation: fixed, or following the discriminator; the same on any devices and after a stop."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgan_jax import augment_probability, train
from cgan_jax.annealing import Annealed
from cgan_jax.build import build
from cgan_jax.errors import UsageError
from tests.resume_test import final_bits
from tests.train_step_test import SPEC, run


def section(**given):
    return {"policy": "cutout", "probability": 0.0, "target": 0.6, "target_kimg": 2.0, **given}


def test_a_probability_that_does_not_adapt_remembers_nothing():
    number = augment_probability.from_recipe(section(probability=0.3, target=0.0, target_kimg=0.0), 16)
    assert number.init_memory == {} and number.at({}, 0.5) == 0.3
    assert number.after({"d": 1}, {"d_accuracy_real": 1.0}) == ({"d": 1}, {})
    assert augment_probability.fixed(Annealed(0.2, 0.6)).at({}, 0.5) == pytest.approx(0.4)


def test_it_moves_by_the_sign_of_the_mean_sign_minus_the_target_every_four_batches():
    """Karras et al. 2020, section 3.1, by hand: 25 images in 2.5 kimg are 0.01."""
    number = augment_probability.from_recipe(section(probability=0.02, target_kimg=2.5), 25)
    accuracies = [0.9, 0.9, 0.9, 0.9] + [1.0, 1.0, 0.5, 0.6] + [0.7] * 4 + [0.0] * 4 + [0.5] * 4
    memory, seen = {"d": "other", **number.init_memory}, []
    after = jax.jit(lambda accuracy, entry: number.after({"augment": entry}, {"d_accuracy_real": accuracy}))
    for accuracy in accuracies:
        new, told = after(accuracy, memory["augment"])
        memory |= new
        assert float(told["augment_probability"]) == float(number.at(memory, 0.0))
        seen.append(float(number.at(memory, 0.0)))
    # Mean signs: 0.8, 0.55, 0.4, -1, 0. It never leaves [0, 1].
    expected = [0.02] * 3 + [0.06] * 4 + [0.02] * 4 + [0.0] * 9
    np.testing.assert_allclose(seen, expected, atol=1e-6)


def test_it_never_exceeds_1_and_ignores_updates_without_real_images():
    number = augment_probability.from_recipe(section(probability=0.9), 1000)
    memory = number.init_memory
    for _ in range(4):
        memory, _ = number.after(memory, {"d_accuracy_real": jnp.float32(1.0)})
        memory, told = number.after(memory, {"d_loss": jnp.float32(1.0)})
        assert told == {}
    assert float(number.at(memory, 0.0)) == 1.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"target_kimg": 0.0}, r"augment.target=0.6 and augment.target_kimg=0.0 must both be 0 or both not"),
        ({"target": 0.0}, r"augment.target=0.0 and augment.target_kimg=2.0 must both be 0 or both not"),
        ({"probability": Annealed(0.0, 0.5)}, "augment.probability is in anneal.to and has an augment.target"),
        ({"policy": " "}, "augment.target needs an augment.policy"),
        (
            {"policy": " ", "target": 0.0, "target_kimg": 0.0, "probability": Annealed(0.0, 0.5)},
            "anneal.to moves augment.probability, which needs an augment.policy",
        ),
    ],
    ids=str,
)
def test_contradictions_are_refused(given, message):
    with pytest.raises(UsageError, match=f"^{message}"):
        augment_probability.from_recipe(section(**given), 16)


@pytest.mark.parametrize(
    "updates", [{"both": {"relativistic": {"weight": 1.0}}}, {"fake": {"bce_fake": {"weight": 1.0}}}], ids=str
)
def test_a_loss_that_does_not_judge_real_images_is_refused(recipe, updates):
    recipe["augment"] = section()
    recipe["loss"]["d_updates"] = updates
    with pytest.raises(UsageError, match=r"^augment.target needs a loss with a decision boundary on real images"):
        build(recipe, SPEC)


def test_one_and_eight_devices_move_alike(recipe):
    """A target of 0.1 is near the mean sign of an untrained discriminator, so its batches decide both ways."""
    recipe["augment"] = section(probability=0.5, target=0.1, target_kimg=1.0)
    algorithm = build(recipe, SPEC)
    entries = [run(algorithm, devices, steps=6)[0].memory["augment"] for devices in (1, 8)]
    assert entries[0]["probability"] != 0.5 and entries[0]["batches"] == 2
    jax.tree.map(np.testing.assert_array_equal, *entries)


@pytest.mark.slow  # three runs, each of which compiles
def test_a_resumed_run_goes_on_with_its_probability(bare, recipe, tmp_path):
    """Stopped after six steps, amid four batches, it ends with the bits of its undisturbed twin."""
    recipe["augment"] = section(probability=0.5, target=0.1, target_kimg=1.0)
    short = copy.deepcopy(recipe)
    short["train"]["total_kimg"] = 0.096
    for run_of, name in ((recipe, "twin"), (short, "stopped"), (recipe, "stopped")):
        train.train_and_evaluate(run_of, tmp_path / name)
    twin, stopped = (final_bits(tmp_path / name, recipe) for name in ("twin", "stopped"))
    assert stopped == twin
    assert np.frombuffer(twin[".memory['augment']['probability']"], np.float32) != 0.5
