"""The guards, on log lines made by hand and in runs that are made to fail."""

import json

import jax
import numpy as np
import pytest

from cgan_jax import train, train_state
from cgan_jax.build import ImageSpec, build
from cgan_jax.errors import GuardError
from cgan_jax.parallel import make_mesh, replicated
from cgan_jax.run import recovery
from cgan_jax.run.checkpoint import Checkpoints
from cgan_jax.run.workdir import read_metrics
from cgan_jax.train import train_and_evaluate
from tests.run.checkpoint_test import bits

SPEC = ImageSpec(image_size=8, channels=1, num_classes=10)


def lines_of(accuracies):
    """Log lines, one per 10 steps and 1 kimg, from pairs (accuracy on real images, on generated images)."""
    return [
        {"step": 10 * n, "kimg": float(n), "train/d_accuracy_real": real, "train/d_accuracy_fake": fake}
        for n, (real, fake) in enumerate(accuracies, 1)
    ]


PERFECT, FINE = (1.0, 0.995), (0.9, 0.8)


def test_a_discriminator_that_is_perfect_for_long_raises():
    lines = lines_of([FINE, FINE, PERFECT, PERFECT, PERFECT])
    with pytest.raises(GuardError, match=r"right on at least 99% .* from 2.0 to 5.0 kimg") as raised:
        recovery.check_discriminator(lines, 3.0, since=0)
    assert raised.value.good_until == 20
    recovery.check_discriminator(lines, 3.1, since=0)
    recovery.check_discriminator(lines, 0.0, since=0)  # no limit
    recovery.check_discriminator(lines, 3.0, since=30)  # After a rollback to step 30 it must last as long again.


@pytest.mark.parametrize("last", [FINE, (1.0, 0.98), (0.98, 1.0)])
def test_a_discriminator_that_errs_again_does_not_raise(last):
    recovery.check_discriminator(lines_of([PERFECT] * 5 + [last]), 3.0, since=0)
    recovery.check_discriminator(lines_of([PERFECT] * 2 + [last] + [PERFECT] * 2), 3.0, since=0)


def test_a_run_without_accuracies_or_lines_does_not_raise():
    recovery.check_discriminator([], 3.0, since=0)
    recovery.check_discriminator([{"step": 10, "kimg": 9.0}], 3.0, since=0)


def evaluated(name, values):
    return [{"step": 100 * n, name: value} for n, value in enumerate(values, 1)]


@pytest.mark.parametrize(
    ("name", "values", "collapses"),
    [
        ("eval/ms_ssim", [0.8, 0.4, 0.5, 0.95], True),  # from 0.6 to 0.05
        ("eval/ms_ssim", [0.8, 0.4, 0.5, 0.93], False),  # to 0.07
        ("eval/ms_ssim", [0.999, 0.998, 0.9999], False),  # there never was any diversity
        ("eval/ms_ssim", [0.999], False),
        ("eval/class_accuracy5k", [0.1, 0.55, 0.5, 0.14], True),  # from 0.45 above chance to 0.04
        ("eval/class_accuracy5k", [0.1, 0.55, 0.5, 0.15], False),
        ("eval/class_accuracy5k", [0.11, 0.19, 0.1], False),  # the classes were never learned
        ("eval/class_accuracy5k", [0.3, 0.05], True),  # below chance
        ("eval/class_accuracy5k/cat", [1.0, 0.0], False),  # one class of many
        ("eval/pixel_mse", [1.0, 0.0], False),
    ],
)
def test_an_evaluation_far_below_the_best_is_a_collapse(name, values, collapses):
    lines = evaluated(name, values)
    if not collapses:
        return recovery.check_evaluations(lines, 0.1, num_classes=10)
    with pytest.raises(GuardError, match=r"^collapse: .*less than guard\.collapse=0\.1") as raised:
        recovery.check_evaluations(lines, 0.1, num_classes=10)
    assert raised.value.good_until == 100 * (len(values) - 1)
    recovery.check_evaluations(lines, 0.0, num_classes=10)
    recovery.check_evaluations([*lines, {"step": 999, "eval/fid": 1.0}], 0.1, num_classes=10)  # no watched number


def test_the_last_step_that_no_guard_can_reject():
    section = {"action": "rollback", "d_perfect_kimg": 3.0, "collapse": 0.1}
    lines, evaluations = lines_of([FINE, FINE, PERFECT, PERFECT]), evaluated("eval/ms_ssim", [0.5])
    assert recovery.good_until(section, lines, [], 0) == 20
    assert recovery.good_until(section, lines_of([FINE] * 4), evaluations, 0) == 40
    assert recovery.good_until(section, lines_of([FINE] * 40), evaluations, 0) == 100
    assert recovery.good_until({**section, "d_perfect_kimg": 0.0}, lines, evaluations, 0) == 100
    assert recovery.good_until({**section, "d_perfect_kimg": 0.0, "collapse": 0.0}, lines, evaluations, 0) is None
    assert recovery.good_until({**section, "action": "raise"}, lines, evaluations, 0) is None
    assert recovery.good_until(section, [], [], 0) is None


def test_only_a_checkpoint_saved_before_a_rollback_needs_a_new_key():
    assert recovery.folds([], 5) == 0
    back = [{"to": 8}, {"to": 4}]
    assert [recovery.folds(back, step) for step in (0, 4, 5, 8)] == [2, 2, 0, 0]


def poisoned(monkeypatch, keys):
    """Makes the loss of step 7 NaN in runs whose key is one of `keys`, or in all runs if `keys` is None."""
    real_distribute = train.distribute

    def distribute(*arguments):
        inner = real_distribute(*arguments)

        def call(state, data):
            raw = jax.random.key_data(state.key)
            hit = int(state.step) == 6 and (keys is None or any((raw == key).all() for key in keys))
            state, scalars = inner(state, data)
            return state, ({**scalars, "g_bce": scalars["g_bce"] * np.float32("nan")} if hit else scalars)

        return call

    monkeypatch.setattr(train, "distribute", distribute)


def first_key(recipe):
    return train_state.create(build(recipe, SPEC), SPEC, jax.random.key(recipe["seed"], impl=train.parallel.PRNG)).key


def final(workdir, recipe, step=8):
    shapes = jax.eval_shape(lambda: train_state.create(build(recipe, SPEC), SPEC, jax.random.key(0)))
    checkpoints = Checkpoints(workdir, read_only=True)
    state = checkpoints.restore(step, shapes, replicated(make_mesh(jax.devices()[:1])))
    checkpoints.close()
    return state


def test_a_rollback_continues_with_a_new_key_and_is_logged(bare, recipe, tmp_path, monkeypatch, capsys):
    recipe["guard"]["action"] = "rollback"
    key = first_key(recipe)
    poisoned(monkeypatch, [jax.random.key_data(key), jax.random.key_data(jax.random.fold_in(key, 1))])
    train_and_evaluate(recipe, tmp_path / "run")
    out = capsys.readouterr().out
    for number in (1, 2):
        assert f"train/g_bce is nan at step 7 (0.1 kimg); the checkpoint at step 4 is kept; rollback {number} of" in out
    lines = recovery.rollbacks(tmp_path / "run")
    assert [(line["step"], line["to"]) for line in lines] == [(8, 4), (8, 4)] and "g_bce is nan" in lines[0]["why"]
    state = final(tmp_path / "run", recipe)
    assert (jax.random.key_data(state.key) == jax.random.key_data(jax.random.fold_in(key, 2))).all()
    metrics = read_metrics(tmp_path / "run")
    assert [line["step"] for line in metrics] == [2, 4, 6, 8]
    assert [line.get("guard/rollbacks") for line in metrics] == [None, None, 2, 2]


def test_a_rolled_back_run_ends_alike_with_and_without_an_interruption(bare, recipe, tmp_path, monkeypatch):
    recipe["guard"]["action"] = "rollback"
    poisoned(monkeypatch, [jax.random.key_data(first_key(recipe))])
    train_and_evaluate(recipe, tmp_path / "twin")

    class Killed(BaseException):
        pass

    restored = []
    real_restore = recovery.Recovery.restore

    def killed_the_second_time(*arguments):
        state = real_restore(*arguments)
        restored.append(int(state.step))
        if len(restored) == 2:
            raise Killed
        return state

    # Just after the rollback, before anything is saved with the new key.
    with monkeypatch.context() as patch:
        patch.setattr(recovery.Recovery, "restore", killed_the_second_time)
        with pytest.raises(Killed):
            train_and_evaluate(recipe, tmp_path / "run")
    assert restored == [0, 4]
    assert len(recovery.rollbacks(tmp_path / "run")) == 1
    train_and_evaluate(recipe, tmp_path / "run")
    assert len(recovery.rollbacks(tmp_path / "run")) == 1
    assert bits(final(tmp_path / "run", recipe)) == bits(final(tmp_path / "twin", recipe))


def test_rollbacks_are_limited(bare, recipe, tmp_path, monkeypatch):
    recipe["guard"] |= {"action": "rollback", "max_rollbacks": 2}
    poisoned(monkeypatch, None)
    for _ in range(2):  # the same command again changes nothing
        with pytest.raises(
            GuardError, match=r"train/g_bce is nan at step 7 .*, after 2 rollbacks; lower learning rates"
        ):
            train_and_evaluate(recipe, tmp_path / "run")
        assert [line["to"] for line in recovery.rollbacks(tmp_path / "run")] == [4, 4]
        assert Checkpoints(tmp_path / "run", read_only=True).steps() == [4]


def test_without_a_checkpoint_a_rollback_goes_to_the_initial_state(bare, recipe, tmp_path, monkeypatch):
    recipe["guard"]["action"] = "rollback"
    recipe["checkpoint"]["every_kimg"] = 1.0
    key = first_key(recipe)
    poisoned(monkeypatch, [jax.random.key_data(key)])
    train_and_evaluate(recipe, tmp_path / "run")
    assert [line["to"] for line in recovery.rollbacks(tmp_path / "run")] == [0]
    assert (jax.random.key_data(final(tmp_path / "run", recipe).key) != jax.random.key_data(key)).any()


def test_a_collapse_rolls_back_to_before_it_and_sets_later_checkpoints_aside(
    bare, recipe, tmp_path, monkeypatch, capsys
):
    recipe["guard"]["action"] = "rollback"
    recipe["evaluate"] |= {"metrics": "ms_ssim", "every_kimg": 0.032}
    scores = iter([0.5, 0.6, 0.99, 0.5, 0.5])
    monkeypatch.setattr(train.Evaluator, "__call__", lambda *_: ({"ms_ssim": next(scores)}, {}))
    train_and_evaluate(recipe, tmp_path / "run")
    out = capsys.readouterr().out
    assert "collapse: diversity within classes (1 - ms_ssim) fell from 0.5 to 0.01" in out
    assert [(line["step"], line["to"]) for line in recovery.rollbacks(tmp_path / "run")] == [(6, 4)]
    assert sorted(path.name for path in (tmp_path / "run" / "set_aside").iterdir()) == ["6", "6.json"]
    evaluations = [json.loads(line) for line in (tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()]
    assert [(line["step"], line["eval/ms_ssim"]) for line in evaluations] == [(2, 0.5), (4, 0.6), (6, 0.5), (8, 0.5)]


def test_the_checkpoint_before_a_collapse_is_still_there(bare, recipe, tmp_path, monkeypatch):
    """None of the newest checkpoints, which are kept anyway, is old enough."""
    recipe["guard"]["action"] = "rollback"
    recipe["evaluate"] |= {"metrics": "ms_ssim", "every_kimg": 0.064}
    recipe["checkpoint"] = {"every_kimg": 0.016, "max_to_keep": 2}
    scores = iter([0.5, 0.99, 0.5])
    monkeypatch.setattr(train.Evaluator, "__call__", lambda *_: ({"ms_ssim": next(scores)}, {}))
    train_and_evaluate(recipe, tmp_path / "run")
    assert [(line["step"], line["to"]) for line in recovery.rollbacks(tmp_path / "run")] == [(8, 4)]
    assert Checkpoints(tmp_path / "run", read_only=True).steps() == [4, 7, 8]


def test_a_run_that_a_collapse_stopped_stops_again_after_a_restart(bare, recipe, tmp_path, monkeypatch):
    recipe["evaluate"] |= {"metrics": "ms_ssim", "every_kimg": 0.032}
    scores = iter([0.5, 0.99, 0.5, 0.5, 0.5])
    monkeypatch.setattr(train.Evaluator, "__call__", lambda *_: ({"ms_ssim": next(scores)}, {}))
    for _ in range(2):
        with pytest.raises(GuardError, match="collapse"):
            train_and_evaluate(recipe, tmp_path / "run")
    recipe["guard"]["action"] = "rollback"
    train_and_evaluate(recipe, tmp_path / "run")
    assert [(line["step"], line["to"]) for line in recovery.rollbacks(tmp_path / "run")] == [(4, 2)]


def test_a_recipe_that_diverges_is_stopped(bare, recipe, tmp_path):
    recipe["g_optimizer"]["learning_rate"] = recipe["d_optimizer"]["learning_rate"] = 1e30
    with pytest.raises(GuardError, match=r"(is (nan|inf|-inf)|not finite) at step [1-8] "):
        train_and_evaluate(recipe, tmp_path / "run")
