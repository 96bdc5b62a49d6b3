"""The parts of a network: its layers in the order of their calls, and the arrays that hold something for each class.

Arrays have names such as params.Conv_0.kernel: the collection, the layer, and what is inside.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cgan_jax.errors import UsageError


def named(tree: Any, *above: str) -> dict[str, Any]:
    """The leaves of a tree by their path, below the names `above`: params.Dense_0.kernel; in the order of the tree."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {".".join([*above, *(str(step.key) for step in path)]): leaf for path, leaf in leaves}


def class_axes(network: nn.Module) -> dict[str, int]:
    """The arrays with an axis of classes, and which one that is: the axis that is longer with one class more."""
    count = max(1, network.num_classes)
    now, more = (named(_initial(network.clone(num_classes=n))[0]) for n in (count, count + 1))
    pairs = {name: list(zip(leaf.shape, more[name].shape, strict=True)) for name, leaf in now.items() if name in more}
    return {name: axis for name, sides in pairs.items() for axis, (a, b) in enumerate(sides) if a != b}


def has_batch_norm(network: nn.Module) -> bool:
    """Whether a network keeps statistics of batches."""
    return "batch_stats" in _initial(network)[0]


def nearest_to_image(network: nn.Module, player: str, count: int) -> frozenset[str]:
    """The arrays of the `count` layers nearest to the image, without those that hold something for each class.

    The layers are a discriminator's first or a generator's last. Raises UsageError unless one at least is left.
    """
    variables, layers = _initial(network)
    layers = layers if player == "discriminator" else layers[::-1]
    if not 1 <= count < len(layers):
        raise UsageError(
            f"train.freeze takes 1 to {len(layers) - 1} layers of this {player}, from the image on"
            f" ({', '.join(layers[:-1])}), given {count}"
        )
    frozen = {name for name in named(variables) if name.split(".")[1] in layers[:count]}
    return frozenset(frozen - class_axes(network).keys())


def _initial(network: nn.Module) -> tuple[Any, list[str]]:
    """The shapes of a generator's or discriminator's variables, and its layers in the order of their calls."""
    layers: list[str] = []

    def init():
        side = network.image_size
        of_generator = hasattr(network, "latent_dim")
        inputs = jnp.zeros((1, network.latent_dim) if of_generator else (1, side, side, network.channels))
        variables = network.init(jax.random.key(0), inputs, jnp.zeros((1,), jnp.int32), train=False)
        layers.extend(variables["params"])  # jax sorts the names in what eval_shape returns
        return variables

    return jax.eval_shape(init), layers
