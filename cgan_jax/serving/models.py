"""What `cgan serve` draws with: a run's averaged generator, or a model that was exported. Both are a studio.Model."""

from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from cgan_jax import exported
from cgan_jax.data.batches import to_uint8
from cgan_jax.files import storage
from cgan_jax.names import printable
from cgan_jax.run import workdir
from cgan_jax.sampling import interpolation, sampling
from cgan_jax.sampling.interpolation import End

_UNTRUNCATED = float("inf")


class RunModel:
    """A run's averaged generator at a step."""

    def __init__(self, run: Path, step: int | str | None):
        """Raises UsageError where there is no such run or step."""
        sampler = sampling.Sampler(run, step)
        generator, recipe = sampler.generator, sampler.info.recipe
        self.conditional = recipe["dataset"]["conditional"]
        self.class_names = sampler.info.class_names
        self.about = {
            "run": storage.resolved(run).name,
            "step": sampler.step,
            "architecture": recipe["architecture"],
            "image_size": recipe["dataset"]["image_size"],
            "scores": _scores(run, sampler.step),
        }
        self._variables = sampler.variables
        self._between = interpolation.make_drawer(generator, mixed=self.conditional)

        @jax.jit
        def latents(seed, labels, indices, truncation):
            return sampling.latents_for(seed, labels, indices, generator.latent_dim, truncation)

        @jax.jit
        def images(variables, latents, labels):
            return to_uint8(generator.apply(variables, latents, labels, train=False))

        self._latents, self._images = latents, images

    def images(self, seed: int, labels: np.ndarray, indices: np.ndarray, truncation: float) -> np.ndarray:
        latents = self._latents(np.uint32(seed), labels, indices, np.float32(truncation or _UNTRUNCATED))
        return np.asarray(self._images(self._variables, latents, labels))

    def between(self, start: tuple[int, int], end: tuple[int, int], share: float) -> np.ndarray:
        ends = []
        for label, seed in (start, end):
            labels, indices = np.array([label], np.int32), np.zeros(1, np.int32)
            # Of the first's class at both ends: where the seeds are one, the class alone changes.
            of_start = np.array([start[0]], np.int32)
            latents = self._latents(np.uint32(seed), of_start, indices, np.float32(_UNTRUNCATED))
            ends.append(End(latents, jnp.asarray(labels)))
        return np.asarray(self._between(self._variables, *ends, np.float32(share)))[0]


class ExportedModel:
    """A file of `cgan export`. Its classes cannot be mixed: half-way between two, the one becomes the other."""

    def __init__(self, path: Path):
        """Raises UsageError where the file is not what was exported, OSError where it cannot be read."""
        self._model = exported.load(path)
        metadata = self._model.metadata
        self.class_names = [printable(name) for name in self._model.class_names]
        self.conditional = len(self.class_names) > 1
        self.about = {
            "model": path.name,
            **{key: metadata[key] for key in ("step", "architecture")},
            "image_size": self._model.image_shape[0],
            "scores": _of_whole(metadata.get("metrics", {})),
        }

    def images(self, seed: int, labels: np.ndarray, indices: np.ndarray, truncation: float) -> np.ndarray:
        return self._model(labels, seed=seed, indices=indices, truncation=truncation or None)

    def between(self, start: tuple[int, int], end: tuple[int, int], share: float) -> np.ndarray:
        first, second = (self._model.latents([start[0]], seed) for _, seed in (start, end))
        latents = interpolation.between(jnp.asarray(first), jnp.asarray(second), np.float32(share))
        label = (start if share < 0.5 else end)[0]
        return self._model([label], latents=np.asarray(latents))[0]


def _scores(run: Path, step: int) -> dict[str, float]:
    """What evaluations.jsonl says of a step, by the names of the metrics; the latest line where several do."""
    scores: dict[str, float] = {}
    for line in workdir.read_metrics(run, workdir.EVALUATIONS):
        if line.get("step") == step:
            scores |= {name.removeprefix("eval/"): value for name, value in line.items() if name.startswith("eval/")}
    return _of_whole(scores)


def _of_whole(scores: Mapping[str, float]) -> dict[str, float]:
    """Those of all images together: fid is one, fid/cat is of a class. JSON has no word for what is not finite."""
    return {name: float(value) for name, value in scores.items() if "/" not in name and np.isfinite(value)}
