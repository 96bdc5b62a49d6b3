"""Images as PNG files."""

import io

import numpy as np
from PIL import Image


def to_pillow(image: np.ndarray) -> Image.Image:
    """uint8 [H, W, 1, 3 or 4] -> a grey, an RGB or an RGBA picture."""
    return Image.fromarray(np.ascontiguousarray(image[:, :, 0] if image.shape[-1] == 1 else image))


def png(image: np.ndarray | Image.Image) -> bytes:
    """A picture, or an image uint8 [H, W, 1, 3 or 4], as a PNG; the same pixels give the same bytes."""
    content = io.BytesIO()
    (image if isinstance(image, Image.Image) else to_pillow(image)).save(content, format="PNG")
    return content.getvalue()
