"""Trains the classifier whose features the metrics compare: Muon for its kernels, gradient descent for the rest.

The data and the loss of Jordan (2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", section 3): label smoothing
0.2, shifts (here by up to an eighth of the side), mirror images in alternation. The optimizer and its numbers are those
with which its author later needed fewer epochs (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural
networks").
Image i of epoch e depends on (seed, e, i) alone, so an interrupted training resumes exactly.
"""

import contextlib
import datetime
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import serialization, struct
from tqdm import tqdm

from cgan_jax import compilation
from cgan_jax.data.batches import whole_batches
from cgan_jax.data.sources import Dataset
from cgan_jax.errors import Interrupted, UsageError
from cgan_jax.evaluation.features import classifier
from cgan_jax.files import storage
from cgan_jax.run import signals
from cgan_jax.run.progress import duration

_KERNEL_RATE, _KERNEL_MOMENTUM, _ITERATIONS = 0.24, 0.6, 3
_BIAS_RATE, _HEAD_RATE, _MOMENTUM, _DECAY = 0.053, 0.67, 0.85, 2e-6  # rates and decay for each image of a batch
_WHITENED_FOR = 3 / 8  # of the steps the first layer's bias moves
_SMOOTHING = 0.2
_TESTED_AT_ONCE = 500
_MANY = 10_000  # images: fewer are for a narrower network, in smaller batches
_EPOCHS = 14  # at least
_SHOWN = 30_000  # images at least, some of them many times
_WIDTHS, _NARROW = (64, 192, 192), (32, 64, 64)


class Plan(NamedTuple):
    """How long and how to train."""

    epochs: int
    batch_size: int
    flip: bool
    """Whether a mirror image is of the same class."""
    seed: int

    def steps_per_epoch(self, num_images: int) -> int:
        """Whole batches in an epoch; what does not fill one is left to other epochs."""
        return max(1, num_images // self.batch_size)

    def total_steps(self, num_images: int) -> int:
        return self.epochs * self.steps_per_epoch(num_images)


def plan_for(dataset: Dataset, epochs: int | None, flip: bool, seed: int) -> Plan:
    """What suits a dataset's size: 14 epochs, or up to 200 to show 30,000 images; batches of 2,000, or 128 of few."""
    n = len(dataset.labels)
    return Plan(epochs or min(200, max(_EPOCHS, -(-_SHOWN // n))), 2000 if n >= _MANY else 128, flip, seed)


def held_out(dataset: Dataset) -> tuple[Dataset, Dataset]:
    """The dataset without a tenth of its images, drawn at random, always the same, and that tenth.

    Raises UsageError for fewer than ten images.
    """
    n = len(dataset.labels)
    if n < 10:
        raise UsageError(f"a classifier needs at least 10 images, given {n}")
    parts = np.split(np.random.default_rng(0).permutation(n), [n - n // 10])
    learned, kept = (dataset._replace(images=dataset.images[rows], labels=dataset.labels[rows]) for rows in parts)
    return learned, kept


class ClassifierState(struct.PyTreeNode):
    """All that training changes, arrays only."""

    step: jax.Array
    variables: dict[str, Any]
    opt_state: optax.OptState


def widths_for(num_images: int, image_size: int) -> tuple[int, ...]:
    """The channels of the blocks of a classifier of so many images: narrow for few, and halving until one pixel."""
    return (_WIDTHS if num_images >= _MANY else _NARROW)[: (image_size - 1).bit_length() - 1]


def describe(plan: Plan, dataset: Dataset, name: str) -> classifier.Description:
    """What is known of a classifier of `dataset`, called `name`, before it is trained."""
    return classifier.Description(
        class_names=dataset.class_names,
        image_size=dataset.images.shape[1],
        channels=dataset.images.shape[-1],
        widths=widths_for(len(dataset.labels), dataset.images.shape[1]),
        dataset=f"{name}, {len(dataset.labels)} images",
        accuracy=0.0,
        tested_on="",
        training=f"{plan.epochs} epochs in batches of {plan.batch_size}, seed {plan.seed}",
        mirrored=plan.flip,
    )


def create(description: classifier.Description, plan: Plan, images: np.ndarray) -> ClassifierState:
    """The state before the first step for training images uint8 [N, H, W, C]."""
    variables = classifier.init(description, jax.random.key(plan.seed))
    kernel = variables["fixed"]["_Whitening_0"]["kernel"]
    variables["fixed"]["_Whitening_0"]["kernel"] = jnp.asarray(classifier.whitening(images)).reshape(kernel.shape)
    optimizer = make_optimizer(plan, len(images))
    return ClassifierState(jnp.zeros((), jnp.int32), variables, optimizer.init(variables["params"]))


def fit(
    plan: Plan, network: classifier.Classifier, dataset: Dataset, state: ClassifierState
) -> Iterator[tuple[ClassifierState, jax.Array]]:
    """The state and the loss after every step that is left."""
    optimizer, before = make_optimizer(plan, len(dataset.labels)), jnp.zeros(())
    step = compilation.jit(train_step, static_argnums=(0, 1), donate_argnums=2)
    for images, labels in batches(plan, dataset.images, dataset.labels, int(state.step)):
        state, loss = step(network, optimizer, state, images, labels)
        # One step runs while the host prepares the next. More steps ahead would delay a request to stop.
        before.block_until_ready()
        before = loss
        yield state, loss


def train(
    plan: Plan, description: classifier.Description, dataset: Dataset, kept: Path
) -> tuple[ClassifierState, float]:
    """(the last state, seconds of training). Shows progress: a bar on a terminal, else a line per epoch.

    A signal that asks to stop writes the state to `kept` and raises Interrupted; the same training goes on from there.
    """
    whose = f"{plan} {description}"
    start, before = _read_kept(kept, whose, create(description, plan, dataset.images))
    state, step, began = start, int(start.step), time.monotonic() - before
    per_epoch, total = plan.steps_per_epoch(len(dataset.labels)), plan.total_steps(len(dataset.labels))
    shown = tqdm(total=total, initial=step, unit="step", disable=not sys.stderr.isatty())
    with signals.StopRequest() as stop, shown as bar:
        for state, loss in fit(plan, description.network, dataset, start):
            step += 1
            bar.update()
            if step % 10 == 0:
                bar.set_postfix_str(f"loss {float(loss):.3f}")
            if step % per_epoch == 0 and bar.disable:
                spent = duration(time.monotonic() - began)
                print(f"epoch {step // per_epoch} of {plan.epochs}  loss {float(loss):.3f}  {spent}", flush=True)
            if stop.requested and step < total:
                content = {"whose": whose, "seconds": time.monotonic() - began}
                content["state"] = serialization.to_state_dict(state)
                storage.write_whole(kept, serialization.msgpack_serialize(content))
                raise Interrupted(f"stopped and kept step {step} of {total}; run the same command again to go on")
    return state, time.monotonic() - began


def _read_kept(path: Path, whose: str, start: ClassifierState) -> tuple[ClassifierState, float]:
    """(the state, seconds of training) that an interrupted training kept; (`start`, 0) if it was another training."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = serialization.msgpack_restore(storage.read_bytes(path))
        if kept["whose"] == whose:
            return serialization.from_state_dict(start, kept["state"]), kept["seconds"]
    return start, 0.0


def make_optimizer(plan: Plan, num_images: int) -> optax.GradientTransformation:
    """Muon for the 3x3 kernels, Nesterov's momentum for biases and the last layer; every rate falls to 0 by a line."""
    total, batch = plan.total_steps(num_images), min(plan.batch_size, num_images)

    def descent(rate_per_image: float, share: float = 1.0) -> optax.GradientTransformation:
        # The loss is a mean over the batch. What decays is rate * (_DECAY / rate_per_image) of a step.
        falling = optax.linear_schedule(rate_per_image * batch, 0.0, max(1, round(share * total)))
        decay = optax.add_decayed_weights(_DECAY / rate_per_image)
        return optax.chain(decay, optax.sgd(falling, momentum=_MOMENTUM, nesterov=True))

    kinds = {"_Whitening": descent(_BIAS_RATE, _WHITENED_FOR), "BatchNorm": descent(_BIAS_RATE)}
    kinds |= {"Dense": descent(_HEAD_RATE), "_Conv": muon(optax.linear_schedule(_KERNEL_RATE, 0.0, total))}

    def kind(params: Any) -> Any:
        return {layer: jax.tree.map(lambda _, layer=layer: layer.rpartition("_")[0], params[layer]) for layer in params}

    return optax.multi_transform(kinds, kind)


def muon(rate: optax.Schedule) -> optax.GradientTransformation:
    """Steps of orthogonal matrices (Jordan et al. 2024) for kernels [height, width, inputs, outputs], which are
    brought to the norm sqrt(outputs) before each."""
    matrix = optax.contrib.MuonDimensionNumbers((0, 1, 2), 3)
    orthogonal = optax.contrib.scale_by_muon(
        ns_steps=_ITERATIONS,
        beta=_KERNEL_MOMENTUM,
        weight_dimension_numbers=lambda tree: jax.tree.map(lambda _: matrix, tree),
    )

    def normed(updates: Any, params: Any) -> Any:
        return jax.tree.map(lambda u, p: u + p * (p.shape[-1] ** 0.5 / jnp.linalg.norm(p.ravel()) - 1), updates, params)

    return optax.chain(orthogonal, optax.scale_by_learning_rate(rate), optax.stateless(normed))


def batches(plan: Plan, images: np.ndarray, labels: np.ndarray, step: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(images, labels) of every step from `step` on, shifted and mirrored."""
    per_epoch, reach = plan.steps_per_epoch(len(labels)), furthest(images)
    for epoch in range(step // per_epoch, plan.epochs):
        rng = np.random.default_rng((plan.seed, epoch))
        order = rng.permutation(len(labels))
        shifts = rng.integers(0, 2 * reach + 1, (len(labels), 2))
        # Each image is mirrored in every second epoch, half of them in the first.
        mirrored = np.random.default_rng(plan.seed).random(len(labels)) < 0.5
        mirrored = (mirrored ^ bool(epoch % 2)) & plan.flip
        for place in range(step % per_epoch if epoch == step // per_epoch else 0, per_epoch):
            chosen = order[place * plan.batch_size : (place + 1) * plan.batch_size]
            yield augmented(images[chosen], shifts[chosen], mirrored[chosen]), labels[chosen]


def furthest(images: np.ndarray) -> int:
    """The most pixels that images [N, H, W, C] are shifted by."""
    return images.shape[1] // 8


def augmented(images: np.ndarray, shifts: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, C], mirrored if `mirrored`, shifted by `shifts` - `furthest` pixels, with a reflected border."""
    reach = furthest(images)
    images = np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
    around = ((0, 0), (reach, reach), (reach, reach), (0, 0))
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(images, around, "reflect"), images.shape[1:3], (1, 2))
    shifted = windows[np.arange(len(images)), shifts[:, 0], shifts[:, 1]]  # [N, C, H, W]
    return np.ascontiguousarray(np.moveaxis(shifted, 1, -1))


def loss_of(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Cross-entropy with smoothed labels (Szegedy et al. 2016, section 7), [N]."""
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), _SMOOTHING)
    return optax.softmax_cross_entropy(logits, targets)


def train_step(
    network: classifier.Classifier,
    optimizer: optax.GradientTransformation,
    state: ClassifierState,
    images: jax.Array,
    labels: jax.Array,
) -> tuple[ClassifierState, jax.Array]:
    """One step on images uint8 [N, H, W, C] and labels int32 [N]; also the mean loss before it."""
    params, others = state.variables["params"], {k: v for k, v in state.variables.items() if k != "params"}

    def objective(params: Any) -> tuple[jax.Array, Mapping[str, Any]]:
        (_, logits), moved = network.apply({"params": params, **others}, images, True, mutable=["batch_stats"])
        return jnp.mean(loss_of(logits, labels)), moved

    (loss, moved), gradients = jax.value_and_grad(objective, has_aux=True)(params)
    updates, opt_state = optimizer.update(gradients, state.opt_state, params)
    variables = {**others, **moved, "params": optax.apply_updates(params, updates)}
    return ClassifierState(state.step + 1, variables, opt_state), loss


def predicted(network: classifier.Classifier, variables: Mapping[str, Any], images: np.ndarray) -> np.ndarray:
    """The class that the network gives each of images uint8 [N, H, W, C]: int64 [N]."""
    logits = compilation.jit(lambda variables, images: network.apply(variables, images, False)[1])
    whole = whole_batches((images,), min(_TESTED_AT_ONCE, len(images)))
    return np.argmax(np.concatenate([np.asarray(logits(variables, part))[:n] for (part,), n in whole]), axis=-1)


def finished(
    description: classifier.Description, state: ClassifierState, test: Dataset, test_name: str, seconds: float
) -> tuple[classifier.Description, dict[str, Any]]:
    """The description, with the accuracy on `test`, and the variables, both as they are once written as float16."""
    rounded = jax.tree.map(lambda x: np.asarray(x, np.float16).astype(np.float32), state.variables)
    spent = f"{seconds / 60:.1f} minutes on {os.cpu_count()} cores ({jax.default_backend()}), jax {jax.__version__}"
    return description._replace(
        accuracy=float(np.mean(predicted(description.network, rounded, test.images) == test.labels)),
        tested_on=f"{test_name}, {len(test.labels)} images",
        training=f"{description.training}, {spent}, {datetime.date.today()}",
    ), rounded
