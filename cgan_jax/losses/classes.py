"""Terms on the extras of a head that classifies: class logits, or embeddings and proxies. One value per sample."""

import jax
import jax.numpy as jnp

from cgan_jax import parallel
from cgan_jax.errors import UsageError
from cgan_jax.losses.terms import Pass, Term


def cross_entropy(class_logits: jax.Array, labels: jax.Array) -> jax.Array:
    """-log softmax(class_logits)[label] (Odena, Olah & Shlens 2017, eq. 3): [N, num_classes] and int32 [N] -> [N]."""
    # log_softmax subtracts the largest logit first, so that exp does not overflow.
    log_probabilities = jax.nn.log_softmax(class_logits)
    return -jnp.take_along_axis(log_probabilities, labels[:, None], axis=1)[:, 0]


def data_to_data(
    embeddings: jax.Array, proxies: jax.Array, labels: jax.Array, margin: float, temperature: float
) -> jax.Array:
    """The data-to-data cross-entropy of unit vectors (Kang, Shim, Cho & Park 2021, section 3.2).

        p_i = min(0, <e_i, proxy_i> - margin) / temperature
        n_ij = max(0, <e_i, e_j> - (1 - margin)) / temperature        for all j of another class
        -log(exp(p_i) / (exp(p_i) + sum over j of exp(n_ij)))

    The j run over the global batch. embeddings and proxies [N, F], labels int32 [N] -> [N].
    """
    parallel.need_whole_batch("the data-to-data loss")
    all_embeddings = parallel.gathered(embeddings)
    all_labels = parallel.gathered(labels)
    cosines = jnp.einsum("if,jf->ij", embeddings, all_embeddings, precision=jax.lax.Precision.HIGHEST)
    positive = jnp.minimum(0, jnp.sum(embeddings * proxies, axis=1) - margin) / temperature
    negative = jnp.maximum(0, cosines - (1 - margin)) / temperature
    negative = jnp.where(labels[:, None] != all_labels[None, :], negative, -jnp.inf)
    # -log(exp(p) / (exp(p) + sum exp(n))) = logsumexp(p, n...) - p, which does not overflow.
    return jax.nn.logsumexp(jnp.concatenate([positive[:, None], negative], axis=1), axis=1) - positive


def class_real() -> Term:
    """cross_entropy on real images."""
    return _classification("real")


def class_fake() -> Term:
    """cross_entropy on generated images."""
    return _classification("fake")


def data_to_data_real(margin: float = 0.98, temperature: float = 0.5) -> Term:
    """data_to_data on real images."""
    return _data_to_data("real", margin, temperature)


def data_to_data_fake(margin: float = 0.98, temperature: float = 0.5) -> Term:
    """data_to_data on generated images."""
    return _data_to_data("fake", margin, temperature)


def _classification(batch: str) -> Term:
    def value(passed: Pass):
        return cross_entropy(_extra(passed, batch, "class_logits"), passed.batches[batch].labels), ()

    return Term(value, reads=(batch,))


def _data_to_data(batch: str, margin: float, temperature: float) -> Term:
    def value(passed: Pass):
        embeddings = _extra(passed, batch, "embeddings")
        proxies = _extra(passed, batch, "proxies")
        return data_to_data(embeddings, proxies, passed.batches[batch].labels, margin, temperature), ()

    return Term(value, reads=(batch,))


def _extra(passed: Pass, batch: str, name: str) -> jax.Array:
    """The entry `name` of the head's extras for a batch. Raises UsageError if the head does not compute it."""
    extras = passed.outputs[batch].extras
    if name not in extras:
        computed = ", ".join(extras) or "no extras"
        raise UsageError(f"this loss needs a head that computes {name}; this one computes {computed}")
    return extras[name]


DISCRIMINATOR = {"class_real": class_real, "class_fake": class_fake, "data_to_data_real": data_to_data_real}
GENERATOR = {"class_fake": class_fake, "data_to_data_fake": data_to_data_fake}
