"""How likely augmentation is: as the recipe says, or as the discriminator's overfitting asks for.

A discriminator that knows few images by heart is sure of them. Then augmentation becomes more likely, and else less
(Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data", section 3.1: r_t).
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cgan_jax.annealing import Annealed, Number, at
from cgan_jax.errors import UsageError

Memory = dict[str, Any]
"""The train state's."""
Scalars = Mapping[str, jax.Array]

_BATCHES = 4  # of one decision, as theirs
_KEPT = "augment"
_READ, _TOLD = "d_accuracy_real", "augment_probability"


class Probability(NamedTuple):
    """What sets the probability. It may keep an entry in the train state's memory."""

    init_memory: Memory
    """The entry; empty if there is none."""
    at: Callable[[Memory, jax.Array | float], jax.Array | float]
    """(memory, how far annealing is, 0 to 1) -> the probability."""
    after: Callable[[Memory, Scalars], tuple[Memory, Scalars]]
    """(memory, the scalars of a discriminator update, the same on all replicas) -> the next memory, what to log."""


def from_recipe(section: Mapping[str, Any], batch_size: int) -> Probability:
    """The recipe's section "augment" -> its probability. It adapts if `target` and `target_kimg` are not 0.

    Raises UsageError if only one of them is 0. So it does if a probability adapts and is annealed, or is of nothing and
    does either.
    """
    start, target, kimg = section["probability"], section.get("target", 0.0), section.get("target_kimg", 0.0)
    if bool(target) != bool(kimg):
        raise UsageError(f"augment.target={target} and augment.target_kimg={kimg} must both be 0 or both not")
    if isinstance(start, Annealed) and not section["policy"].strip():
        raise UsageError("anneal.to moves augment.probability, which needs an augment.policy")
    if not target:
        return fixed(start)
    if isinstance(start, Annealed):
        raise UsageError("augment.probability is in anneal.to and has an augment.target; it follows one of them")
    if not section["policy"].strip():
        raise UsageError("augment.target needs an augment.policy")
    return adaptive(start, target, batch_size / (1000 * kimg))


def fixed(probability: Number) -> Probability:
    """The number, which may be annealed."""
    return Probability({}, lambda memory, annealed: at(probability, annealed), lambda memory, scalars: (memory, {}))


def adaptive(start: float, target: float, per_batch: float) -> Probability:
    """The probability that moves by `per_batch`, up if the mean sign of D(real) is above the target and down if not.

    The sign is that of the logit minus the loss's decision boundary. The mean is over four batches.
    """
    entry = {"probability": jnp.float32(start), "signs": jnp.zeros(()), "batches": jnp.zeros((), jnp.int32)}
    return Probability(
        {_KEPT: entry},
        lambda memory, annealed: memory[_KEPT]["probability"],
        functools.partial(_adapted, target, per_batch),
    )


def _adapted(target: float, per_batch: float, memory: Memory, scalars: Scalars) -> tuple[Memory, Scalars]:
    if _READ not in scalars:  # an update that does not look at real images
        return memory, {}
    entry = memory[_KEPT]
    signs, batches = entry["signs"] + 2 * scalars[_READ] - 1, entry["batches"] + 1
    decides = batches == _BATCHES
    move = jnp.where(decides, _BATCHES * per_batch * jnp.sign(signs / _BATCHES - target), 0.0)
    probability = jnp.clip(entry["probability"] + move, 0, 1)
    entry = {
        "probability": probability,
        "signs": jnp.where(decides, 0.0, signs),
        "batches": jnp.where(decides, 0, batches),
    }
    return {**memory, _KEPT: entry}, {_TOLD: probability}
