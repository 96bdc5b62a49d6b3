"""Networks that turn images into features, which metrics compare. One file = one network: `load(...) -> Network`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Features(NamedTuple):
    """What a network says of N images."""

    features: jax.Array
    """float32 [N, F], from before the last layer."""
    logits: jax.Array
    """float32 [N, K]."""


class Network(NamedTuple):
    """A trained network and all that a protocol must say about it."""

    name: str
    prefix: str
    """What its metrics are called by first: "" for the original Inception network, "c" for the classifier."""
    weights_sha256: str
    preprocessing: str
    """What happens to an image on its way in, in words."""
    channels: tuple[int, ...]
    """The numbers of channels that it takes."""
    image_size: int | None
    """Pixels a side of the images that it takes; None where any will do."""
    class_names: tuple[str, ...]
    """What its logits stand for; () where that is nothing a generated image is asked for."""
    variables: Any
    extract: Callable[[Any, jax.Array], Features]
    """(variables, images uint8 [N, H, W, C]) -> Features; pure, each image by itself."""
