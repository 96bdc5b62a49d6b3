"""A trained generator as the bytes of one portable file, or packed into a folder."""

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from cgan_jax import __version__, exported
from cgan_jax.data.batches import to_uint8
from cgan_jax.errors import UsageError
from cgan_jax.networks.anatomy import named
from cgan_jax.run import packed
from cgan_jax.sampling import card, sampling, trained
from cgan_jax.sampling.request import spread

_PLATFORMS = ("cpu", "cuda", "tpu")
_MOST_WITH_DISCRIMINATOR = 3_000_000  # bytes
_MOST_OFF_BY, _COMPARED = 2, 200


def content(sampler: sampling.Sampler, place: Path, format_name: str) -> bytes:
    """A file of the format "cgan", a model to draw from, or "safetensors", the averaged weights by layer."""
    weights = {name: np.asarray(array) for name, array in named(sampler.variables).items()}
    metadata = {
        **card.origin(place, sampler),
        "info": packed.portable(sampler.info)._asdict(),
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


def pack(sampler: sampling.Sampler, run: Path, out: Path) -> str:
    """Writes the generator of a run, and its discriminator if both are small, into the folder `out` as a packed model.

    Returns in words what was written. Raises UsageError if half precision changes an image by more than 2 grey levels.
    """
    if trained.is_exported(run) or packed.is_packed(run):
        raise UsageError(f"--format=packed takes the folder of a run, given {run}")
    halves = packed.halved(sampler.variables)
    if (off_by := _difference(sampler, halves)) > _MOST_OFF_BY:
        raise UsageError(f"half precision changes images by {off_by} of 255 levels, more than {_MOST_OFF_BY}")
    held, weights = "both networks", packed.pack_weights(halves, packed.halved(sampler.discriminator()[1]))
    if len(weights) > _MOST_WITH_DISCRIMINATOR:
        held, weights = "the generator alone", packed.pack_weights(halves, None)
    made_by = f"cgan_jax {__version__}, jax {jax.__version__}"
    card = packed.Card(sampler.step, hashlib.sha256(weights).hexdigest(), off_by, made_by)
    packed.write(out, run, sampler.info, card, weights)
    return f"{held}, {len(weights) / 1e6:.2f} MB; half precision changes images by at most {off_by} of 255 levels"


def _difference(sampler: sampling.Sampler, halves: Any) -> int:
    """By how many grey levels images of other weights differ at most from the sampler's own."""
    other = copy.copy(sampler)
    other.variables = jax.tree.map(lambda half, whole: jnp.asarray(half, whole.dtype), halves, sampler.variables)
    labels, indices = spread(_COMPARED, list(range(len(sampler.info.classes))))
    own, others = (sampling.gathered(each.images(0, labels, indices)).astype(int) for each in (sampler, other))
    return int(np.abs(own - others).max())
