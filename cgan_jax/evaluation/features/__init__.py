"""Networks that turn images into features, which metrics compare. One file = one network: `load(...) -> Network`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Features(NamedTuple):
    """The outputs of a network for N images."""

    features: jax.Array
    """float32 [N, F], from before the last layer."""
    logits: jax.Array
    """float32 [N, K]."""


class Network(NamedTuple):
    """A trained network and all that a protocol says about it."""

    name: str
    prefix: str
    """What its metrics are called by first: "" for the original Inception network, "c" for the classifier."""
    weights_sha256: str
    preprocessing: str
    """How images are prepared for it, in words."""
    channels: tuple[int, ...]
    """The numbers of channels that it takes."""
    image_size: int | None
    """Pixels a side of the images that it takes; None if it takes any size."""
    class_names: tuple[str, ...]
    """What its logits stand for; () if they are no classes of a dataset."""
    variables: Any
    extract: Callable[[Any, jax.Array], Features]
    """(variables, images uint8 [N, H, W, C]) -> Features; pure, each image by itself."""
