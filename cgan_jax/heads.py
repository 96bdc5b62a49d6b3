"""What ends a discriminator: features float [N, F] and labels int32 [N] -> Output."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from cgan_jax.layers import glorot_uniform
from cgan_jax.terms import Output


class Unconditional(nn.Module):
    """One dense unit; the labels are not read (a discriminator may have seen them earlier, as a label map)."""

    @nn.compact
    def __call__(self, features: jax.Array, labels: jax.Array) -> Output:
        logits = nn.Dense(1, kernel_init=glorot_uniform)(features)
        return Output(logits[:, 0].astype(jnp.float32), {})


class Projection(nn.Module):
    """A dense unit plus the inner product with the label's embedding (Miyato & Koyama 2018, eq. 6)."""

    num_classes: int

    @nn.compact
    def __call__(self, features: jax.Array, labels: jax.Array) -> Output:
        logits = nn.Dense(1, kernel_init=glorot_uniform)(features)[:, 0]
        embedding = nn.Embed(self.num_classes, features.shape[-1], embedding_init=glorot_uniform)(labels)
        return Output((logits + jnp.sum(embedding * features, axis=-1)).astype(jnp.float32), {})


class AuxiliaryClassifier(nn.Module):
    """A dense unit that reads no labels, and beside it a logit for each class (Odena, Olah & Shlens 2017, section 3).

    extras: "class_logits" [N, num_classes], for the terms class_real and class_fake.
    """

    num_classes: int

    @nn.compact
    def __call__(self, features: jax.Array, labels: jax.Array) -> Output:
        features = features.astype(jnp.float32)
        logits = nn.Dense(1, kernel_init=glorot_uniform)(features)[:, 0]
        return Output(logits, {"class_logits": nn.Dense(self.num_classes, kernel_init=glorot_uniform)(features)})


class ClassProxies(nn.Module):
    """A dense unit that reads no labels, and directions of images and of classes (Kang et al. 2021, section 3).

    extras, of unit length: "embeddings" [N, embedding_dim] of the images and "proxies" [N, embedding_dim] of their
    classes, for the terms data_to_data_real and data_to_data_fake.
    """

    num_classes: int
    embedding_dim: int = 512

    @nn.compact
    def __call__(self, features: jax.Array, labels: jax.Array) -> Output:
        features = features.astype(jnp.float32)
        logits = nn.Dense(1, kernel_init=glorot_uniform)(features)[:, 0]
        embeddings = nn.Dense(self.embedding_dim, kernel_init=glorot_uniform)(features)
        proxies = nn.Embed(self.num_classes, self.embedding_dim, embedding_init=glorot_uniform)(labels)
        return Output(logits, {"embeddings": _unit(embeddings), "proxies": _unit(proxies)})


def _unit(vectors: jax.Array) -> jax.Array:
    """Each of [N, F] at length 1; the root's slope is infinite at 0."""
    return vectors * jax.lax.rsqrt(jnp.sum(jnp.square(vectors), axis=-1, keepdims=True) + 1e-12)
