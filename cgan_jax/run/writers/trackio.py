"""trackio, on this machine unless $TRACKIO_SPACE_ID names a Space; `trackio show` opens it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


class Writer:
    """A run of the project cgan_jax. A resumed run goes on in it."""

    def __init__(self, folder: Path, name: str):
        import trackio

        self._trackio = trackio
        space = os.environ.get("TRACKIO_SPACE_ID")
        self._run = trackio.init(project="cgan_jax", name=name, space_id=space, resume="allow", embed=False)

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        self._run.log(dict(scalars), step=step)

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Images uint8 [N, H, W, C] each, of which the first is shown."""
        shown = {tag: self._trackio.Image(_coloured(batch[0])) for tag, batch in images.items()}
        self._run.log(shown, step=step)

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        self._run.config.update(hparams)

    def flush(self) -> None:
        """trackio writes by itself, every half second."""

    def close(self) -> None:
        self._run.finish()


def _coloured(image: np.ndarray) -> np.ndarray:
    """[H, W, 1 or 3] -> [H, W, 3]."""
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
