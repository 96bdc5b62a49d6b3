"""Weights & Biases, offline unless $WANDB_MODE says otherwise; `wandb sync FOLDER/wandb/offline-run-*` uploads."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


class Writer:
    """A run of the project cgan_jax. A resumed run has the same id."""

    def __init__(self, folder: Path, name: str):
        import wandb

        self._wandb = wandb
        self._run = wandb.init(
            project="cgan_jax",
            name=name,
            id=hashlib.sha256(name.encode()).hexdigest()[:16],
            dir=str(folder),
            mode=os.environ.get("WANDB_MODE", "offline"),
            resume="allow",
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._run.define_metric("*", step_metric="kimg")

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        self._run.log(dict(scalars), step=step)

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Images uint8 [N, H, W, C] each."""
        self._run.log({tag: [self._wandb.Image(image) for image in batch] for tag, batch in images.items()}, step=step)

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        self._run.config.update(dict(hparams), allow_val_change=True)

    def flush(self) -> None:
        """wandb writes by itself."""

    def close(self) -> None:
        self._run.finish()
