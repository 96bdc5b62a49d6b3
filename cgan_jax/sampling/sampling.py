"""Images from the averaged generator. Image i depends on (seed, class, i) alone."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh, SingleDeviceSharding

from cgan_jax import compilation, parallel
from cgan_jax import recipe as recipes
from cgan_jax.build import Algorithm, build
from cgan_jax.data.batches import to_uint8, whole_batches
from cgan_jax.errors import UsageError
from cgan_jax.losses.terms import boundary_of
from cgan_jax.parallel import make_mesh, per_sample, replicated
from cgan_jax.sampling import grids, standing_statistics, trained
from cgan_jax.sampling.request import spread
from cgan_jax.train_state import Tree

_ROWS, _COLUMNS, _UNCONDITIONAL_SIDE = 20, 10, 5
_SAMPLES, _AGAIN, _STANDING = 0x5A3B1E5, 0x5A3B1E6, 0x5A3B1E7
BATCH_STATS = ("ema", "standing")


def latents_for(
    seed: jax.Array,
    labels: jax.Array,
    indices: jax.Array,
    latent_dim: int,
    truncation: float | jax.Array | None = None,
) -> jax.Array:
    """The latents of image `indices[j]` of class `labels[j]`: int32 [N] each -> float32 [N, latent_dim], normal.

    With a `truncation`, coordinates outside of +-truncation are drawn again until they are inside (Brock, Donahue &
    Simonyan 2019, section 3.1); the others do not change. The result of many draws has the normal distribution cut at
    +-truncation, so one draw from that is enough.
    """
    # Training draws other numbers from the same seed.
    samples_key = jax.random.fold_in(jax.random.key(seed, impl=parallel.PRNG), _SAMPLES)

    def latent(label, index):
        key = jax.random.fold_in(jax.random.fold_in(samples_key, label), index)
        first = jax.random.normal(key, (latent_dim,))
        if truncation is None:
            return first
        again = jax.random.truncated_normal(jax.random.fold_in(key, _AGAIN), -truncation, truncation, (latent_dim,))
        return jax.numpy.where(jax.numpy.abs(first) <= truncation, first, again)

    return jax.vmap(latent)(labels, indices)


def truncated(variables: Tree, truncation: float | jax.Array | None) -> tuple[Tree, float | jax.Array | None]:
    """The variables, and the truncation of latents. A generator that truncates by itself has a variable for it.

    Then latents have none. Its collection is "truncation".
    """
    if truncation is None or "truncation" not in variables:
        return variables, truncation
    set_to = jax.tree.map(lambda share: jax.numpy.full_like(share, truncation), variables["truncation"])
    return {**variables, "truncation": set_to}, None


def make_sampler(
    generator: nn.Module, truncation: float | None = None, mesh: Mesh | None = None
) -> Callable[..., jax.Array]:
    """(variables, seed, labels int32 [N], indices int32 [N]) -> images uint8 [N, H, W, C], compiled per N.

    Over a mesh, every device draws N / devices images; N is a multiple of the number of devices.
    """

    def images(given: tuple[Tree, jax.Array], places: tuple[jax.Array, jax.Array]) -> jax.Array:
        (variables, seed), (labels, indices) = given, places
        latents = latents_for(seed, labels, indices, generator.latent_dim, truncation)
        return to_uint8(generator.apply(variables, latents, labels, train=False))

    compiled = compilation.jit(images) if mesh is None else per_sample(images, mesh)
    return lambda variables, seed, labels, indices: compiled((variables, seed), (labels, indices))


class Sampler:
    """The averaged generator of a trained model on all devices, ready to draw images."""

    def __init__(
        self,
        place: Path,
        step: int | str | None = None,
        batch_size: int = 64,
        truncation: float | None = None,
        batch_stats: str = "ema",
        ema: float | str | None = None,
    ):
        """Restores `step`, the "best", or the latest, from a run, a packed model or a file of cgan export.

        `ema` chooses among the averages of a run, as in trained.load. With `batch_stats` "standing" the generator
        normalises by statistics of batches that it draws itself, instead of the averaged running statistics. Raises
        UsageError if there is no such step or average, or no batch normalisation.
        """
        self._place, self._batch_size, self._mesh = place, batch_size, make_mesh()
        self.truncation = truncation
        loaded = trained.load(place, step, replicated(self._mesh), ema)
        self.info, self.step, self.generator, self.variables, self.average, self.batch_stats = loaded
        self.variables, self._truncation = truncated(self.variables, truncation)
        if batch_stats == "standing":
            self.variables, self.batch_stats = self._standing(), batch_stats
        self._sampler = make_sampler(self.generator, self._truncation, self._mesh)

    def _standing(self) -> Tree:
        """The variables with standing statistics, measured on latents that no image of a small number has."""
        name = self.info.recipe["architecture"]
        if isinstance(self.generator, trained.Program):
            raise UsageError(f"--batch_stats=standing: {self._place} holds the statistics that it was exported with")
        if standing_statistics.COLLECTION not in self.variables:
            raise UsageError(f"--batch_stats=standing: the generator of {name} has no batch normalisation")
        classes = len(self.info.classes)

        def inputs(start: jax.Array, n: int) -> tuple[jax.Array, jax.Array]:
            indices = start + np.arange(n, dtype=np.int32)
            labels = indices % classes
            seed = np.uint32(self.info.recipe["seed"] ^ _STANDING)
            return latents_for(seed, labels, indices, self.generator.latent_dim, self._truncation), labels

        return jax.device_put(
            standing_statistics.measured(self.generator, self.variables, inputs), replicated(self._mesh)
        )

    @property
    def logged_as(self) -> str:
        """The name of this generator in averages.jsonl; "" if its scores are in evaluations.jsonl."""
        return trained.logged_as(self.average, self.batch_stats)

    def discriminator(self) -> tuple[nn.Module, Tree]:
        """The model's discriminator and its variables at the same step.

        Raises UsageError if the model is without its discriminator.
        """
        algorithm, device = self._algorithm(), SingleDeviceSharding(jax.devices()[0])
        variables = trained.load_discriminator(self._place, self.info, algorithm, self.step, device)
        return algorithm.discriminator, variables

    def boundary(self) -> float:
        """The logit above which an image is real to the discriminator. Raises UsageError if its losses draw no line."""
        updates = self._algorithm().d_updates.values()
        boundary = boundary_of(itertools.chain.from_iterable(updates))
        if boundary is None:
            losses = ", ".join(listed.name for terms in updates for listed in terms)
            raise UsageError(f"a discriminator trained by {losses} draws no line between real and generated images")
        return boundary

    def _algorithm(self) -> Algorithm:
        recipes.check(self.info.recipe)  # drawing alone does not need a complete recipe
        return build(self.info.recipe, trained.spec_of(self.info))

    def latents(self, seed: int, labels: np.ndarray, indices: np.ndarray) -> jax.Array:
        """The latents that the images of (seed, labels int32 [N], indices int32 [N]) are drawn from."""
        return latents_for(np.uint32(seed), labels, indices, self.generator.latent_dim, self._truncation)

    def drawn_from(
        self, latents: np.ndarray, labels: np.ndarray, truncation: float | None = None
    ) -> Iterator[np.ndarray]:
        """The images of latents float32 [N, latent_dim] and labels int32 [N], in batches, uint8 [n, H, W, C] each.

        The `truncation` counts for a generator that truncates by itself; latents are used as they are.
        """
        variables, _ = truncated(self.variables, truncation)
        size = self._batch_size + -self._batch_size % self._mesh.size
        for part, n in whole_batches((latents, labels), size):
            yield np.asarray(self._from_latents(variables, part))[:n]

    @functools.cached_property
    def _from_latents(self) -> Callable[[Tree, tuple[np.ndarray, np.ndarray]], jax.Array]:
        generator = self.generator
        return per_sample(lambda given, part: to_uint8(generator.apply(given, *part, train=False)), self._mesh)

    def images(self, seed: int, labels: np.ndarray, indices: np.ndarray) -> Iterator[np.ndarray]:
        """The images of (seed, labels int32 [N], indices int32 [N]), in batches, uint8 [n, H, W, C] each."""
        size = min(self._batch_size, len(labels))
        size += -size % self._mesh.size
        return draw_images(self._sampler, self.variables, seed, labels, indices, size)


def draw_images(
    sampler: Callable[..., jax.Array],
    variables: Tree,
    seed: int,
    labels: np.ndarray,
    indices: np.ndarray,
    batch_size: int,
) -> Iterator[np.ndarray]:
    """The images of (seed, labels, indices), in batches of at most `batch_size`, uint8 [n, H, W, C] each.

    The devices draw a batch while the caller writes the images of the batch before it.
    """
    ahead = None
    for part, n in whole_batches((labels, indices), batch_size):
        images = sampler(variables, np.uint32(seed), *part)
        if ahead is not None:
            yield np.asarray(ahead[0])[: ahead[1]]
        ahead = images, n
    if ahead is not None:
        yield np.asarray(ahead[0])[: ahead[1]]


def gathered(batches: Iterator[np.ndarray]) -> np.ndarray:
    """All batches as one array."""
    return np.concatenate(list(batches))


def rows_of_samples(
    sampler: Callable[..., jax.Array], variables: Tree, seed: int, class_names: Sequence[str], conditional: bool
) -> tuple[list[np.ndarray], Sequence[str]]:
    """A grid's rows of generated images and their names: 10 of each of the first 20 classes, or 5x5 without names."""
    classes = range(len(class_names[:_ROWS])) if conditional else [0]
    columns = _COLUMNS if conditional else _UNCONDITIONAL_SIDE
    labels, indices = spread(columns * (len(classes) if conditional else columns), list(classes))
    images = gathered(draw_images(sampler, variables, seed, labels, indices, len(labels)))
    return grids.rows_by_class(images, labels, class_names, conditional, columns)


def rows_of_real(
    images: np.ndarray, labels: np.ndarray, class_names: Sequence[str], conditional: bool
) -> tuple[list[np.ndarray], Sequence[str]]:
    """The first images of each class, or of the whole set, in the layout of `rows_of_samples`."""
    if not conditional:
        first = images[: _UNCONDITIONAL_SIDE**2]
        return grids.rows_by_class(first, np.zeros(len(first), int), class_names, False, _UNCONDITIONAL_SIDE)
    first = np.concatenate([np.flatnonzero(labels == label)[:_COLUMNS] for label in range(len(class_names[:_ROWS]))])
    return grids.rows_by_class(images[first], labels[first], class_names, True, _COLUMNS)
