"""Terms on what a discriminator's head says of the class, beside whether an image is real; same shape as the losses."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from cgan_jax import parallel
from cgan_jax.errors import UsageError
from cgan_jax.losses.terms import Pass, Term


def cross_entropy(class_logits: jax.Array, labels: jax.Array) -> jax.Array:
    """-log softmax(class_logits)[label] (Odena, Olah & Shlens 2017, eq. 3): [N, K] and [N] -> [N]."""
    return -jnp.take_along_axis(jax.nn.log_softmax(class_logits), labels[:, None], axis=1)[:, 0]


def data_to_data(
    embeddings: jax.Array, proxies: jax.Array, labels: jax.Array, margin: float, temperature: float
) -> jax.Array:
    """The data-to-data cross-entropy of Kang, Shim, Cho & Park (2021, section 3.2), unit vectors [N, F] -> [N].

        p_i = min(0, <e_i, proxy_i> - margin) / temperature
        n_ij = max(0, <e_i, e_j> - (1 - margin)) / temperature        for all j of another class
        -log(exp(p_i) / (exp(p_i) + sum over j of exp(n_ij)))

    The j are those of the global batch, over all replicas.
    """
    others, their_labels = parallel.gathered(embeddings), parallel.gathered(labels)
    cosines = jnp.einsum("if,jf->ij", embeddings, others, precision=jax.lax.Precision.HIGHEST)
    positive = jnp.minimum(0, jnp.sum(embeddings * proxies, axis=1) - margin) / temperature
    negative = jnp.maximum(0, cosines - (1 - margin)) / temperature
    negative = jnp.where(labels[:, None] != their_labels[None, :], negative, -jnp.inf)
    return jax.nn.logsumexp(jnp.concatenate([positive[:, None], negative], axis=1), axis=1) - positive


def _extra(passed: Pass, name: str, what: str) -> jax.Array:
    extras = passed.outputs[name].extras
    if what not in extras:
        raise UsageError(
            f"this loss needs a discriminator that says {what}; this one says {', '.join(extras) or 'none'}"
        )
    return extras[what]


def _classification(name: str) -> Callable[[], Term]:
    def make() -> Term:
        def value(passed: Pass):
            return cross_entropy(_extra(passed, name, "class_logits"), passed.batches[name].labels), ()

        return Term(value, reads=(name,))

    return make


def _data_to_data(name: str) -> Callable[..., Term]:
    def make(margin: float = 0.98, temperature: float = 0.5) -> Term:
        def value(passed: Pass):
            vectors = (_extra(passed, name, what) for what in ("embeddings", "proxies"))
            return data_to_data(*vectors, passed.batches[name].labels, margin, temperature), ()

        return Term(value, reads=(name,))

    return make


DISCRIMINATOR = {
    "class_real": _classification("real"),
    "class_fake": _classification("fake"),
    "data_to_data_real": _data_to_data("real"),
}
GENERATOR = {"class_fake": _classification("fake"), "data_to_data_fake": _data_to_data("fake")}
