"""A run without training: its checkpoints hold random numbers, which draw pictures just as well."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from cgan_jax import build, parallel, train_state
from cgan_jax.run import workdir
from cgan_jax.run.checkpoint import Checkpoints


def write_random_run(folder: Path, recipe: dict, class_names: list[str] | None = None, channels: int = 1) -> Path:
    """The folder, with checkpoints at steps 4 and 8 of networks of `recipe`; their averages differ."""
    class_names = [str(digit) for digit in range(10)] if class_names is None else class_names
    spec = build.ImageSpec(recipe["dataset"]["image_size"], channels, len(class_names))
    key = jax.random.key(0, impl=parallel.PRNG)
    shapes = jax.eval_shape(lambda: train_state.create(build.build(recipe, spec), spec, key).replace(key=jnp.zeros(2)))
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    workdir.write_info(folder, workdir.RunInfo(recipe, channels, class_names, 1797))
    checkpoints = Checkpoints(folder)
    for step in (4, 8):
        # Positive, since some are variances.
        state = jax.tree.map(lambda x: jnp.asarray(np.abs(rng.normal(size=x.shape)), x.dtype), shapes)
        average, *others = (
            jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) / 3, x.dtype), shapes.ema_params)
            for _ in range(1 + len(shapes.further))
        )
        named = zip(state.further.items(), others, strict=True)
        further = {name: {**variables, "params": params} for (name, variables), params in named}
        checkpoints.save(state.replace(step=jnp.int32(step), ema_params=average, further=further))
    checkpoints.close()
    return folder
