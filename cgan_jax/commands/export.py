"""Put a trained generator into one portable file.

    cgan export --workdir=runs/digits --out=model.cgan
    cgan export --workdir=runs/digits --format=safetensors --out=weights.safetensors

model.cgan holds weights, programs for cpu, cuda and tpu, class names and metrics. Whoever has jax, numpy and
flatbuffers draws from it, with exported.py and errors.py of this package and none of its other code:

    from cgan_jax import exported
    model = exported.load("model.cgan")
    images = model([3, 3, 7], seed=0, truncation=0.7)      # uint8 [3, H, W, C], those of cgan sample

A file that was cut short or altered is refused by its checksum, which shows damage and not origin. With
--format=safetensors the averaged weights alone, by layer, for any tool that reads that format.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from cgan_jax.errors import UsageError
from cgan_jax.files import storage

_PLATFORMS = ("cpu", "cuda", "tpu")


def define_flags(flags: absl_flags.FlagValues, argv: list[str]) -> None:
    absl_flags.DEFINE_string("workdir", None, "The folder of a run.", flag_values=flags)
    absl_flags.DEFINE_string("out", None, "The file to write.", flag_values=flags)
    absl_flags.DEFINE_enum(
        "format", "cgan", ["cgan", "safetensors"], "A model to draw from, or bare weights.", flag_values=flags
    )
    absl_flags.DEFINE_string(
        "step", None, "The checkpoint's generator step, or best; the latest if left out.", flag_values=flags
    )
    absl_flags.DEFINE_enum(
        "batch_stats", "ema", ["ema", "standing"], "Statistics that the generator normalises by.", flag_values=flags
    )
    absl_flags.DEFINE_bool("force", False, "Replace the file if it exists.", flag_values=flags)


def main(flags: absl_flags.FlagValues) -> None:
    if not flags.workdir or not flags.out:
        raise UsageError("both --workdir=FOLDER and --out=FILE are needed (see cgan export --help)")

    import numpy as np

    from cgan_jax import exported
    from cgan_jax.sampling import image_writers, request, sampling

    workdir, out = storage.place(flags.workdir), Path(flags.out)
    image_writers.check_free([out], flags.force)
    step = request.parse_step(flags.step)
    sampler = sampling.Sampler(workdir, step, batch_stats=flags.batch_stats)
    weights = {name: np.asarray(array) for name, array in _named(sampler.variables).items()}
    metadata = _metadata(workdir, sampler, flags.batch_stats)
    if flags.format == "cgan":
        content = exported.packed(_programs(sampler), weights, metadata)
    else:
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in metadata.items()}
        content = exported.pack_arrays(weights, texts)
    storage.make_folder(out.parent)
    storage.write_whole(out, content)
    print(f"wrote step {sampler.step} to {out} ({len(content) / 1e6:.1f} MB)")


def _named(variables: Any) -> dict[str, Any]:
    """The leaves of a tree by their way into it, such as params.Dense_0.kernel, in the order of the tree."""
    import jax

    leaves = jax.tree_util.tree_leaves_with_path(variables)
    return {".".join(str(step.key) for step in path): leaf for path, leaf in leaves}


def _programs(sampler: Any) -> dict[str, bytes]:
    """What makes latents of (seed, labels, indices, truncation) and images of (weights, latents, labels)."""
    import jax
    import jax.numpy as jnp
    from jax import export

    from cgan_jax.data.batches import to_uint8
    from cgan_jax.sampling import sampling

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


def _metadata(run: Path, sampler: Any, batch_stats: str) -> Mapping[str, Any]:
    """What the file says of itself."""
    import jax

    from cgan_jax import __version__
    from cgan_jax.build import images_per_step
    from cgan_jax.sampling import synthesis

    recipe, info = sampler.info.recipe, sampler.info
    size = recipe["dataset"]["image_size"]
    return {
        "architecture": recipe["architecture"],
        "trained_on": f"{recipe['dataset']['name']} {recipe['dataset']['split']}".strip(),
        "step": sampler.step,
        "kimg": round(sampler.step * images_per_step(recipe) / 1000, 6),
        "class_names": info.classes,
        "latent_dim": sampler.generator.latent_dim,
        "image_shape": [size, size, info.channels],
        "batch_stats": batch_stats,
        "metrics": synthesis.metrics_at(run, sampler.step),
        "jax": jax.__version__,
        "cgan_jax": __version__,
    }
