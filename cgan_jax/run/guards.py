"""What training notices of itself, from the numbers it has logged; and what it remembers of having gone back.

Goodfellow (2016, section 5) names the ways in which the game ends without a winner: the discriminator wins for good, or
the generator maps everything to a few images. Both show in numbers that are logged anyway.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cgan_jax.errors import GuardError
from cgan_jax.run.workdir import append_metrics, read_metrics

ROLLBACKS = "rollbacks.jsonl"
Line = Mapping[str, float]

_RIGHT_ON_EVERYTHING = 0.99
_ACCURACIES = ("train/d_accuracy_real", "train/d_accuracy_fake")
_SOME_DIVERSITY = 0.05
"""1 - MS-SSIM; images of a class that are liker than this from the start have no diversity to lose."""


def check_discriminator(lines: Sequence[Line], kimg: float, since: int) -> None:
    """Raises GuardError where the discriminator was right on everything in the last `kimg` of the log.

    A line holds the means since the one before it; those of steps up to `since` do not count. 0 kimg is no limit.
    """
    began, good = _perfect(lines, since)
    if kimg and began is not None and lines[-1]["kimg"] - began >= kimg:
        raise GuardError(
            f"the discriminator was right on at least {_RIGHT_ON_EVERYTHING:.0%} of real and generated images"
            f" from {began:.1f} to {lines[-1]['kimg']:.1f} kimg",
            good_until=good,
        )


def _perfect(lines: Sequence[Line], since: int) -> tuple[float | None, int]:
    """(from which kimg on the discriminator was right on everything, None where it is not; the last step before)."""
    began, good = None, 0
    for before, line in zip([{"step": 0, "kimg": 0.0}, *lines], lines, strict=False):
        if line["step"] <= since or min(line.get(name, 0.0) for name in _ACCURACIES) < _RIGHT_ON_EVERYTHING:
            began, good = None, int(line["step"])
        elif began is None:
            began = before["kimg"]
    return began, good


def good_until(
    section: Mapping[str, Any], lines: Sequence[Line], evaluations: Sequence[Line], since: int
) -> int | None:
    """The last step up to which nothing can be held against a run any more; None where its guards never go back.

    Later ones may turn out to have been part of a collapse, or of a time in which the discriminator was always right.
    """
    if section["action"] != "rollback":
        return None
    steps = [_perfect(lines, since)[1]] if section["d_perfect_kimg"] and lines else []
    if section["collapse"] and evaluations:
        steps.append(int(evaluations[-1]["step"]))
    return min(steps, default=None)


def check_evaluations(lines: Sequence[Line], share: float, num_classes: int) -> None:
    """Raises GuardError where the last evaluation keeps less than `share` of the best that the run had had, of

    the diversity within classes (1 - eval/ms_ssim), or of what eval/class_accuracy is above chance; once the one was
    0.05, or the other as much as chance itself. A share of 0 is no limit.
    """
    chance = 1 / num_classes
    watched: dict[str, tuple[Callable[[Line], float | None], float]] = {
        "diversity within classes (1 - ms_ssim)": (_diversity, _SOME_DIVERSITY),
        f"class accuracy above its chance of {chance:.3g}": (lambda line: _above_chance(line, chance), chance),
    }
    for name, (of, least) in watched.items():
        values = [value for line in lines if (value := of(line)) is not None]
        if len(values) < 2 or of(lines[-1]) is None:
            continue
        best, now = max(values[:-1]), values[-1]
        if share and best >= least and now < share * best:
            raise GuardError(
                f"collapse: {name} is {now:.3g} where it had been {best:.3g},"
                f" and less than guard.collapse={share:g} of that is left",
                good_until=int(lines[-2]["step"]),
            )


def rollbacks(workdir: Path) -> list[dict]:
    """What a run has written of going back: {step, kimg, to, why} each."""
    return read_metrics(workdir, ROLLBACKS)


def remember_rollback(workdir: Path, step: int, kimg: float, to: int, why: str) -> None:
    """Adds a line. From a checkpoint at or before `to` the run goes on with the number of lines folded into its key."""
    append_metrics(workdir, {"step": step, "kimg": kimg, "to": to, "why": why}, ROLLBACKS)


def folds(went_back: Sequence[Mapping], step: int) -> int:
    """What to fold into the key of a checkpoint at `step`, 0 for nothing.

    One that was saved after the last time of going back has it in its key already.
    """
    return len(went_back) if went_back and step <= went_back[-1]["to"] else 0


def _diversity(line: Line) -> float | None:
    return 1 - line["eval/ms_ssim"] if "eval/ms_ssim" in line else None


def _above_chance(line: Line, chance: float) -> float | None:
    found = [value for name, value in line.items() if name.startswith("eval/class_accuracy") and name.count("/") == 1]
    return found[0] - chance if found else None
