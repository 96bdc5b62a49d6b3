"""Adversarial losses on logits: each maps float [N] to one value per sample [N]; the step takes the mean.

A larger logit is more real. The papers' D is a probability in the cross-entropies, sigmoid of a logit x:

    -log(sigmoid(x))     = log(1 + exp(-x)) = softplus(-x)
    -log(1 - sigmoid(x)) = log(1 + exp(x))  = softplus(x)

softplus neither overflows nor loses precision for large |x|. In all other losses D is the logit.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.nn import relu, softplus

from cgan_jax import parallel
from cgan_jax.annealing import Annealed, Number, at
from cgan_jax.errors import UsageError
from cgan_jax.losses.terms import Pass, Term, on_logits


def _check(*logits: jax.Array) -> None:
    """Raises ValueError unless the logits are vectors of one length."""
    for x in logits:
        if x.ndim != 1 or x.shape != logits[0].shape:
            raise ValueError(f"logits must be vectors of one length, given shapes {[x.shape for x in logits]}")


def bce_real(real_logits: jax.Array) -> jax.Array:
    """-log D(x) (Goodfellow et al. 2014, eq. 1)."""
    _check(real_logits)
    # -log(sigmoid(x))
    return softplus(-real_logits)


def bce_fake(fake_logits: jax.Array) -> jax.Array:
    """-log(1 - D(G(z))) (Goodfellow et al. 2014, eq. 1)."""
    _check(fake_logits)
    # -log(1 - sigmoid(x))
    return softplus(fake_logits)


def bce(fake_logits: jax.Array) -> jax.Array:
    """The non-saturating generator loss -log D(G(z)) (Goodfellow et al. 2014, section 3)."""
    _check(fake_logits)
    # -log(sigmoid(x))
    return softplus(-fake_logits)


def minimax(fake_logits: jax.Array) -> jax.Array:
    """The saturating generator loss log(1 - D(G(z))) (Goodfellow et al. 2014, eq. 1)."""
    _check(fake_logits)
    # log(1 - sigmoid(x))
    return -softplus(fake_logits)


def hinge_real(real_logits: jax.Array) -> jax.Array:
    """max(0, 1 - D(x)) (Lim & Ye 2017; Miyato et al. 2018, eq. 16)."""
    _check(real_logits)
    return relu(1 - real_logits)


def hinge_fake(fake_logits: jax.Array) -> jax.Array:
    """max(0, 1 + D(G(z))) (Lim & Ye 2017; Miyato et al. 2018, eq. 16)."""
    _check(fake_logits)
    return relu(1 + fake_logits)


def hinge(fake_logits: jax.Array) -> jax.Array:
    """The generator loss -D(G(z)) for the hinge loss (Miyato et al. 2018, eq. 17)."""
    _check(fake_logits)
    return -fake_logits


def least_squares_real(real_logits: jax.Array) -> jax.Array:
    """(D(x) - 1)^2 / 2 (Mao et al. 2017, eq. 9 with a = 0, b = c = 1)."""
    _check(real_logits)
    return jnp.square(real_logits - 1) / 2


def least_squares_fake(fake_logits: jax.Array) -> jax.Array:
    """D(G(z))^2 / 2 (Mao et al. 2017, eq. 9)."""
    _check(fake_logits)
    return jnp.square(fake_logits) / 2


def least_squares(fake_logits: jax.Array) -> jax.Array:
    """The generator loss (D(G(z)) - 1)^2 / 2 (Mao et al. 2017, eq. 9)."""
    _check(fake_logits)
    return jnp.square(fake_logits - 1) / 2


def wasserstein_real(real_logits: jax.Array) -> jax.Array:
    """-D(x), the critic's half on real images (Arjovsky et al. 2017, eq. 2)."""
    _check(real_logits)
    return -real_logits


def wasserstein_fake(fake_logits: jax.Array) -> jax.Array:
    """D(G(z)), the critic's half on fakes (Arjovsky et al. 2017, eq. 2)."""
    _check(fake_logits)
    return fake_logits


def wasserstein(fake_logits: jax.Array) -> jax.Array:
    """The generator loss -D(G(z)) (Arjovsky et al. 2017, eq. 3)."""
    _check(fake_logits)
    return -fake_logits


def relativistic_discriminator(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """-log sigmoid(D(x_i) - D(G(z_i))) for pairs of one label (Jolicoeur-Martineau 2019, eq. 5)."""
    _check(real_logits, fake_logits)
    # -log(sigmoid(real - fake)) = softplus(fake - real)
    return softplus(fake_logits - real_logits)


def relativistic_generator(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """-log sigmoid(D(G(z_i)) - D(x_i)) for pairs of one label (Jolicoeur-Martineau 2019, eq. 6)."""
    return relativistic_discriminator(fake_logits, real_logits)


def _simple(loss: Callable[..., jax.Array], *reads: str, boundary: float | None = None) -> Callable[[], Term]:
    """The factory of a term without hyperparameters."""
    return lambda: on_logits(loss, *reads, boundary=boundary)


def best(fake_logits: jax.Array, share: jax.Array | float) -> jax.Array:
    """N / k for the k largest logits of the global batch, 0 for the others: [N] -> [N]; k is `share` of N, at least 1.

    So the mean of a loss times this is the mean over these k. Logits equal to the k-th count too.
    """
    parallel.need_whole_batch("the share `top` of a loss")
    everyone = jnp.sort(parallel.gathered(jax.lax.stop_gradient(fake_logits)))
    k = jnp.maximum(1, jnp.round(share * everyone.size)).astype(jnp.int32)
    least = everyone[everyone.size - k]
    return (fake_logits >= least) * (everyone.size / jnp.sum(everyone >= least))


def _of_generator(loss: Callable[..., jax.Array], *reads: str) -> Callable[..., Term]:
    """The factory of a generator's term. Only the share `top` of the fakes counts that looks best to the discriminator.

    Sinha, Zhao, Goyal, Raffel & Odena (2020, "Top-k Training of GANs"), whose share falls by 1% an epoch,
    to 0.75 or 0.5. Here it may be annealed.
    """

    def make(top: Number = 1.0) -> Term:
        if top == 1.0:
            return on_logits(loss, *reads)
        ends = tuple(top) if isinstance(top, Annealed) else (top,)
        if not all(0 < end <= 1 for end in ends):
            given = " to ".join(map(str, ends))
            raise UsageError(f"the share `top` of a loss must be more than 0 and at most 1, given {given}")

        def value(passed: Pass):
            values = loss(*(passed.outputs[name].logits for name in reads))
            return values * best(passed.outputs["fake"].logits, at(top, passed.annealed)), ()

        return Term(value, reads=reads)

    return make


DISCRIMINATOR = {
    "bce_real": _simple(bce_real, "real", boundary=0.0),
    "bce_fake": _simple(bce_fake, "fake", boundary=0.0),
    "hinge_real": _simple(hinge_real, "real", boundary=0.0),
    "hinge_fake": _simple(hinge_fake, "fake", boundary=0.0),
    "least_squares_real": _simple(least_squares_real, "real", boundary=0.5),
    "least_squares_fake": _simple(least_squares_fake, "fake", boundary=0.5),
    "wasserstein_real": _simple(wasserstein_real, "real"),
    "wasserstein_fake": _simple(wasserstein_fake, "fake"),
    "relativistic": _simple(relativistic_discriminator, "real", "fake"),
}

GENERATOR = {
    "bce": _of_generator(bce, "fake"),
    "minimax": _of_generator(minimax, "fake"),
    "hinge": _of_generator(hinge, "fake"),
    "least_squares": _of_generator(least_squares, "fake"),
    "wasserstein": _of_generator(wasserstein, "fake"),
    "relativistic": _of_generator(relativistic_generator, "real", "fake"),
}
