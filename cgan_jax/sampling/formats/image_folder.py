"""A folder per class with a PNG per image, as torchvision's ImageFolder and many others read it: cat/000017.png."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from cgan_jax.sampling.formats import Plan, labelled
from cgan_jax.sampling.grids import png
from cgan_jax.sampling.image_writers import folder_names, image_paths


def files(plan: Plan) -> Iterator[Path]:
    return image_paths(Path(), plan.labels, plan.indices, plan.class_names)


def write_shard(folder: Path, plan: Plan, shard: int, batches: Iterable[np.ndarray]) -> None:
    for name in folder_names(plan.class_names):
        (folder / name).mkdir(exist_ok=True)
    places = plan.places(shard)
    paths = image_paths(folder, plan.labels[places], plan.indices[places], plan.class_names)
    for batch in labelled(plan, shard, batches):
        for one in batch:
            next(paths).write_bytes(png(one.image))


def finish(folder: Path, plan: Plan) -> None:
    for name in folder_names(plan.class_names):
        if not any((folder / name).iterdir()):
            (folder / name).rmdir()


def loading(plan: Plan) -> str:
    return (
        "import torchvision\n\ndataset = torchvision.datasets.ImageFolder(folder)  # its classes are the sorted folders"
    )
