"""The hinge loss on the logits of patches, for a discriminator whose extras have "patches" [N, P].

Each patch has a hinge loss, as if a separate discriminator judged it (Sauer, Chitta, Müller & Geiger 2021, eq. 4). The
losses here map patches [N, P] to one value per sample [N], the mean over patches.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.nn import relu

from cgan_jax.losses.terms import Term, extra


def patch_hinge_real(patches: jax.Array) -> jax.Array:
    """max(0, 1 - D_p(x)) for real images (Lim & Ye 2017)."""
    return jnp.mean(relu(1 - patches), axis=1)


def patch_hinge_fake(patches: jax.Array) -> jax.Array:
    """max(0, 1 + D_p(x)) for generated images (Lim & Ye 2017)."""
    return jnp.mean(relu(1 + patches), axis=1)


def _on_patches(loss: Callable[[jax.Array], jax.Array], reads: str) -> Callable[[], Term]:
    def value(passed):
        return loss(extra(passed, reads, "patches")), ()

    return lambda: Term(value, reads=(reads,), boundary=0.0)


DISCRIMINATOR = {
    "patch_hinge_real": _on_patches(patch_hinge_real, "real"),
    "patch_hinge_fake": _on_patches(patch_hinge_fake, "fake"),
}
GENERATOR = {}
