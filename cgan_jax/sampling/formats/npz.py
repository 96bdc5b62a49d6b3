"""One NumPy archive: images uint8 [N, H, W, C], labels int32 [N], class_names."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from cgan_jax.sampling.formats import Plan
from cgan_jax.sampling.image_writers import write_npz

_ARCHIVE, _PIXELS = "images.npz", "pixels.npy"


def files(plan: Plan) -> list[Path]:
    return [Path(_ARCHIVE)]


def write_shard(folder: Path, plan: Plan, shard: int, batches: Iterable[np.ndarray]) -> None:
    path, shape = folder / _PIXELS, (len(plan.labels), *plan.image_shape)
    mode = "r+" if path.exists() and shard else "w+"
    # Mapped into memory, since an archive cannot be continued and a million images do not fit.
    pixels = np.lib.format.open_memmap(path, mode, np.uint8, shape)
    place = plan.places(shard).start
    for batch in batches:
        pixels[place : place + len(batch)] = batch
        place += len(batch)
    pixels.flush()


def finish(folder: Path, plan: Plan) -> None:
    if (folder / _PIXELS).exists():
        write_npz(folder / _ARCHIVE, np.load(folder / _PIXELS, mmap_mode="r"), plan.labels, plan.class_names)
        (folder / _PIXELS).unlink()


def loading(plan: Plan) -> str:
    return (
        f'import numpy as np\n\nwith np.load(folder + "/{_ARCHIVE}") as archive:\n'
        '    images, labels, class_names = (archive[name] for name in ("images", "labels", "class_names"))'
    )
