"""The hinge losses of patches: by hand, and their slopes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgan_jax.losses import patches
from cgan_jax.losses.terms import Pass
from cgan_jax.networks.heads import Output

LOGITS = jnp.float32([[-2.0, 0.0, 0.5, 3.0], [1.0, 2.0, -1.0, 0.25]])
# max(0, 1 - x) of the rows: 3 + 1 + 0.5 + 0, and 0 + 0 + 2 + 0.75; max(0, 1 + x): 0 + 1 + 1.5 + 4, and 2 + 3 + 0 + 1.25
EXPECTED = {
    "patch_hinge_real": ([4.5 / 4, 2.75 / 4], [[-1, -1, -1, 0], [0, 0, -1, -1]]),
    "patch_hinge_fake": ([6.5 / 4, 6.25 / 4], [[0, 1, 1, 1], [1, 1, 0, 1]]),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_hinge_is_the_mean_over_patches(name):
    assert set(patches.DISCRIMINATOR) == set(EXPECTED)
    values, slopes = EXPECTED[name]
    term = patches.DISCRIMINATOR[name]()

    def of(logits):
        outputs = {"real": None, "fake": None, term.reads[0]: Output(logits.mean(1), {"patches": logits})}
        result, memory = term.value(Pass({}, outputs, None, None, (), None, None))
        assert memory == ()
        return result

    np.testing.assert_allclose(of(LOGITS), values)
    # At the corner of the hinge, x = 1 or -1, either slope is right.
    slope, corner = jax.grad(lambda x: of(x).sum())(LOGITS) * 4, np.abs(np.asarray(LOGITS)) == 1
    np.testing.assert_allclose(np.where(corner, 0, slope), np.where(corner, 0, np.float32(slopes)))


def test_the_losses_read_the_batch_of_their_name():
    assert [make().reads for make in patches.DISCRIMINATOR.values()] == [("real",), ("fake",)]
