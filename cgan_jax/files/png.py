"""Images as PNG files."""

import io

import numpy as np
from PIL import Image


def to_pillow(image: np.ndarray) -> Image.Image:
    """uint8 [H, W, 1] or [H, W, 3] -> a grey or an RGB picture."""
    return Image.fromarray(np.ascontiguousarray(image[:, :, 0] if image.shape[-1] == 1 else image))


def png(image: np.ndarray | Image.Image) -> bytes:
    """A picture, or an image uint8 [H, W, 1 or 3], as a PNG; the same pixels give the same bytes."""
    content = io.BytesIO()
    (image if isinstance(image, Image.Image) else to_pillow(image)).save(content, format="PNG")
    return content.getvalue()
