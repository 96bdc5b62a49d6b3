"""Eleven images of three of four classes, written in shards of four and batches of three."""

from pathlib import Path

import numpy as np

from cgan_jax.lookup import module_named
from cgan_jax.sampling import synthesis
from cgan_jax.sampling.formats import Plan

PLAN = Plan(
    "pets_synthetic", ("cat", "dog", "owl", "tree frog"), *synthesis.interleaved([5, 4, 0, 2]), (4, 4, 3), shard_size=4
)


def image_of(label: int, index: int) -> np.ndarray:
    return np.random.default_rng((label, index)).integers(0, 256, (4, 4, 3), dtype=np.uint8)


def all_images() -> np.ndarray:
    return np.stack([image_of(*pair) for pair in zip(PLAN.labels.tolist(), PLAN.indices.tolist(), strict=True)])


def written(form: str, folder: Path, plan: Plan = PLAN, images: np.ndarray | None = None) -> Path:
    """The folder, with the set in it."""
    module, images = module_named(synthesis.FORMATS, form, "format"), all_images() if images is None else images
    for shard in range(plan.num_shards):
        part = images[plan.places(shard)]
        module.write_shard(folder, plan, shard, (part[start : start + 3] for start in range(0, len(part), 3)))
    module.finish(folder, plan)
    return folder
