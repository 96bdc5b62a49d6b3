"""Made-up labelled images, the same on every machine: for tests, and for throughput without a dataset.

The name says what to make: "classes10_images1024_channels3". Each part may be left out and then has the value shown
here; the empty name takes all three. Each class is a grating of another direction and colour (brightness for one
channel), at one of eight phases, under noise.
"""

import re

import numpy as np

from cgan_jax.data.sources import Dataset, check_count
from cgan_jax.errors import UsageError
from cgan_jax.lookup import unknown

_DEFAULTS = {"classes": 10, "images": 1024, "channels": 3}
_SEEDS = {"train": 0, "test": 1}
_PHASES = 8


def load(name: str, split: str, data_dir: str, image_size: int) -> Dataset:
    """Images uint8 [images, image_size, image_size, channels], labels 0, 1, ..., classes-1, 0, ... in turn.

    `split` is "train" or "test" (as many images, other phases and noise); `data_dir` is not used. Raises UsageError for
    another split, a name that cannot be read, a number below 1 or too large, or channels other than 1 and 3.
    """
    del data_dir
    if split not in _SEEDS:
        raise unknown("split of synthetic", split, _SEEDS)
    if image_size < 1:
        raise UsageError(f"image_size {image_size} is not a size: it must be at least 1")
    wanted = _parse(name)
    num_classes, num_images = wanted["classes"], wanted["images"]
    # Raw words, because NumPy promises that these never change between its versions, and not its distributions.
    bits = np.random.PCG64(_SEEDS[split])
    phases = (bits.random_raw(num_images) % _PHASES).astype(np.int64)
    images = np.empty((num_images, image_size, image_size, wanted["channels"]), np.uint8)
    words_per_image = -(-images[0].size // 8)
    labels = np.arange(num_images, dtype=np.int32) % num_classes
    for c in range(min(num_classes, num_images)):
        of_class = np.flatnonzero(labels == c)
        clean = _gratings(c, num_classes, image_size, wanted["channels"])
        raw = bits.random_raw(len(of_class) * words_per_image).astype("<u8").view(np.uint8)
        noise = raw.reshape(len(of_class), -1)[:, : images[0].size].reshape(-1, *images.shape[1:]) & 31
        images[of_class] = clean[phases[of_class]] + noise
    digits = len(str(num_classes - 1))
    return Dataset(images, labels, tuple(f"class_{c:0{digits}d}" for c in range(num_classes)))


def _parse(name: str) -> dict[str, int]:
    """Reads "classes10_images1024_channels3"."""
    wanted = dict(_DEFAULTS)
    for part in name.split("_") if name else ():
        match = re.fullmatch(r"([a-z]+)(\d{1,18})", part)
        if not match or match[1] not in _DEFAULTS or int(match[2]) < 1:
            example = "_".join(f"{key}{value}" for key, value in _DEFAULTS.items())
            raise UsageError(f"cannot read {part!r} in the synthetic dataset's name {name!r}; an example: {example}")
        wanted[match[1]] = int(match[2])
    check_count(wanted["classes"], f"the synthetic dataset {name!r}")
    if wanted["channels"] not in (1, 3):
        raise UsageError(f"the synthetic dataset {name!r} asks for {wanted['channels']} channels; there are: 1, 3")
    return wanted


def _gratings(c: int, num_classes: int, size: int, channels: int) -> np.ndarray:
    """The clean images of class c at every phase, uint8 [_PHASES, size, size, channels], in 32..222."""
    share = c / num_classes
    y, x = np.mgrid[0:size, 0:size] / size
    along = x * np.cos(np.pi * share) + y * np.sin(np.pi * share)
    phase = np.arange(_PHASES).reshape(-1, 1, 1) / _PHASES
    wave = np.cos(2 * np.pi * (3 * along + phase))[..., np.newaxis]
    colour = np.array([share]) if channels == 1 else 0.5 + 0.5 * np.cos(2 * np.pi * (share + np.arange(3) / 3))
    # The 0.3 keeps values off the integers, because the cosines of two machines may round differently there.
    return (32.3 + 96 * colour + 47 * (1 + wave)).astype(np.uint8)
