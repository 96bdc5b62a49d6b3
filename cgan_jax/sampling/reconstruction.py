"""An average of any half-life, made after training of the averages in a run's checkpoints.

An average is a sum of the weights of all steps, so a sum of stored averages is one too. Least squares find the sum
closest to the one that is wanted (Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion
Models", section 3.1 and appendix C). They store averages by power functions of time. Exponential ones, which runs keep
anyway, serve as well: with 20 checkpoints and half-lives of 3% and 13% of a run, those by power functions of relative
widths 0.05 to 0.2 are met to 0.5%.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Sharding

from cgan_jax import averages
from cgan_jax.build import images_per_step, steps_for
from cgan_jax.errors import UsageError
from cgan_jax.run.checkpoint import Checkpoints
from cgan_jax.run.progress import say
from cgan_jax.train_state import Tree

_MOST_OFF = 0.05


class Average(NamedTuple):
    """An exponential moving average of the weights w_0, w_1, ... that begins as w_0."""

    steps: float | np.ndarray
    """How often it has moved."""
    decay: float | np.ndarray
    """What it keeps of itself in a step."""


class Plan(NamedTuple):
    """A sum of averages in checkpoints."""

    factors: list[float]
    places: list[tuple[int, str]]
    """(step, name of the average) for each factor."""
    off: float
    """As in `combination`."""


def planned(checkpoints: Checkpoints, recipe: Mapping[str, Any], step: int, name: str) -> Plan:
    """How to make the average with the half-life `name` at a step, from all checkpoints up to it.

    Raises UsageError if no sum comes closer than 5%.
    """
    kimg, start = images_per_step(recipe) / 1000, steps_for(recipe, recipe["ema"]["start_kimg"])
    decays = {kept: 0.5 ** (kimg / halflife) for kept, halflife in averages.constant(recipe).items()}
    steps = [at for at in checkpoints.steps() if start < at <= step]
    places = [(at, kept) for at in steps for kept in decays]
    factors, off = np.zeros(0), 1.0
    if places:
        stored = [Average(at - start, decays[kept]) for at, kept in places]
        factors, off = combination(stored, Average(step - start, 0.5 ** (kimg / float(name))))
    if off > _MOST_OFF:
        best = f"; the best sum of those in {len(steps)} checkpoints is {off:.0%} off" if places else ""
        raise UsageError(averages.refusal(averages.names(recipe), name) + best)
    return Plan(factors.tolist(), places, off)


def made(
    checkpoints: Checkpoints, recipe: Mapping[str, Any], step: int, name: str, shapes: Tree, sharding: Sharding
) -> Tree:
    """The variables of that average, as `shapes`. Says how far they are off. Raises UsageError as `planned`."""
    plan = planned(checkpoints, recipe, step, name)
    steps = len({at for at, _ in plan.places})
    places = f"{steps} checkpoint{'s' * (steps > 1)}"
    say(f"--ema={name} is a sum of {len(plan.places)} averages in {places}, {plan.off:.2%} off")
    total = jax.tree.map(lambda shape: np.zeros(shape.shape, shape.dtype), shapes)
    for factor, (at, kept) in zip(plan.factors, plan.places, strict=True):
        further = "" if kept == averages.default(recipe) else kept
        one = checkpoints.restore_average(at, shapes, sharding, further)
        total = jax.tree.map(lambda x, y, factor=factor: x + factor * y, total, one)
    return total


def combination(stored: Sequence[Average], wanted: Average) -> tuple[np.ndarray, float]:
    """Factors float64 [N] whose sum of the stored averages is closest to the wanted one, and how far it is off.

    The factors add up to 1. The distance is that of the shares of all steps, relative to the norm of the wanted ones.
    """
    steps, decays = np.array(stored, np.float64).T
    gram = _product(Average(steps[:, None], decays[:, None]), Average(steps[None], decays[None]))
    right, norm = _product(Average(steps, decays), wanted), _product(wanted, wanted)
    # Lagrange's multiplier is the last unknown. Without it, long averages lose a tenth of their weights.
    ones = np.ones((len(gram), 1))
    equations = np.block([[gram, ones], [ones.T, np.zeros((1, 1))]])
    factors = np.linalg.lstsq(equations, np.append(right, 1.0), rcond=1e-12)[0][:-1]
    off = norm - 2 * factors @ right + factors @ gram @ factors
    return factors, float(np.sqrt(max(off, 0.0) / norm))


def _product(a: Average, b: Average) -> np.ndarray:
    """The sum over steps of what both averages make of it: geometric series up to the end of the shorter one.

    After t steps of decay d the weights of step s are in it (1 - d) d^(t - s) times, and those of step 0 d^t times.
    """
    both = np.minimum(a.steps, b.steps)
    rest = a.decay ** (a.steps - both) * b.decay ** (b.steps - both)
    left = (a.decay * b.decay) ** both
    gap = np.maximum(1 - a.decay * b.decay, 1e-300)  # 0 for half-lives beyond all runs
    return rest * (left + (1 - a.decay) * (1 - b.decay) * (1 - left) / gap)
