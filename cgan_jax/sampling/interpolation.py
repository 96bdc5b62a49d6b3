"""The way from one image to another: between the latents of two seeds, or from one class to another."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cgan_jax import compilation
from cgan_jax.data.batches import to_uint8
from cgan_jax.errors import UsageError
from cgan_jax.run import progress
from cgan_jax.sampling import grids
from cgan_jax.sampling.sampling import Sampler
from cgan_jax.train_state import Tree

_SECONDS_THERE_AND_BACK = 4.0


class End(NamedTuple):
    """What the generator draws the images at one end of the way from."""

    latents: jax.Array
    """float32 [N, L]."""
    labels: jax.Array
    """int32 [N]."""


def frames(
    sampler: Sampler, seeds: tuple[int, int], labels: tuple[np.ndarray, np.ndarray], indices: np.ndarray, steps: int
) -> Iterator[np.ndarray]:
    """Images uint8 [N, H, W, C] in `steps` equal steps from (first seed, first labels [N]) to the second.

    Between two labels the latents are those of the first, so that nothing but the class changes.
    """
    first, second = (End(sampler.latents(seed, labels[0], indices), of) for seed, of in zip(seeds, labels, strict=True))
    draw = make_drawer(sampler.generator, mixed=not np.array_equal(*labels))
    for weight in np.linspace(0, 1, steps, dtype=np.float32):
        yield np.asarray(draw(sampler.variables, first, second, weight))


def write(
    path: Path,
    sampler: Sampler,
    seeds: tuple[int, int],
    labels: tuple[np.ndarray, np.ndarray],
    indices: np.ndarray,
    steps: int,
) -> int:
    """Writes `frames` as a grid (.png), a row per way, or animated (.gif, .webp); returns the number of images."""
    batches = frames(sampler, seeds, labels, indices, steps)
    drawn = np.stack(list(progress.counted(batches, steps * len(indices), "drawing")))
    names = names_of(*labels, sampler.info.classes)
    is_still = path.suffix.lower() == ".png"
    save(path, drawn, names if is_still or np.array_equal(*labels) else [])
    return len(drawn) * len(indices)


def names_of(start: np.ndarray, end: np.ndarray, class_names: Sequence[str]) -> list[str]:
    """What each way between labels int32 [N] shows: "3", or "3 to 7"; nothing without classes."""
    if len(class_names) == 1:
        return []
    pairs = zip(start.tolist(), end.tolist(), strict=True)
    return [class_names[a] if a == b else f"{class_names[a]} to {class_names[b]}" for a, b in pairs]


def save(path: Path, drawn: np.ndarray, names: Sequence[str]) -> None:
    """Writes frames uint8 [F, N, H, W, C] as a grid (.png), a row per way, or animated (.gif, .webp).

    `names` are one for each way, or none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".png":
        grids.save(grids.grid(*grids.rows_of_ways(drawn, names)), path)
    else:
        shown = list(dict.fromkeys(names)) or [""]
        of_way = np.array([shown.index(name) for name in names or [""] * drawn.shape[1]])
        pictures = [grids.grid(*grids.rows_by_class(frame, of_way, shown, bool(names))) for frame in drawn]
        grids.save_animation(pictures, path, _SECONDS_THERE_AND_BACK)


def make_drawer(generator: nn.Module, mixed: bool) -> Callable[..., jax.Array]:
    """(variables, first End, second End, weight) -> images uint8 [N, H, W, C], the first at 0 and the second at 1.

    If `mixed`, labels are interpolated, else those of the first End count. Raises UsageError for a network that has no
    layer of labels alone.
    """

    @compilation.jit
    def draw(variables: Tree, first: End, second: End, weight: jax.Array) -> jax.Array:
        latents = between(first.latents, second.latents, weight)
        if not mixed:
            return to_uint8(generator.apply(variables, latents, first.labels, train=False))
        blend = Blend(second.labels, weight)
        with nn.intercept_methods(blend):
            images = generator.apply(variables, latents, first.labels, train=False)
        if not blend.used:
            raise UsageError("the classes of this architecture cannot be interpolated: it has no layer of labels alone")
        return to_uint8(images)

    return draw


def between(first: jax.Array, second: jax.Array, weight: jax.Array) -> jax.Array:
    """Spherical interpolation of latents [N, L] each, the first at weight 0 (White 2016, section 2.1).

    The middle of a straight line between two normal vectors is shorter than any vector of training.
    """
    lengths = [jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (first, second)]
    cosine = jnp.sum(first * second, axis=-1, keepdims=True) / (lengths[0] * lengths[1])
    angle = jnp.arccos(jnp.clip(cosine, -1, 1))
    curved = (jnp.sin((1 - weight) * angle) * first + jnp.sin(weight * angle) * second) / jnp.sin(angle)
    # Vectors of the same direction have sine 0; then the line is the arc.
    return jnp.where(jnp.sin(angle) < 1e-4, (1 - weight) * first + weight * second, curved)


class Blend:
    """Mixes the outputs for two classes of every layer that reads labels alone, such as an embedding.

    The output is (1 - weight) of that for the network's labels plus `weight` of that for `others` int32 [N].
    """

    def __init__(self, others: jax.Array, weight: jax.Array):
        self.used = False
        self._others, self._weight, self._inside = others, weight, False

    def __call__(self, layer: Callable[..., Any], args: tuple, kwargs: dict, context: Any) -> Any:
        reads_labels = (
            context.method_name == "__call__"
            and len(args) == 1
            and not kwargs
            and isinstance(args[0], jax.Array)
            and args[0].shape == self._others.shape
            and jnp.issubdtype(args[0].dtype, jnp.integer)
        )
        if self._inside or not reads_labels:
            return layer(*args, **kwargs)
        self.used = self._inside = True
        # In one call, because a layer that is called twice has two sets of parameters.
        answers = layer(jnp.concatenate([args[0], self._others]))
        self._inside = False
        own, others = jnp.split(answers, 2)
        return (1 - self._weight) * own + self._weight * others
