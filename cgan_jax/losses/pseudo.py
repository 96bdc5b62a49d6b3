"""Adaptive pseudo augmentation: the discriminator is told of some generated images that they are real.

Jiang, Dai, Wu & Loy (APA; 2021, "Deceive D: Adaptive Pseudo Augmentation for GAN Training with Limited Data"). How many
follows the discriminator's overfitting, as in augment_probability.py. Here the deception takes the generated images of
the same update, which are judged anyway; theirs takes the generator's last ones, and takes them into R1.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from cgan_jax import parallel
from cgan_jax.errors import UsageError
from cgan_jax.losses.adversarial import bce_real, hinge_real
from cgan_jax.losses.terms import Pass, Term

_BATCHES = 4  # of one decision, as theirs


def _pseudo(loss: Callable[[jax.Array], jax.Array], boundary: float) -> Callable[..., Term]:
    """The factory of `loss` of the real images, of which some are generated.

    The probability of that is 0 at first. It moves up if the mean sign of D over four batches, minus the boundary, is
    above `target`, and down if not. From 0 to 1 it takes `target_kimg` at least.
    """

    def make(target: float = 0.6, target_kimg: float = 500.0) -> Term:
        if not (0 < target <= 1 and target_kimg > 0):
            raise UsageError(f"APA needs a target in (0, 1] and target_kimg above 0, given {target} and {target_kimg}")

        def value(passed: Pass):
            real, fake, memory = passed.outputs["real"].logits, passed.outputs["fake"].logits, passed.memory
            # The sums of the last update are means over replicas by now, so all replicas decide alike.
            decides = memory["batches"] == _BATCHES
            step = _BATCHES * real.shape[0] * parallel.count() / (1000 * target_kimg)
            move = jnp.where(decides, step * jnp.sign(memory["signs"] / _BATCHES - target), 0.0)
            probability = jnp.clip(memory["probability"] + move, 0, 1)
            keys = parallel.sample_keys(passed.key, real.shape[0])
            told = jnp.where(jax.vmap(jax.random.uniform)(keys) < probability, fake, real)
            memory = {
                "probability": probability,
                "signs": jnp.where(decides, 0.0, memory["signs"]) + jnp.mean(jnp.sign(told - boundary)),
                "batches": jnp.where(decides, 0, memory["batches"]) + 1,
            }
            return loss(told), memory

        memory = {"probability": jnp.zeros(()), "signs": jnp.zeros(()), "batches": jnp.zeros((), jnp.int32)}
        return Term(value, reads=("real", "fake"), init_memory=memory, boundary=boundary, tells=("probability",))

    return make


DISCRIMINATOR = {"bce_real_pseudo": _pseudo(bce_real, 0.0), "hinge_real_pseudo": _pseudo(hinge_real, 0.0)}
GENERATOR = {}
