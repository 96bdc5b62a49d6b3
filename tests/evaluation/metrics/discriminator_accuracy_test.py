"""Shares of verdicts, counted by hand."""

import numpy as np

from cgan_jax.evaluation.metrics import Sample, discriminator_accuracy


def sample(verdicts, held_out=None):
    verdicts = np.float32(verdicts)
    held_out = None if held_out is None else np.float32(held_out)
    return Sample(np.zeros(len(verdicts), np.int32), verdicts=verdicts, held_out_verdicts=held_out)


def test_a_positive_logit_says_real():
    fake, real = sample([-1.0, -0.1, 2.0, 0.0]), sample([1.0, -3.0, 0.5, 0.1], held_out=[-1.0, 1.0])
    found = discriminator_accuracy.compute(fake, real, ("all",))
    assert found == {
        "discriminator_accuracy/generated": 0.5,
        "discriminator_accuracy/real": 0.75,
        "discriminator_accuracy/held_out": 0.5,
    }


def test_without_held_out_images_nothing_is_said_of_them():
    found = discriminator_accuracy.compute(sample([-1.0]), sample([1.0, 1.0]), ("all",))
    assert found == {"discriminator_accuracy/generated": 1.0, "discriminator_accuracy/real": 1.0}
