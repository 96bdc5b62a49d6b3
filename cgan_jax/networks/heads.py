"""Heads, the last layers of a discriminator: features float [N, F] and labels int32 [N] -> Output.

Heads compute in float32 for every dtype of features. With `spectral_epsilon`, their weights have spectral norm 1.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cgan_jax.lookup import entry_named
from cgan_jax.networks.layers import Dense, Embed, glorot_uniform


class Output(NamedTuple):
    """A discriminator's output for N images."""

    logits: jax.Array
    """float32 [N], unbounded, larger is more real."""
    extras: dict[str, jax.Array]
    """The head's other results, by name; only its terms read them."""


class Unconditional(nn.Module):
    """One dense unit. It ignores the labels, which the discriminator may have read earlier, as a label map."""

    kernel_init: nn.initializers.Initializer = glorot_uniform
    spectral_epsilon: float = 0.0

    @nn.compact
    def __call__(self, features: jax.Array, labels: jax.Array) -> Output:
        features = features.astype(jnp.float32)
        logits = Dense(1, **_options(self))(features)[:, 0]
        return Output(logits, {})


class Projection(nn.Module):
    """A dense unit plus the inner product with the label's embedding (Miyato & Koyama 2018, eq. 6)."""

    num_classes: int
    kernel_init: nn.initializers.Initializer = glorot_uniform
    spectral_epsilon: float = 0.0

    @nn.compact
    def __call__(self, features: jax.Array, labels: jax.Array) -> Output:
        features = features.astype(jnp.float32)
        embedding = Embed(self.num_classes, features.shape[-1], **_options(self))(labels)
        logits = Dense(1, **_options(self))(features)[:, 0]
        return Output(logits + jnp.sum(embedding * features, axis=-1), {})


class AuxiliaryClassifier(nn.Module):
    """A dense unit, and a logit for each class (Odena, Olah & Shlens 2017, section 3). It ignores the labels.

    extras: "class_logits" [N, num_classes], for the terms class_real and class_fake.
    """

    num_classes: int
    kernel_init: nn.initializers.Initializer = glorot_uniform
    spectral_epsilon: float = 0.0

    @nn.compact
    def __call__(self, features: jax.Array, labels: jax.Array) -> Output:
        features = features.astype(jnp.float32)
        logits = Dense(1, **_options(self))(features)[:, 0]
        class_logits = Dense(self.num_classes, **_options(self))(features)
        return Output(logits, {"class_logits": class_logits})


class ClassProxies(nn.Module):
    """A dense unit that ignores the labels, and unit vectors of images and classes (Kang et al. 2021, section 3).

    extras: "embeddings" [N, embedding_dim] of the images and "proxies" [N, embedding_dim] of their classes, for the
    terms data_to_data_real and data_to_data_fake.
    """

    num_classes: int
    embedding_dim: int = 512
    kernel_init: nn.initializers.Initializer = glorot_uniform
    spectral_epsilon: float = 0.0

    @nn.compact
    def __call__(self, features: jax.Array, labels: jax.Array) -> Output:
        features = features.astype(jnp.float32)
        logits = Dense(1, **_options(self))(features)[:, 0]
        embeddings = Dense(self.embedding_dim, **_options(self))(features)
        proxies = Embed(self.num_classes, self.embedding_dim, **_options(self))(labels)
        return Output(logits, {"embeddings": _unit(embeddings), "proxies": _unit(proxies)})


class DiscriminativeClassifier(nn.Module):
    """A dense unit, and for each class a logit of its real and of its generated images (Hou et al. 2022).

    It ignores the labels. extras: "real_fake_class_logits" [N, num_classes, 2], for the terms real_class_real,
    real_class_fake and fake_class_fake.
    """

    num_classes: int
    kernel_init: nn.initializers.Initializer = glorot_uniform
    spectral_epsilon: float = 0.0

    @nn.compact
    def __call__(self, features: jax.Array, labels: jax.Array) -> Output:
        features = features.astype(jnp.float32)
        logits = Dense(1, **_options(self))(features)[:, 0]
        class_logits = Dense(2 * self.num_classes, **_options(self))(features)
        return Output(logits, {"real_fake_class_logits": class_logits.reshape(-1, self.num_classes, 2)})


class ClassDirections(nn.Module):
    """A vector for each class: its direction and all else learn apart (SAN; Takida et al. 2024).

    With h the features, v the class's vector, s its length and w = v / s, the logits are s <h, w>. Their gradient does
    not reach w. extras: "direction_logits" [N], the same numbers, whose gradient reaches w alone; for the terms
    direction_real and direction_fake. Lengths are free for any `spectral_epsilon`.
    """

    num_classes: int
    kernel_init: nn.initializers.Initializer = glorot_uniform
    spectral_epsilon: float = 0.0

    @nn.compact
    def __call__(self, features: jax.Array, labels: jax.Array) -> Output:
        features = features.astype(jnp.float32)
        vectors = Embed(self.num_classes, features.shape[-1], self.kernel_init)(labels)
        directions = _unit(vectors)
        scaled = features * jnp.linalg.norm(vectors, axis=-1, keepdims=True)
        logits = jnp.sum(scaled * jax.lax.stop_gradient(directions), axis=-1)
        direction_logits = jnp.sum(jax.lax.stop_gradient(scaled) * directions, axis=-1)
        return Output(logits, {"direction_logits": direction_logits})


OF_CLASSES = {
    "projection": Projection,
    "auxiliary_classifier": AuxiliaryClassifier,
    "class_proxies": ClassProxies,
    "discriminative_classifier": DiscriminativeClassifier,
    "class_directions": ClassDirections,
}


def make(name: str, num_classes: int, **options: Any) -> nn.Module:
    """The head of that name, or Unconditional if num_classes is 0. Raises UsageError for an unknown name."""
    head = entry_named(OF_CLASSES, name, "head")
    return head(num_classes, **options) if num_classes else Unconditional(**options)


def _options(head: nn.Module) -> dict[str, Any]:
    return {"kernel_init": head.kernel_init, "spectral_epsilon": head.spectral_epsilon}


def _unit(vectors: jax.Array) -> jax.Array:
    """Vectors [N, F] scaled to length 1."""
    # 1e-12: the slope of the root is infinite at 0.
    return vectors * jax.lax.rsqrt(jnp.sum(jnp.square(vectors), axis=-1, keepdims=True) + 1e-12)
