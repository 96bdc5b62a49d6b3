"""The 1,797 handwritten 8x8 digits that scikit-learn carries: a real labelled dataset that needs no download.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998
(its test set, as `sklearn.datasets.load_digits` gives it).
"""

import numpy as np
from sklearn.datasets import load_digits

from cgan_jax.data.sources import Dataset
from cgan_jax.errors import UsageError
from cgan_jax.lookup import unknown

_STORED_SIZE = 8
_STORED_WHITE = 16
_SPLITS = ("all", "train", "test")


def load(name: str, split: str, data_dir: str, image_size: int) -> Dataset:
    """The digits as images uint8 [N, image_size, image_size, 1], each stored pixel repeated to a square block.

    `split` is "all" (1,797 images), "test" (every fifth: number 5, 10, 15, ...) or "train" (the others). `name` and
    `data_dir` are not used. Raises UsageError for another split, or an image_size that is not a multiple of 8.
    """
    del name, data_dir
    if split not in _SPLITS:
        raise unknown("split of digits", split, _SPLITS)
    if image_size < _STORED_SIZE or image_size % _STORED_SIZE:
        raise UsageError(
            f"image_size {image_size} does not suit digits: it must be a multiple of {_STORED_SIZE}, such as 32"
        )
    stored = load_digits()
    grey = np.round(stored.images * (255 / _STORED_WHITE)).astype(np.uint8)  # [N, 8, 8]
    labels = stored.target.astype(np.int32)
    if split != "all":
        is_test = np.arange(len(labels)) % 5 == 4
        kept = is_test if split == "test" else ~is_test
        grey, labels = grey[kept], labels[kept]
    block = image_size // _STORED_SIZE
    images = grey.repeat(block, axis=1).repeat(block, axis=2)[..., np.newaxis]
    return Dataset(images, labels, tuple(str(digit) for digit in range(10)))
