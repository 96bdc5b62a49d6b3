"""Trains the fixed network of cgan_jax/networks/pretrained.py on the training images of CIFAR-10, and writes it.

    python -m benchmarks.pretrain --epochs=8 --out=pretrained.npz

Label smoothing of 0.1, mirror images, and for half of the images each operation of augment.policy. Nesterov's momentum
and weight decay; the rate rises for a fifth of the training and falls to 0. Tested with the weights as they are stored.
"""

import argparse
import functools
import time
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from cgan_jax import augment
from cgan_jax.data import sources
from cgan_jax.data.sources import Dataset
from cgan_jax.networks import convolution
from cgan_jax.networks.pretrained import LAYERS, feature_maps

_EPSILON, _BATCH, _PEAK, _DECAY = 1e-5, 128, 0.2, 5e-4
_AUGMENT = augment.from_recipe({"policy": "color,translation,cutout", "probability": 0.5})


class Trained(nn.Module):
    """The network before its batch normalisation is folded: images [N, H, W, 3] in [-1, 1] -> logits [N, classes]."""

    num_classes: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for i, layer in enumerate(LAYERS):
            kernel = self.param(f"kernel{i}", nn.initializers.he_normal(), (3, 3, x.shape[-1], layer.features))
            norm = nn.BatchNorm(not train, momentum=0.95, epsilon=_EPSILON, name=f"norm{i}")
            x = nn.relu(norm(convolution.conv(x, kernel, layer.stride)))
        return nn.Dense(self.num_classes, name="classes")(jnp.mean(x, axis=(1, 2)))


def folded(variables: Any) -> list[tuple[jax.Array, jax.Array]]:
    """(kernel, bias) of each layer with its normalisation inside."""
    pairs = []
    for i in range(len(LAYERS)):
        params, stats = variables["params"][f"norm{i}"], variables["batch_stats"][f"norm{i}"]
        factor = params["scale"] / jnp.sqrt(stats["var"] + _EPSILON)
        pairs.append((variables["params"][f"kernel{i}"] * factor, params["bias"] - stats["mean"] * factor))
    return pairs


@functools.partial(jax.jit, static_argnums=(0, 1))
def step(network: Trained, optimizer: optax.GradientTransformation, variables, opt_state, key, images, labels):
    """(variables, the optimizer's state, the loss) after a step on images uint8 [N, H, W, 3] and labels [N]."""
    flip_key, augment_key = jax.random.split(key)
    images = images / 127.5 - 1
    mirrored = jax.random.bernoulli(flip_key, 0.5, (len(images), 1, 1, 1))
    images = _AUGMENT(augment_key, jnp.where(mirrored, images[:, :, ::-1], images), 0.0)

    def loss(params):
        logits, updated = network.apply({**variables, "params": params}, images, True, mutable=["batch_stats"])
        targets = optax.smooth_labels(jax.nn.one_hot(labels, network.num_classes), 0.1)
        return jnp.mean(optax.softmax_cross_entropy(logits, targets)), updated

    (value, updated), gradients = jax.value_and_grad(loss, has_aux=True)(variables["params"])
    updates, opt_state = optimizer.update(gradients, opt_state, variables["params"])
    return {**updated, "params": optax.apply_updates(variables["params"], updates)}, opt_state, value


@jax.jit
def right(weights, classes, images, labels) -> jax.Array:
    """How many of the images uint8 [N, H, W, 3] the folded network names correctly."""
    features = jnp.mean(feature_maps(weights, images / 127.5 - 1)[-1], axis=(1, 2))
    return jnp.sum(jnp.argmax(features @ classes["kernel"] + classes["bias"], axis=-1) == labels)


def train(dataset: Dataset, epochs: int, seed: int) -> Any:
    """The variables after so many epochs. Prints the loss."""
    network, steps = Trained(len(dataset.class_names)), len(dataset.labels) // _BATCH
    rate = optax.cosine_onecycle_schedule(epochs * steps, _PEAK, 0.2)
    optimizer = optax.chain(optax.add_decayed_weights(_DECAY), optax.sgd(rate, 0.9, nesterov=True))
    variables = jax.jit(network.init, static_argnums=2)(jax.random.key(seed), jnp.zeros((1, 32, 32, 3)), True)
    opt_state, key, began = optimizer.init(variables["params"]), jax.random.key(seed + 1), time.monotonic()
    for epoch in range(epochs):
        order = np.random.default_rng((seed, epoch)).permutation(len(dataset.labels))
        for i in range(steps):
            chosen = order[i * _BATCH : (i + 1) * _BATCH]
            key, step_key = jax.random.split(key)
            batch = dataset.images[chosen], dataset.labels[chosen]
            variables, opt_state, loss = step(network, optimizer, variables, opt_state, step_key, *batch)
            if i % 50 == 0:
                spent = time.monotonic() - began
                print(f"epoch {epoch + 1} of {epochs}  step {i}  loss {float(loss):.3f}  {spent:.0f} s", flush=True)
    return variables


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("pretrained.npz"))
    given = parser.parse_args()
    dataset, test = (sources.load("tfds", "cifar10", split, "", 32) for split in ("train", "test"))
    variables = train(dataset, given.epochs, given.seed)
    half = [tuple(np.asarray(array, np.float16) for array in pair) for pair in folded(variables)]
    names = {f"kernel{i}": kernel for i, (kernel, _) in enumerate(half)}
    np.savez_compressed(given.out, **names, **{f"bias{i}": bias for i, (_, bias) in enumerate(half)})
    stored = [tuple(array.astype(np.float32) for array in pair) for pair in half]
    parts = [slice(i, i + 500) for i in range(0, len(test.labels), 500)]
    count = sum(int(right(stored, variables["params"]["classes"], test.images[p], test.labels[p])) for p in parts)
    print(f"wrote {given.out}: {count / len(test.labels):.2%} of the {len(test.labels)} test images are right")


if __name__ == "__main__":
    main()
