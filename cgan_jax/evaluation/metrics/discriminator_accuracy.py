"""The shares of generated, real and held-out real images that a run's own discriminator takes for what they are.

A discriminator that knows its training images by heart is right about them and wrong about others of the same kind: a
gap between `real` and `held_out` is memorisation, as Brock, Donahue & Simonyan (2019, "Large Scale GAN Training",
section 4.2) found it. Near one half for generated images it can no longer tell them. The critic of a Wasserstein or
relativistic loss has no logit between real and generated, so it is not asked.
"""

import numpy as np

from cgan_jax.evaluation.metrics import Sample, check

READS = ("verdicts",)
MIN_IMAGES, MIN_PER_CLASS = 1, 0


def compute(fake: Sample, real: Sample, class_names: tuple[str, ...]) -> dict[str, float]:
    """A verdict above 0 says "real"; `held_out` if the real sample has such images."""
    check("discriminator_accuracy", fake, real, class_names, READS, MIN_IMAGES)
    shares = {"generated": np.mean(fake.verdicts < 0), "real": np.mean(real.verdicts > 0)}
    if real.held_out_verdicts is not None:
        shares["held_out"] = np.mean(real.held_out_verdicts > 0)
    return {f"discriminator_accuracy/{kind}": float(share) for kind, share in shares.items()}
