"""MLflow, in FOLDER/mlflow.db and FOLDER/mlartifacts unless $MLFLOW_TRACKING_URI names a server.

`mlflow ui --backend-store-uri sqlite:///FOLDER/mlflow.db` shows it.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_LONGEST = 500  # characters of a parameter, which older servers take


class Writer:
    """A run of the experiment cgan_jax. A resumed run goes on in it."""

    def __init__(self, folder: Path, name: str):
        from mlflow import MlflowClient

        uri = os.environ.get("MLFLOW_TRACKING_URI")
        self._client = MlflowClient(uri or f"sqlite:///{folder.absolute() / 'mlflow.db'}")
        experiment = self._client.get_experiment_by_name("cgan_jax")
        place = None if uri else (folder / "mlartifacts").absolute().as_uri()
        number = experiment.experiment_id if experiment else self._client.create_experiment("cgan_jax", place)
        found = [run for run in self._client.search_runs([number]) if run.info.run_name == name]
        self._run = (found or [self._client.create_run(number, run_name=name)])[0].info.run_id

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self._client.log_batch(self._run, [Metric(tag, float(value), now, step) for tag, value in scalars.items()])

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Images uint8 [N, H, W, C] each, of which the first is stored."""
        for tag, batch in images.items():
            self._client.log_image(self._run, Image.fromarray(batch[0].squeeze()), key=tag, step=step)

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        known = self._client.get_run(self._run).data.params  # a parameter is written once
        for name, value in hparams.items():
            if name not in known:
                self._client.log_param(self._run, name, str(value)[:_LONGEST])

    def flush(self) -> None:
        """Each call is written when it returns."""

    def close(self) -> None:
        self._client.set_terminated(self._run)
