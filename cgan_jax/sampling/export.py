"""A trained generator as the bytes of one portable file."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from cgan_jax import __version__, exported
from cgan_jax.data.batches import to_uint8
from cgan_jax.sampling import card, sampling

_PLATFORMS = ("cpu", "cuda", "tpu")


def content(sampler: sampling.Sampler, run: Path, batch_stats: str, format_name: str) -> bytes:
    """A file of the format "cgan", a model to draw from, or "safetensors", the averaged weights by layer."""
    weights = {name: np.asarray(array) for name, array in _named(sampler.variables).items()}
    metadata = {
        **card.origin(run, sampler.info, sampler.step, batch_stats),
        "class_names": sampler.info.classes,
        "latent_dim": sampler.generator.latent_dim,
        "jax": jax.__version__,
        "cgan_jax": __version__,
    }
    del metadata["run"]  # a path of this machine
    if format_name == "cgan":
        return exported.packed(_programs(sampler), weights, metadata)
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in metadata.items()}
    return exported.pack_arrays(weights, texts)


def _named(variables: Any) -> dict[str, Any]:
    """The leaves of a tree by their path, such as params.Dense_0.kernel, in the order of the tree."""
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    return {".".join(str(step.key) for step in path): leaf for path, leaf in leaves}


def _programs(sampler: sampling.Sampler) -> dict[str, bytes]:
    """The programs (seed, labels, indices, truncation) -> latents and (weights, latents, labels) -> images."""
    generator = sampler.generator
    leaves, tree = jax.tree.flatten(sampler.variables)

    def latents(seed: jax.Array, labels: jax.Array, indices: jax.Array, truncation: jax.Array) -> jax.Array:
        return sampling.latents_for(seed, labels, indices, generator.latent_dim, truncation)

    def images(weights: list[jax.Array], latents: jax.Array, labels: jax.Array) -> jax.Array:
        return to_uint8(generator.apply(jax.tree.unflatten(tree, weights), latents, labels, train=False))

    (n,) = export.symbolic_shape("n")
    whole, some = jax.ShapeDtypeStruct((n,), jnp.int32), jax.ShapeDtypeStruct((), jnp.float32)
    shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
    given = {
        "latents": (latents, (jax.ShapeDtypeStruct((), jnp.uint32), whole, whole, some)),
        "images": (images, (shapes, jax.ShapeDtypeStruct((n, generator.latent_dim), jnp.float32), whole)),
    }
    return {
        name: bytes(export.export(jax.jit(function), platforms=_PLATFORMS)(*arguments).serialize())
        for name, (function, arguments) in given.items()
    }
