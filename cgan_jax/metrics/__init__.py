"""Measures of generated images. One file here = one metric:

    READS = ("features",)                            what of a Sample it looks at besides the labels
    compute(fake, real, class_names) -> {name: number}

A name with a slash is a part of the whole, e.g. `pixel_mse/cat`. An unconditional run has a single class, "all".
"""

from typing import NamedTuple

import numpy as np


class Sample(NamedTuple):
    """N images as a metric sees them; what the metric does not read may be absent."""

    labels: np.ndarray
    """int32 [N]."""
    images: np.ndarray | None = None
    """uint8 [N, H, W, C]."""
    features: np.ndarray | None = None
    """float32 [N, F]."""
    logits: np.ndarray | None = None
    """float32 [N, K]."""
