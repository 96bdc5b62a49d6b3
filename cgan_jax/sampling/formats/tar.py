"""Tar files of a few thousand images, as WebDataset streams them: cat/000017.png beside cat/000017.cls, the label."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from cgan_jax.sampling.formats import Plan, labelled
from cgan_jax.sampling.grids import png
from cgan_jax.sampling.image_writers import folder_names


def files(plan: Plan) -> list[Path]:
    return [Path(f"{plan.name}-{shard:06d}.tar") for shard in range(plan.num_shards)]


def write_shard(folder: Path, plan: Plan, shard: int, batches: Iterable[np.ndarray]) -> None:
    names = folder_names(plan.class_names)
    with tarfile.open(folder / files(plan)[shard], "w", format=tarfile.USTAR_FORMAT) as tar:
        for batch in labelled(plan, shard, batches):
            for one in batch:
                key = f"{names[one.label]}/{one.index:06d}"
                _add(tar, f"{key}.png", png(one.image))
                _add(tar, f"{key}.cls", str(one.label).encode())


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """A member without date and owner, so that the same images are the same bytes."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def finish(folder: Path, plan: Plan) -> None:
    pass


def loading(plan: Plan) -> str:
    shards = f"{{000000..{plan.num_shards - 1:06d}}}" if plan.num_shards > 1 else "000000"
    urls = f'folder + "/{plan.name}-{shards}.tar"'
    return f'import webdataset\n\ndataset = webdataset.WebDataset({urls}).decode("pil").to_tuple("png", "cls")'
