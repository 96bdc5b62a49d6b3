"""Restores, guards and rollbacks: the checkpoint that a run starts from or goes back to.

Goodfellow (2016, section 5) describes two failures: the discriminator wins for good, or the generator maps all latents
to a few images. The guards find both in numbers that are logged anyway.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from cgan_jax.build import Algorithm, ImageSpec
from cgan_jax.errors import GuardError
from cgan_jax.parallel import replicate, replicated
from cgan_jax.run import processes
from cgan_jax.run.checkpoint import Checkpoints
from cgan_jax.run.journal import Journal
from cgan_jax.run.workdir import ROLLBACKS, append_metrics, read_metrics
from cgan_jax.train_state import TrainState, create_quickly, is_finite

Line = Mapping[str, float]

_PERFECT_ACCURACY = 0.99
_ACCURACIES = ("train/d_accuracy_real", "train/d_accuracy_fake")
_LEAST_DIVERSITY = 0.05
"""1 - MS-SSIM. A run that never reaches it has no diversity to lose."""


class Recovery:
    """The checkpoints and guards of a run in training, and its rollbacks to earlier checkpoints."""

    def __init__(
        self,
        workdir: Path,
        recipe: Mapping[str, Any],
        algorithm: Algorithm,
        spec: ImageSpec,
        shapes: TrainState,
        mesh: Mesh,
        begin: Callable[[TrainState], TrainState] | None = None,
    ):
        """`begin` changes the initial state, which is then saved, so that the run never needs it again."""
        self._workdir, self._guard, self._shapes, self._mesh = workdir, recipe["guard"], shapes, mesh
        self._begin = begin
        self._create = lambda: create_quickly(algorithm, spec, recipe["seed"])
        self._num_classes = spec.num_classes
        self.checkpoints = Checkpoints(workdir, recipe["checkpoint"]["max_to_keep"])
        self.rollbacks = rollbacks(workdir)

    @property
    def since(self) -> int:
        """The step that the last rollback went to. The discriminator guard reads only the log lines after it."""
        return self.rollbacks[-1]["to"] if self.rollbacks else 0

    def restore(self, journal: Journal) -> TrainState:
        """The state of the newest undamaged checkpoint, or the initial state. Rewinds the journal to its step."""
        state = self.checkpoints.restore_newest(self._shapes, replicated(self._mesh))
        if state is None:
            begin, self._begin = self._begin, None  # it may hold much memory
            state = replicate(begin(self._create()) if begin else self._create(), self._mesh)
            if begin:
                self.checkpoints.save(state)
        if fold := folds(self.rollbacks, int(state.step)):
            state = state.replace(key=jax.random.fold_in(state.key, fold))
        journal.rewind(int(state.step))
        self._remember_good(journal)
        return state

    def roll_back(self, error: GuardError, journal: Journal) -> TrainState:
        """The last good checkpoint, or the initial state, with a new key.

        Raises GuardError if the recipe allows no rollback, or no more.
        """
        guard, count = self._guard, len(self.rollbacks)
        if guard["action"] != "rollback" or count >= guard["max_rollbacks"]:
            rolled = f", after {count} rollbacks" if count else ""
            raise GuardError(f"{error}{rolled}; {self._next_step()}") from error
        self.checkpoints.wait()
        steps = self.checkpoints.steps()
        good = [step for step in steps if error.good_until is None or step <= error.good_until]
        to = int(processes.of_first(float(max(good, default=0))))
        # Set aside first, log second: after a kill in between, the run meets the same trouble again and rolls back.
        self.checkpoints.set_aside([step for step in steps if step > to])
        rollback = {"step": journal.step, "kimg": journal.kimg(journal.step), "to": to, "why": str(error)}
        if processes.is_first():
            remember_rollback(self._workdir, **rollback)
        self.rollbacks.append(rollback)
        journal.say(
            f"guard: {error}; rollback {count + 1} of at most {guard['max_rollbacks']} to step {to}, with a new key"
        )
        return self.restore(journal)

    def _next_step(self) -> str:
        """What a user may try after a guard has stopped the run."""
        if self._guard["action"] == "rollback":
            return "lower learning rates or another --config.seed, in another --workdir, may help"
        return (
            "the same command with --config.guard.action=rollback goes on from a good checkpoint with other random"
            " numbers; lower learning rates, in another --workdir, may help too"
        )

    def save(self, state: TrainState, kimg: float) -> None:
        """Starts to save a state. Raises GuardError if a parameter or statistic is not finite."""
        # The losses of a call are computed before its last update, so finite losses do not imply finite parameters.
        if not is_finite(state):
            raise self.trouble("a parameter or statistic is not finite", int(state.step), kimg)
        self.checkpoints.save(state)

    def trouble(self, what: str, step: int, kimg: float) -> GuardError:
        """Returns the GuardError for what was found at a step. It names the newest checkpoint."""
        self.checkpoints.wait()
        steps = self.checkpoints.steps()
        kept = f"the checkpoint at step {steps[-1]} is kept" if steps else "there is no checkpoint yet"
        return GuardError(f"{what} at step {step} ({kimg:.1f} kimg); {kept}")

    def check_discriminator(self, journal: Journal) -> None:
        """Raises GuardError if the discriminator has won according to the journal."""
        check_discriminator(journal.history, self._guard["d_perfect_kimg"], self.since)
        self._remember_good(journal)

    def check_evaluations(self, journal: Journal) -> None:
        """Raises GuardError in all processes if the first process finds a collapse in the evaluations."""
        trouble = None
        try:
            if journal.writes:
                check_evaluations(journal.evaluations, self._guard["collapse"], self._num_classes)
        except GuardError as error:
            trouble = error
        until = processes.of_first(None if trouble is None else float(trouble.good_until))
        if until is not None:
            raise trouble or GuardError("the first process found a collapse", good_until=int(until))
        self._remember_good(journal)

    def close(self) -> None:
        """Waits for the last save."""
        self.checkpoints.close()

    def _remember_good(self, journal: Journal) -> None:
        """Tells `checkpoints` to keep the checkpoint that a rollback would go back to."""
        self.checkpoints.good_until = good_until(self._guard, journal.history, journal.evaluations, self.since)


def check_discriminator(lines: Sequence[Line], kimg: float, since: int) -> None:
    """Raises GuardError if the discriminator was right on at least 99% of both kinds of images for the last `kimg`.

    A line holds the means since the line before. Lines up to step `since` do not count. 0 kimg is no limit.
    """
    began, good = _perfect(lines, since)
    if kimg and began is not None and lines[-1]["kimg"] - began >= kimg:
        raise GuardError(
            f"the discriminator was right on at least {_PERFECT_ACCURACY:.0%} of real and generated images"
            f" from {began:.1f} to {lines[-1]['kimg']:.1f} kimg",
            good_until=good,
        )


def _perfect(lines: Sequence[Line], since: int) -> tuple[float | None, int]:
    """Returns (the kimg since which the discriminator has been perfect or None, the last logged step before that)."""
    began, good = None, 0
    for before, line in zip([{"step": 0, "kimg": 0.0}, *lines], lines, strict=False):
        if line["step"] <= since or min(line.get(name, 0.0) for name in _ACCURACIES) < _PERFECT_ACCURACY:
            began, good = None, int(line["step"])
        elif began is None:
            began = before["kimg"]
    return began, good


def good_until(
    section: Mapping[str, Any], lines: Sequence[Line], evaluations: Sequence[Line], since: int
) -> int | None:
    """The last step that no guard can reject any more, or None if the guards cause no rollback.

    Later steps may prove to belong to a collapse, or to a time in which the discriminator was perfect.
    """
    if section["action"] != "rollback":
        return None
    steps = [_perfect(lines, since)[1]] if section["d_perfect_kimg"] and lines else []
    if section["collapse"] and evaluations:
        steps.append(int(evaluations[-1]["step"]))
    return min(steps, default=None)


def check_evaluations(lines: Sequence[Line], share: float, num_classes: int) -> None:
    """Raises GuardError if the last evaluation has less than `share` of the run's best on either of two numbers.

    They are the diversity within classes (1 - eval/ms_ssim), and eval/class_accuracy minus chance. A number counts once
    its best reached 0.05 or chance respectively. A share of 0 is no limit.
    """
    chance = 1 / num_classes
    watched: dict[str, tuple[Callable[[Line], float | None], float]] = {
        "diversity within classes (1 - ms_ssim)": (_diversity, _LEAST_DIVERSITY),
        f"class accuracy above chance ({chance:.3g})": (lambda line: _above_chance(line, chance), chance),
    }
    for name, (of, least) in watched.items():
        values = [value for line in lines if (value := of(line)) is not None]
        if len(values) < 2 or of(lines[-1]) is None:
            continue
        best, now = max(values[:-1]), values[-1]
        if share and best >= least and now < share * best:
            raise GuardError(
                f"collapse: {name} fell from {best:.3g} to {now:.3g}, less than guard.collapse={share:g} of its best",
                good_until=int(lines[-2]["step"]),
            )


def rollbacks(workdir: Path) -> list[dict]:
    """The rollbacks of a run, oldest first: {step, kimg, to, why} each."""
    return read_metrics(workdir, ROLLBACKS)


def remember_rollback(workdir: Path, step: int, kimg: float, to: int, why: str) -> None:
    """Appends a rollback from `step` to `to`. A restore at or before `to` folds the count of lines into the key."""
    append_metrics(workdir, {"step": step, "kimg": kimg, "to": to, "why": why}, ROLLBACKS)


def folds(went_back: Sequence[Mapping], step: int) -> int:
    """The number to fold into the key of a checkpoint at `step`; 0 for none.

    A checkpoint that was saved after the last rollback has the number in its key already.
    """
    return len(went_back) if went_back and step <= went_back[-1]["to"] else 0


def _diversity(line: Line) -> float | None:
    return 1 - line["eval/ms_ssim"] if "eval/ms_ssim" in line else None


def _above_chance(line: Line, chance: float) -> float | None:
    found = [value for name, value in line.items() if name.startswith("eval/class_accuracy") and name.count("/") == 1]
    return found[0] - chance if found else None
