"""Terms on the extras of a head: class logits, embeddings and proxies, or directions. One value per sample."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from cgan_jax import parallel
from cgan_jax.losses.terms import Pass, Term, extra


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


def contrastive(embeddings: jax.Array, proxies: jax.Array, labels: jax.Array, temperature: float) -> jax.Array:
    """The conditional contrastive loss of unit vectors (2C; Kang & Park 2020).

        p_i = <e_i, proxy_i> / temperature
        n_ij = <e_i, e_j> / temperature        for all j but i
        -log((exp(p_i) + sum over j of i's class of exp(n_ij)) / (exp(p_i) + sum over all j of exp(n_ij)))

    The j run over the global batch. embeddings and proxies [N, F], labels int32 [N] -> [N].
    """
    parallel.need_whole_batch("the contrastive loss")
    all_embeddings, all_labels = parallel.gathered(embeddings), parallel.gathered(labels)
    cosines = jnp.einsum("if,jf->ij", embeddings, all_embeddings, precision=jax.lax.Precision.HIGHEST)
    itself = parallel.sample_indices(len(labels))[:, None] == jnp.arange(len(all_labels))[None, :]
    others = jnp.where(itself, -jnp.inf, cosines / temperature)
    alike = jnp.where(labels[:, None] == all_labels[None, :], others, -jnp.inf)
    own = jnp.sum(embeddings * proxies, axis=1, keepdims=True) / temperature

    def log_sum(terms):
        return jax.nn.logsumexp(jnp.concatenate([own, terms], axis=1), axis=1)

    return log_sum(others) - log_sum(alike)


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


def contrastive_real(temperature: float = 1.0) -> Term:
    """contrastive on real images."""
    return _contrastive("real", temperature)


def contrastive_fake(temperature: float = 1.0) -> Term:
    """contrastive on generated images."""
    return _contrastive("fake", temperature)


def real_class_real() -> Term:
    """-log of the share of "real, of its class" for a real image (ADC; Hou et al. 2022)."""
    return _of_real_fake("real", lambda shares: -shares[:, 0])


def fake_class_fake() -> Term:
    """-log of the share of "generated, of its class" for a generated image (ADC; Hou et al. 2022)."""
    return _of_real_fake("fake", lambda shares: -shares[:, 1])


def real_class_fake() -> Term:
    """The generator's log("generated, of its class") - log("real, of its class") (ADC; Hou et al. 2022)."""
    return _of_real_fake("fake", lambda shares: shares[:, 1] - shares[:, 0])


def direction_real() -> Term:
    """-<h(x), w>, which turns the direction w alone (SAN; Takida et al. 2024)."""
    return Term(lambda passed: (-extra(passed, "real", "direction_logits"), ()), reads=("real",))


def direction_fake() -> Term:
    """<h(G(z)), w>, which turns the direction w alone (SAN; Takida et al. 2024)."""
    return Term(lambda passed: (extra(passed, "fake", "direction_logits"), ()), reads=("fake",))


def _classification(batch: str) -> Term:
    def value(passed: Pass):
        return cross_entropy(extra(passed, batch, "class_logits"), passed.batches[batch].labels), ()

    return Term(value, reads=(batch,))


def _data_to_data(batch: str, margin: float, temperature: float) -> Term:
    def value(passed: Pass):
        embeddings = extra(passed, batch, "embeddings")
        proxies = extra(passed, batch, "proxies")
        return data_to_data(embeddings, proxies, passed.batches[batch].labels, margin, temperature), ()

    return Term(value, reads=(batch,))


def _contrastive(batch: str, temperature: float) -> Term:
    def value(passed: Pass):
        embeddings = extra(passed, batch, "embeddings")
        proxies = extra(passed, batch, "proxies")
        return contrastive(embeddings, proxies, passed.batches[batch].labels, temperature), ()

    return Term(value, reads=(batch,))


def _of_real_fake(batch: str, loss: Callable[[jax.Array], jax.Array]) -> Term:
    """`loss` maps the log shares of "real, of its class" and "generated, of its class", [N, 2], to one value each."""

    def value(passed: Pass):
        logits = extra(passed, batch, "real_fake_class_logits")
        log_shares = jax.nn.log_softmax(logits, axis=(1, 2))
        labels = passed.batches[batch].labels
        return loss(jnp.take_along_axis(log_shares, labels[:, None, None], axis=1)[:, 0]), ()

    return Term(value, reads=(batch,))


DISCRIMINATOR = {
    "class_real": class_real,
    "class_fake": class_fake,
    "data_to_data_real": data_to_data_real,
    "contrastive_real": contrastive_real,
    "real_class_real": real_class_real,
    "fake_class_fake": fake_class_fake,
    "direction_real": direction_real,
    "direction_fake": direction_fake,
}
GENERATOR = {
    "class_fake": class_fake,
    "data_to_data_fake": data_to_data_fake,
    "contrastive_fake": contrastive_fake,
    "real_class_fake": real_class_fake,
}
