"""Images from the averaged generator. Image i of (seed, class) hangs on these three numbers alone."""

from collections.abc import Callable, Iterator

import flax.linen as nn
import jax
import numpy as np

from cgan_jax.data import to_uint8
from cgan_jax.train_state import Tree


def latents_for(seed: jax.Array, labels: jax.Array, indices: jax.Array, latent_dim: int) -> jax.Array:
    """The latents of image `indices[j]` of class `labels[j]`: int32 [N] each -> float32 [N, latent_dim], normal."""

    def latent(label, index):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), label), index)
        return jax.random.normal(key, (latent_dim,))

    return jax.vmap(latent)(labels, indices)


def make_sampler(generator: nn.Module) -> Callable[..., jax.Array]:
    """(params, stats, seed, labels int32 [N], indices int32 [N]) -> images uint8 [N, H, W, C], compiled per N."""

    @jax.jit
    def sampler(params: Tree, stats: Tree, seed: jax.Array, labels: jax.Array, indices: jax.Array) -> jax.Array:
        latents = latents_for(seed, labels, indices, generator.latent_dim)
        return to_uint8(generator.apply({"params": params, **stats}, latents, labels, train=False))

    return sampler


def spread(num_images: int, labels: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """`num_images` shared evenly over the labels, the first get the remainder: (labels [N], index within the class [N])."""
    share, rest = divmod(num_images, len(labels))
    counts = [share + (place < rest) for place in range(len(labels))]
    return (
        np.repeat(np.asarray(labels, np.int32), counts),
        np.concatenate([np.arange(count, dtype=np.int32) for count in counts]),
    )


def sample(
    sampler: Callable[..., jax.Array], params: Tree, stats: Tree, seed: int, labels: np.ndarray, indices: np.ndarray, batch_size: int
) -> Iterator[np.ndarray]:
    """The images of (seed, labels, indices), in batches of at most `batch_size`, uint8 [n, H, W, C] each."""
    for start in range(0, len(labels), batch_size):
        part = slice(start, start + batch_size)
        n = len(labels[part])
        # Whole batches only, so that one program serves all.
        fill = (0, min(batch_size, len(labels)) - n)
        images = sampler(params, stats, np.uint32(seed), np.pad(labels[part], fill), np.pad(indices[part], fill))
        yield np.asarray(images)[:n]
