"""How the discriminator looks at the batches of one update: augmented, with dropout, in as few calls as it allows."""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cgan_jax.augment import Augment
from cgan_jax.data.batches import Batch
from cgan_jax.losses.terms import Batches
from cgan_jax.networks.heads import Output

Tree = Any


class Look(NamedTuple):
    """A discriminator and the random keys with which it looks at images in one update."""

    discriminator: nn.Module
    augment: Augment
    dropout_key: jax.Array
    augment_key: jax.Array
    probability: jax.Array | float
    """Of each operation of the augmentation."""

    def outputs(
        self, params: Tree, stats: Tree, batches: Batches, update_stats: bool
    ) -> tuple[dict[str, Output], Tree]:
        """The discriminator's output on each batch, and its statistics, which change only if `update_stats`.

        A discriminator that treats each sample alone is called once, on all batches; another once per batch.
        """
        if not batches:
            return {}, stats
        outputs = {}
        if self.discriminator.couples_samples:
            for number, (name, batch) in enumerate(batches.items()):
                look = self._at_batch(number)
                outputs[name], stats = look._output(params, stats, batch.images, batch.labels, update_stats)
            return outputs, stats
        images, labels = _interleaved(list(batches.values()))
        output, stats = self._output(params, stats, images, labels, update_stats)
        for number, name in enumerate(batches):
            of_batch = slice(number, None, len(batches))
            outputs[name] = jax.tree.map(operator.itemgetter(of_batch), output)
        return outputs, stats

    def discriminate(self, params: Tree, stats: Tree) -> Callable[[jax.Array, jax.Array], Output]:
        """(images, labels) -> Output, with the parameters bound; the statistics do not change."""

        def discriminate(images: jax.Array, labels: jax.Array) -> Output:
            output, _ = self._output(params, stats, images, labels, update_stats=False)
            return output

        return discriminate

    def _at_batch(self, number: int) -> "Look":
        """The look with other keys, for batch `number` of several that are evaluated one by one."""
        dropout_key = jax.random.fold_in(self.dropout_key, number)
        augment_key = jax.random.fold_in(self.augment_key, number)
        return self._replace(dropout_key=dropout_key, augment_key=augment_key)

    def _output(
        self, params: Tree, stats: Tree, images: jax.Array, labels: jax.Array, update_stats: bool
    ) -> tuple[Output, Tree]:
        images = self.augment(self.augment_key, images, self.probability)
        output, updated = self.discriminator.apply(
            {"params": params, **stats},
            images,
            labels,
            train=True,
            rngs={"dropout": self.dropout_key},
            mutable=list(stats) if update_stats else [],
        )
        return output, dict(updated) if update_stats else stats


def _interleaved(batches: list[Batch]) -> tuple[jax.Array, jax.Array]:
    """The images and labels of several batches of one size, sample by sample.

    In this order the index of a sample in the global batch, which decides its dropout mask, does not depend on the
    number of replicas. With one batch after the other it would.
    """
    images = jnp.stack([batch.images for batch in batches], axis=1)
    labels = jnp.stack([batch.labels for batch in batches], axis=1)
    return images.reshape(-1, *images.shape[2:]), labels.reshape(-1)
