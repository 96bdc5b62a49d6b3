"""What `cgan serve` draws with: a trained model, as a studio.Model."""

from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from cgan_jax import averages, compilation
from cgan_jax.data.batches import to_uint8
from cgan_jax.files import storage
from cgan_jax.sampling import interpolation, sampling, trained
from cgan_jax.sampling.interpolation import End

_UNTRUNCATED = float("inf")


class Served:
    """The averaged generator of a run, a packed model or a file of `cgan export`.

    The classes of a file cannot be mixed: half-way between two, the one becomes the other.
    """

    def __init__(self, place: Path, step: int | str | None = None, ema: str | None = None):
        """Raises UsageError if there is no such model, step or average."""
        sampler = sampling.Sampler(place, step, ema=ema)
        generator, recipe = sampler.generator, sampler.info.recipe
        self.conditional = recipe["dataset"]["conditional"]
        self.class_names = sampler.info.class_names
        self.about = {
            "model" if trained.is_exported(place) else "run": storage.resolved(place).name,
            "step": sampler.step,
            "generator_weights": averages.described(recipe),
            "architecture": recipe["architecture"],
            "image_size": recipe["dataset"]["image_size"],
            "scores": _of_whole(trained.metrics_at(place, sampler.step, sampler.logged_as)),
        }
        self._variables = sampler.variables
        self._mixes = self.conditional and not isinstance(generator, trained.Program)
        self._between = interpolation.make_drawer(generator, mixed=self._mixes)

        @jax.jit
        def latents(seed, labels, indices, truncation):
            return sampling.latents_for(seed, labels, indices, generator.latent_dim, truncation)

        @compilation.jit
        def images(variables, latents, labels):
            return to_uint8(generator.apply(variables, latents, labels, train=False))

        self._latents, self._images = latents, images

    def images(self, seed: int, labels: np.ndarray, indices: np.ndarray, truncation: float) -> np.ndarray:
        variables, cut = sampling.truncated(self._variables, truncation or None)
        latents = self._latents(np.uint32(seed), labels, indices, np.float32(cut or _UNTRUNCATED))
        return np.asarray(self._images(variables, latents, labels))

    def between(self, start: tuple[int, int], end: tuple[int, int], share: float) -> np.ndarray:
        nearer = (start if share < 0.5 else end)[0]
        ends = []
        for label, seed in (start, end):
            labels = np.array([label if self._mixes else nearer], np.int32)
            indices = np.zeros(1, np.int32)
            # Of the first's class at both ends: where the seeds are one, the class alone changes.
            of_start = np.array([start[0]], np.int32)
            latents = self._latents(np.uint32(seed), of_start, indices, np.float32(_UNTRUNCATED))
            ends.append(End(latents, jnp.asarray(labels)))
        return np.asarray(self._between(self._variables, *ends, np.float32(share)))[0]


def _of_whole(scores: Mapping[str, float]) -> dict[str, float]:
    """Those of all images together: fid is one, fid/cat is of a class. JSON has no word for what is not finite."""
    return {name: float(value) for name, value in scores.items() if "/" not in name and np.isfinite(value)}
