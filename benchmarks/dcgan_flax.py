"""The step as a Flax user writes it at first: nn.ConvTranspose, nn.Conv, optax, one jit. A worker."""

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import worker

glorot = nn.initializers.glorot_uniform()


def label_map(labels, num_classes, side):
    x = nn.Dense(side * side)(nn.Embed(num_classes, 50)(labels))
    return x.reshape(-1, side, side, 1)


class ClassicGenerator(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, latents, labels):
        x = nn.leaky_relu(nn.Dense(8 * 8 * 128, kernel_init=glorot)(latents), 0.2).reshape(-1, 8, 8, 128)
        for _ in range(2):
            x = nn.leaky_relu(nn.ConvTranspose(128, (4, 4), (2, 2), kernel_init=glorot)(x), 0.2)
        return jnp.tanh(nn.Conv(3, (8, 8), kernel_init=glorot)(x))


class ClassicDiscriminator(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, images, labels):
        x = images
        for _ in range(2):
            x = nn.leaky_relu(nn.Conv(128, (3, 3), (2, 2), kernel_init=glorot)(x), 0.2)
        x = nn.Dropout(worker.DROPOUT, deterministic=False)(x.reshape(x.shape[0], -1))
        return nn.Dense(1, kernel_init=glorot)(x)[:, 0]


class DeepGenerator(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, latents, labels):
        x = nn.relu(nn.Dense(4 * 4 * 256, kernel_init=glorot)(latents)).reshape(-1, 4, 4, 256)
        x = jnp.concatenate([x, label_map(labels, self.num_classes, 4)], -1)
        for features in (128, 64, 64):
            x = nn.relu(nn.ConvTranspose(features, (7, 7), (2, 2), kernel_init=glorot)(x))
        return jnp.tanh(nn.Conv(3, (7, 7), kernel_init=glorot)(x))


class DeepDiscriminator(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, images, labels):
        x = jnp.concatenate([images, label_map(labels, self.num_classes, 32)], -1)
        for features in (64, 128, 256, 512):
            x = nn.leaky_relu(nn.Conv(features, (5, 5), (2, 2), kernel_init=glorot)(x), 0.01)
        x = nn.Dropout(worker.DROPOUT, deterministic=False)(x.reshape(x.shape[0], -1))
        return nn.Dense(1, kernel_init=glorot)(x)[:, 0]


NETWORKS = {
    "cifar10_dcgan": (ClassicGenerator, ClassicDiscriminator),
    "cifar10_cgan_deep": (DeepGenerator, DeepDiscriminator),
}


def bce(logits, target):
    return optax.sigmoid_binary_cross_entropy(logits, jnp.full_like(logits, target)).mean()


def make_updates(generator, discriminator, optimizer, plan):
    """[(network, (state, images, labels, key) -> state)]; the state is {"g", "d", "g_opt", "d_opt"}."""

    def fakes(params, n, labels, key):
        return generator.apply(params, jax.random.normal(key, (n, worker.LATENT_DIM)), labels)

    def judge(params, images, labels, key):
        return discriminator.apply(params, images, labels, rngs={"dropout": key})

    def moved(state, name, loss):
        gradients = jax.grad(loss)(state[name])
        updates, opt = optimizer.update(gradients, state[f"{name}_opt"])
        return {**state, name: optax.apply_updates(state[name], updates), f"{name}_opt": opt}

    def real(state, images, labels, key):
        return moved(state, "d", lambda d: bce(judge(d, images, labels, key), 1.0))

    def fake(state, images, labels, key):
        drawn = fakes(state["g"], len(labels), labels, key)
        return moved(state, "d", lambda d: bce(judge(d, drawn, labels, key), 0.0))

    def both(state, images, labels, key):
        drawn = fakes(state["g"], len(labels), labels, key)
        images, labels = jnp.concatenate([images, drawn]), jnp.concatenate([labels, labels])

        def loss(d):
            on_real, on_fake = jnp.split(judge(d, images, labels, key), 2)
            return bce(on_real, 1.0) + bce(on_fake, 0.0)

        return moved(state, "d", loss)

    def generate(state, images, labels, key):
        labels = jnp.resize(labels, len(labels) * plan.g_batch_size // plan.batch_size)
        return moved(state, "g", lambda g: bce(judge(state["d"], fakes(g, len(labels), labels, key), labels, key), 1.0))

    return [("d", both), ("g", generate)] if plan.together else [("d", real), ("d", fake), ("g", generate)]


def main():
    flags = worker.parser("float32", recipes=NETWORKS).parse_args()
    plan = worker.PLANS[flags.recipe]
    generator, discriminator = (network(plan.num_classes) for network in NETWORKS[flags.recipe])
    optimizer = optax.adam(plan.learning_rate, worker.B1, worker.B2, worker.EPSILON)
    images, labels = map(jnp.asarray, worker.made_up(plan))
    key = jax.random.key(0)
    g = generator.init(key, jnp.zeros((1, worker.LATENT_DIM)), labels[:1])
    d = discriminator.init({"params": key, "dropout": key}, images[:1], labels[:1])
    state = {"g": g, "d": d, "g_opt": optimizer.init(g), "d_opt": optimizer.init(d)}
    updates = make_updates(generator, discriminator, optimizer, plan)

    def few(update):
        def run():
            nonlocal state
            state = jax.jit(update)(state, images[:4], labels[:4], key)

        return run

    worker.check_movement(
        [(name, few(update)) for name, update in updates],
        lambda: {name: [np.asarray(leaf) for leaf in jax.tree.leaves(state[name])] for name in ("g", "d")},
    )

    @jax.jit
    def train_step(state, key):
        for number, (_, update) in enumerate(updates):
            state = update(state, images, labels, jax.random.fold_in(key, number))
        return state

    draw = jax.jit(generator.apply)

    def step(times):
        nonlocal state
        for i in range(times):
            state = train_step(state, jax.random.fold_in(key, i))
        jax.block_until_ready(state)

    def sample(times):
        n = worker.SAMPLING_BATCH
        for start in range(0, times, n):
            latents = jax.random.normal(jax.random.fold_in(key, start), (n, worker.LATENT_DIM))
            np.asarray(draw(state["g"], latents, jnp.zeros((n,), jnp.int32)))

    worker.serve({"jax": jax.__version__, "flax": flax.__version__}, {"step": step, "sample": sample})


if __name__ == "__main__":
    main()
