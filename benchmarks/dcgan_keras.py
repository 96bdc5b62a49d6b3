"""The step as a Keras 3 user writes it well on TensorFlow: one tf.function for the whole step. A worker.

Variants: float32; bfloat16 (Keras's policy mixed_bfloat16).

    python -m benchmarks.dcgan_keras --kimg=120 --images=keras.npz

trains on so many thousand images of CIFAR-10 instead, and writes 10,000 generated ones for `python -m benchmarks.board
--images=keras.npz`.
"""

import os
import time

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from benchmarks import worker


def label_map(labels, num_classes, side):
    return layers.Reshape((side, side, 1))(layers.Dense(side * side)(layers.Embedding(num_classes, 50)(labels)))


def classic_generator(latents, labels, num_classes):
    x = layers.LeakyReLU(0.2)(layers.Dense(8 * 8 * 128)(latents))
    x = layers.Reshape((8, 8, 128))(x)
    for _ in range(2):
        x = layers.LeakyReLU(0.2)(layers.Conv2DTranspose(128, 4, 2, "same")(x))
    return layers.Conv2D(3, 8, padding="same", activation="tanh", dtype="float32")(x)


def classic_discriminator(images, labels, num_classes):
    x = images
    for _ in range(2):
        x = layers.LeakyReLU(0.2)(layers.Conv2D(128, 3, 2, "same")(x))
    x = layers.Dropout(worker.DROPOUT)(layers.Flatten()(x))
    return layers.Dense(1, dtype="float32")(x)


def deep_generator(latents, labels, num_classes):
    x = layers.Reshape((4, 4, 256))(layers.Dense(4 * 4 * 256, activation="relu")(latents))
    x = layers.Concatenate()([x, label_map(labels, num_classes, 4)])
    for features in (128, 64, 64):
        x = layers.Conv2DTranspose(features, 7, 2, "same", activation="relu")(x)
    return layers.Conv2D(3, 7, padding="same", activation="tanh", dtype="float32")(x)


def deep_discriminator(images, labels, num_classes):
    x = layers.Concatenate()([images, label_map(labels, num_classes, 32)])
    for features in (64, 128, 256, 512):
        x = layers.LeakyReLU(0.01)(layers.Conv2D(features, 5, 2, "same")(x))
    x = layers.Dropout(worker.DROPOUT)(layers.Flatten()(x))
    return layers.Dense(1, dtype="float32")(x)


NETWORKS = {
    "cifar10_dcgan": (classic_generator, classic_discriminator),
    "cifar10_cgan_deep": (deep_generator, deep_discriminator),
}


def model(network, shape, num_classes):
    """A model of [x, labels], or of x alone if there are no classes."""
    x, labels = keras.Input(shape), keras.Input((), dtype="int32")
    inputs = [x, labels] if num_classes else x
    return keras.Model(inputs, network(x, labels, num_classes))


def make_updates(g, d, plan):
    """The updates: [(network, (images, labels) -> None)]."""
    g_opt, d_opt = (keras.optimizers.Adam(plan.learning_rate, worker.B1, worker.B2, worker.EPSILON) for _ in range(2))
    g_opt.build(g.trainable_variables)
    d_opt.build(d.trainable_variables)
    bce = keras.losses.BinaryCrossentropy(from_logits=True)

    def call(network, x, labels):
        return network([x, labels] if plan.num_classes else x, training=True)

    def fakes(labels):
        return call(g, tf.random.normal((tf.shape(labels)[0], worker.LATENT_DIM)), labels)

    def move(optimizer, network, tape, loss):
        optimizer.apply(tape.gradient(loss, network.trainable_variables), network.trainable_variables)

    def judged(images, labels, target):
        logits = call(d, images, labels)
        return bce(tf.fill(tf.shape(logits), target), logits)

    def real(images, labels):
        with tf.GradientTape() as tape:
            loss = judged(images, labels, 1.0)
        move(d_opt, d, tape, loss)

    def fake(images, labels):
        images = fakes(labels)
        with tf.GradientTape() as tape:
            loss = judged(images, labels, 0.0)
        move(d_opt, d, tape, loss)

    def both(images, labels):
        images, labels = tf.concat([images, fakes(labels)], 0), tf.concat([labels, labels], 0)
        with tf.GradientTape() as tape:
            on_real, on_fake = tf.split(call(d, images, labels), 2)
            loss = bce(tf.ones_like(on_real), on_real) + bce(tf.zeros_like(on_fake), on_fake)
        move(d_opt, d, tape, loss)

    def generate(images, labels):
        labels = tf.tile(labels, [plan.g_batch_size // plan.batch_size])
        with tf.GradientTape() as tape:  # the graph drops the unused gradients of D
            loss = judged(fakes(labels), labels, 1.0)
        move(g_opt, g, tape, loss)

    return [("d", both), ("g", generate)] if plan.together else [("d", real), ("d", fake), ("g", generate)]


def prepared(flags):
    """(generator, discriminator, updates, plan) of the recipe."""
    plan = worker.PLANS[flags.recipe]
    make_generator, make_discriminator = NETWORKS[flags.recipe]
    g = model(make_generator, (worker.LATENT_DIM,), plan.num_classes)
    d = model(make_discriminator, (32, 32, 3), plan.num_classes)
    return g, d, make_updates(g, d, plan), plan


def whole_step(updates):
    @tf.function
    def train_step(images, labels):
        for _, update in updates:
            update(images, labels)

    return train_step


def drawn(g, plan, seed, times):
    """uint8 [times, 32, 32, 3], and their classes."""
    latents = np.random.default_rng(seed).normal(size=(times, worker.LATENT_DIM)).astype(np.float32)
    labels = np.arange(times, dtype=np.int32) % max(1, plan.num_classes)
    images = g.predict([latents, labels] if plan.num_classes else latents, worker.SAMPLING_BATCH, verbose=0)
    return np.clip(np.round(images * 127.5 + 127.5), 0, 255).astype(np.uint8), labels


def train(flags):
    """Trains on so many thousand images, and writes generated ones."""
    from cgan_jax.data import sources

    g, _, updates, plan = prepared(flags)
    train_step, dataset = whole_step(updates), sources.load("tfds", "cifar10", "train", "", 32)
    pixels, labels = dataset.images.astype(np.float32) / 127.5 - 1, dataset.labels.astype(np.int32)
    batches = tf.data.Dataset.from_tensor_slices((pixels, labels))
    batches = batches.shuffle(len(labels), seed=0).repeat().batch(plan.batch_size).prefetch(2)
    steps, began = round(1000 * flags.kimg / plan.batch_size), 0.0
    for number, batch in enumerate(batches.take(steps)):
        train_step(*batch)
        began = began or time.perf_counter()  # after compilation
        if number and number % 100 == 0:
            speed = number * plan.batch_size / (time.perf_counter() - began)
            print(f"step {number} of {steps}, {speed:.0f} images/s", flush=True)
    images, labels = drawn(g, plan, seed=1, times=10_000)
    np.savez_compressed(flags.images, images=images, **({"labels": labels} if plan.num_classes else {}))


def main():
    parser = worker.parser("float32", "bfloat16", recipes=NETWORKS)
    parser.add_argument("--kimg", type=float, default=0.0, help="train on so many thousand images, and draw")
    parser.add_argument("--images", default="keras.npz", help="the file for the images")
    flags = parser.parse_args()
    if flags.variant == "bfloat16":
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    if flags.kimg:
        train(flags)
        return
    g, d, updates, plan = prepared(flags)
    images, labels = map(tf.constant, worker.made_up(plan))

    def few(update):
        return lambda: update(images[:4], labels[:4])

    worker.check_movement(
        [(name, few(update)) for name, update in updates],
        lambda: {name: [np.array(v) for v in network.trainable_variables] for name, network in (("g", g), ("d", d))},
    )
    train_step = whole_step(updates)

    def step(times):
        for _ in range(times):
            train_step(images, labels)
        np.array(g.trainable_variables[0])

    def sample(times):
        drawn(g, plan, seed=0, times=times)

    worker.serve({"keras": keras.__version__, "tensorflow": tf.__version__}, {"step": step, "sample": sample})


if __name__ == "__main__":
    main()
