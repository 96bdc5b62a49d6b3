"""THE ALGORITHM: alternating updates of a discriminator and a generator (Goodfellow et al. 2014, algorithm 1).

One train step is
    `d_steps_per_g_step` times discriminator_step: it draws real images, and fakes of the same labels. Each entry of
        the recipe's `loss.d_updates` is one optimizer update on them;
    once generator_step: it draws latents and makes one optimizer update;
    once averaged: the averaged generators move (exponential moving averages; Karras et al. 2018, section 3).

Every function is pure and describes one replica under the axis "data" (parallel.py). A replica sees its share of the
batch; gradients, statistics and memories are averaged over the axis before use. A random number belongs to a sample of
the global batch, never to a device: fold_in(fold_in(fold_in(run key, purpose), step), index in the global batch).

A look is a call of the discriminator, with augmentation and dropout. Terms are the summands of a loss; they may add
views, further batches to look at, and keep a memory between steps (losses/terms.py).
"""

import enum
import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import optax

from cgan_jax import parallel
from cgan_jax.annealing import half_cosine
from cgan_jax.build import Algorithm
from cgan_jax.data.batches import Batch, PlacedData, draw, draw_labels, order_key, rows
from cgan_jax.losses.look import Look
from cgan_jax.losses.terms import (
    Batches,
    Pass,
    Weighted,
    batches_read,
    boundary_of,
    objective,
    period_of,
    seldom,
    with_views,
)
from cgan_jax.networks.heads import Output
from cgan_jax.optimizers import keeping
from cgan_jax.train_state import TrainState, Tree

Scalars = dict[str, jax.Array]


class Purpose(enum.IntEnum):
    """What a random number is for; two purposes never share a key."""

    D_DATA = 0
    D_LATENTS = 1
    D_DROPOUT = 2
    D_TERMS = 3
    G_DATA = 4
    G_LATENTS = 5
    G_LABELS = 6
    G_DROPOUT = 7
    G_TERMS = 8
    D_AUGMENT = 9
    G_AUGMENT = 10
    D_NOISE = 11
    G_NOISE = 12


def discriminator_step(
    algorithm: Algorithm, state: TrainState, data: PlacedData, index: jax.Array
) -> tuple[TrainState, Scalars]:
    """The state after the discriminator's updates on real batch number `index` of the run, and their scalars."""
    # Draw real images, and latents for fakes of the same labels.
    real = draw(data, _key(state, Purpose.D_DATA), index, algorithm.batch_size, algorithm.flip)
    latents = _latents(algorithm, _key(state, Purpose.D_LATENTS, index), real.labels)
    variables = {"params": state.g_params, **state.g_stats}
    noise = {"noise": _key(state, Purpose.D_NOISE, index)}
    generate = functools.partial(algorithm.generator.apply, variables, train=True, rngs=noise)
    fake = Batch(_in_parts(algorithm.accumulate, generate, latents, real.labels), real.labels, latents)
    batches = {"real": real, "fake": fake}

    # Update once for each entry of loss.d_updates.
    scalars = {"d_loss": jnp.zeros(())}
    update = functools.partial(_discriminator_update, algorithm, batches=batches, generate=generate, index=index)
    for number, terms in enumerate(algorithm.d_updates.values()):
        state, means = _lazily(functools.partial(update, number=number), period_of(terms), index, state)
        scalars = {**scalars, **means, "d_loss": scalars["d_loss"] + means["d_loss"]}
    return state, scalars


def _discriminator_update(
    algorithm: Algorithm, state: TrainState, batches: Batches, generate: Callable, index: jax.Array, number: int
) -> tuple[TrainState, Scalars]:
    """The state after one optimizer update on the batches, by entry `number` of `loss.d_updates`, and its scalars."""
    # Draw keys. Annealing counts generator steps: with two discriminator steps a train step, step i counts as i / 2.
    name, terms = list(algorithm.d_updates.items())[number]
    annealed = _annealed(algorithm, state, index / algorithm.d_steps_per_g_step)
    dropout_key = _key(state, Purpose.D_DROPOUT, index, number)
    augment_key = _key(state, Purpose.D_AUGMENT, index, number)
    terms_key = _key(state, Purpose.D_TERMS, index, number)
    probability = algorithm.augment_probability.at(state.memory, annealed)
    look = Look(algorithm.discriminator, algorithm.augment, dropout_key, augment_key, probability)
    names, drawn = list(batches), list(batches.values())  # JAX sorts dicts, and a look depends on the order

    def loss(d_params, drawn):
        batches = dict(zip(names, drawn, strict=True))
        # Look at the batches, and at the views of them that terms add.
        seen = with_views(terms, terms_key, batches, generate)
        read = batches_read(terms, seen)
        outputs, d_stats = look.outputs(d_params, state.d_stats, read, update_stats=True)
        # Compute the loss.
        discriminate = look.discriminate(d_params, state.d_stats)
        passed = Pass(seen, outputs, discriminate, generate, state.memory["d"][name], terms_key, index, annealed)
        total, memory, means = objective(terms, passed)
        scalars = {"d_loss": total, **_update_scalars(algorithm, name, means), **_accuracies(terms, outputs)}
        return total, (d_stats, memory, scalars)

    # Differentiate, and average over the replicas.
    gradients, aux = _gradients(algorithm.accumulate, loss, parallel.varying(state.d_params), drawn)
    gradients, (d_stats, memory, scalars) = parallel.mean((gradients, aux))

    # Update the discriminator.
    progress = {"annealed": annealed, "time_share": state.time_share}
    d_params, d_opt_state = _updated(algorithm.d_optimizer, gradients, state.d_opt_state, state.d_params, **progress)
    d_stats = keeping(state.d_stats, d_stats, algorithm.d_frozen)
    memory = {**state.memory, "d": {**state.memory["d"], name: memory}}
    memory, told = algorithm.augment_probability.after(memory, scalars)
    state = state.replace(d_params=d_params, d_stats=d_stats, d_opt_state=d_opt_state, memory=memory)
    return state, {**scalars, **told}


def _lazily(update: Callable, period: int, index: jax.Array, state: TrainState) -> tuple[TrainState, Scalars]:
    """update(state) at every period-th index; else the state, moments and all, as it is, and scalars of 0."""
    if period == 1:
        return update(state)

    def not_now(state):
        _, scalars = jax.eval_shape(update, state)
        return state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), scalars)

    return seldom(index, period, update, not_now, state)


def generator_step(algorithm: Algorithm, state: TrainState, data: PlacedData) -> tuple[TrainState, Scalars]:
    """The state after the generator's update, and its scalars."""
    # Draw labels, latents and keys.
    batches, labels = _generator_labels(algorithm, state, data)
    latents = _latents(algorithm, _key(state, Purpose.G_LATENTS, state.step), labels)
    terms_key = _key(state, Purpose.G_TERMS, state.step)
    annealed = _annealed(algorithm, state, state.step)
    dropout_key = _key(state, Purpose.G_DROPOUT, state.step)
    augment_key = _key(state, Purpose.G_AUGMENT, state.step)
    noise = {"noise": _key(state, Purpose.G_NOISE, state.step)}
    probability = algorithm.augment_probability.at(state.memory, annealed)
    look = Look(algorithm.discriminator, algorithm.augment, dropout_key, augment_key, probability)

    def loss(g_params, drawn):
        batches, latents, labels = drawn
        variables = {"params": g_params, **state.g_stats}
        generate = functools.partial(algorithm.generator.apply, variables, train=True, rngs=noise)

        # Look at the fakes, and at the views of them that terms add.
        images, g_stats = generate(latents, labels, mutable=list(state.g_stats))
        fake = Batch(images, labels, latents)
        seen = with_views(algorithm.g_terms, terms_key, {**batches, "fake": fake}, generate)
        read = batches_read(algorithm.g_terms, seen)
        outputs, _ = look.outputs(state.d_params, state.d_stats, read, update_stats=False)
        # Compute the loss.
        discriminate = look.discriminate(state.d_params, state.d_stats)
        passed = Pass(seen, outputs, discriminate, generate, state.memory["g"], terms_key, state.step, annealed)
        total, memory, means = objective(algorithm.g_terms, passed)
        scalars = {"g_loss": total, **{f"g_{name}": value for name, value in means.items()}}
        return total, (dict(g_stats), memory, scalars)

    # Differentiate, and average over the replicas.
    drawn = (batches, latents, labels)
    gradients, aux = _gradients(algorithm.accumulate, loss, parallel.varying(state.g_params), drawn)
    gradients, (g_stats, memory, scalars) = parallel.mean((gradients, aux))

    # Update the generator.
    progress = {"annealed": annealed, "time_share": state.time_share}
    g_params, g_opt_state = _updated(algorithm.g_optimizer, gradients, state.g_opt_state, state.g_params, **progress)
    g_stats = keeping(state.g_stats, g_stats, algorithm.g_frozen)
    memory = {**state.memory, "g": memory}
    return state.replace(g_params=g_params, g_stats=g_stats, g_opt_state=g_opt_state, memory=memory), scalars


def train_step(algorithm: Algorithm, state: TrainState, data: PlacedData) -> tuple[TrainState, Scalars]:
    """The state after all discriminator updates, one generator update and the average: step -> step + 1."""
    n = algorithm.d_steps_per_g_step

    def body(state, i):
        return discriminator_step(algorithm, state, data, state.step * n + i)

    with parallel.in_groups(algorithm.batch_norm_groups):
        state, d_scalars = repeated(body, state, n)
        state, g_scalars = generator_step(algorithm, state, data)
    return averaged(algorithm, state), {**d_scalars, **g_scalars}


def train_steps(algorithm: Algorithm, steps: int, state: TrainState, data: PlacedData) -> tuple[TrainState, Scalars]:
    """The state after `steps` train steps in one compiled program, and the means of their scalars."""
    return repeated(lambda state, _: train_step(algorithm, state, data), state, steps)


def repeated(body: Callable, state: TrainState, times: int) -> tuple[TrainState, Scalars]:
    """The state after `times` calls of `body(state, i) -> (state, scalars)` in a `lax.scan`, and the scalars' means."""
    if times == 1:
        return body(state, jnp.int32(0))
    state, scalars = jax.lax.scan(body, state, jnp.arange(times, dtype=jnp.int32))
    return state, jax.tree.map(jnp.mean, scalars)


def averaged(algorithm: Algorithm, state: TrainState) -> TrainState:
    """The state one step on. Its averaged generators, statistics included, have moved towards the generator."""
    step = state.step + 1

    def moved(averages, current, decay):
        decay = jnp.where(step > algorithm.ema_start_step, decay, 0.0)
        return jax.tree.map(lambda a, c: c + decay.astype(c.dtype) * (a - c), averages, current)

    decay = algorithm.ema_decay(_annealed(algorithm, state, state.step))
    ema_params = moved(state.ema_params, state.g_params, decay)
    ema_stats = moved(state.ema_stats, state.g_stats, decay)
    generator = {"params": state.g_params, **state.g_stats}
    further = {name: moved(state.further[name], generator, decay) for name, decay in algorithm.further_decays.items()}
    return state.replace(step=step, ema_params=ema_params, ema_stats=ema_stats, further=further)


def _key(state: TrainState, purpose: Purpose, *indices: jax.Array | int) -> jax.Array:
    """The run's key for a purpose, with `indices` folded in, such as the step.

    The purpose is folded in first. split(key) and fold_in(key, i) can give equal keys, so no key gets both.
    """
    # The keys of all purposes are derived in one call, of which XLA keeps one: on a TPU a key alone takes a hundred
    # operations on single numbers.
    keys = jax.vmap(jax.random.fold_in, (None, 0))(state.key, jnp.arange(len(Purpose)))
    for index in indices:
        keys = jax.vmap(jax.random.fold_in, (0, None))(keys, index)
    return keys[purpose]


def _latents(algorithm: Algorithm, key: jax.Array, labels: jax.Array) -> jax.Array:
    """Standard normal latents, one for each label: float32 [N, latent_dim]."""
    keys = parallel.sample_keys(key, labels.shape[0])
    return jax.vmap(lambda key: jax.random.normal(key, (algorithm.generator.latent_dim,)))(keys)


def _generator_labels(algorithm: Algorithm, state: TrainState, data: PlacedData) -> tuple[dict[str, Batch], jax.Array]:
    """The generator's real batch, if one of its terms reads it, and the labels of its fakes: those of that batch."""
    if g_draws_real(algorithm):
        real = draw(data, _key(state, Purpose.G_DATA), state.step, algorithm.g_batch_size, algorithm.flip)
        return {"real": real}, real.labels
    local_size = algorithm.g_batch_size // parallel.count()
    keys = parallel.sample_keys(_key(state, Purpose.G_LABELS, state.step), local_size)
    return {}, draw_labels(data, keys)


def _annealed(algorithm: Algorithm, state: TrainState, step: jax.Array) -> jax.Array | float:
    """How far annealing is (0 to 1) after `step` generator steps.

    The share of `train.max_minutes` that the run has used counts instead if it is further.
    """
    if not algorithm.anneal_steps:
        return 0.0
    return half_cosine(jnp.maximum(step, state.time_share * algorithm.total_steps) / algorithm.anneal_steps)


def _gradients(parts: int, loss: Callable, params: Tree, given: Tree) -> tuple[Tree, Tree]:
    """The gradient of loss(params, given) -> (scalar, aux), and aux: the means over `parts` of the samples in `given`.

    One part is differentiated after the other, so that only one's activations are in memory. A sample keeps its random
    numbers.
    """
    differentiate = jax.grad(loss, has_aux=True)
    if parts == 1:
        return differentiate(params, given)

    def body(total, numbered):
        number, part = numbered
        with parallel.part(number, parts):
            gradients, aux = differentiate(params, part)
        return jax.tree.map(jnp.add, total, gradients), aux

    def over_parts(x):  # as parallel.mean takes it over replicas
        return jnp.mean(x, axis=0) if jnp.issubdtype(x.dtype, jnp.floating) else jnp.max(x, axis=0)

    numbered = jnp.arange(parts, dtype=jnp.int32), jax.tree.map(lambda x: _split(parts, x), given)
    zeros = parallel.varying(jax.tree.map(jnp.zeros_like, params))
    total, aux = jax.lax.scan(body, zeros, numbered)
    return jax.tree.map(lambda x: x / parts, total), jax.tree.map(over_parts, aux)


def _in_parts(parts: int, function: Callable, *arrays: jax.Array) -> jax.Array:
    """function(*arrays [N, ...]) -> [N, ...], one part of the samples after the other."""
    if parts == 1:
        return function(*arrays)

    def of_part(numbered):
        number, part = numbered
        with parallel.part(number, parts):
            return function(*part)

    numbered = jnp.arange(parts, dtype=jnp.int32), [_split(parts, x) for x in arrays]
    results = jax.lax.map(of_part, numbered)
    return results.reshape(-1, *results.shape[2:])


def _split(parts: int, x: jax.Array) -> jax.Array:
    """[N, ...] -> [parts, N / parts, ...]."""
    return x.reshape(parts, -1, *x.shape[1:])


def _updated(
    optimizer: optax.GradientTransformation, gradients: Tree, opt_state: Tree, params: Tree, **progress: jax.Array
) -> tuple[Tree, Tree]:
    """The parameters and the optimizer's state after one update. `progress` is what optimizers.make asks for."""
    optimizer = optax.with_extra_args_support(optimizer)
    updates, opt_state = optimizer.update(gradients, opt_state, params, **progress)
    return optax.apply_updates(params, updates), opt_state


def _update_scalars(algorithm: Algorithm, update: str, means: Scalars) -> Scalars:
    """The scalars of an update's terms: d_{term}, or d_{update}_{term} if another update has a term of that name."""
    elsewhere = {listed.name for name, terms in algorithm.d_updates.items() if name != update for listed in terms}
    return {f"d_{update}_{name}" if name in elsewhere else f"d_{name}": value for name, value in means.items()}


def _accuracies(terms: Sequence[Weighted], outputs: Mapping[str, Output]) -> Scalars:
    """The shares of real and of generated images that the discriminator classifies correctly.

    Empty if no term of the update has a decision boundary.
    """
    boundary = boundary_of(terms)
    scalars = {}
    if boundary is not None and "real" in outputs:
        scalars["d_accuracy_real"] = jnp.mean(outputs["real"].logits > boundary)
    if boundary is not None and "fake" in outputs:
        scalars["d_accuracy_fake"] = jnp.mean(outputs["fake"].logits < boundary)
    return scalars


def g_draws_real(algorithm: Algorithm) -> bool:
    """Whether the generator's update draws a real batch, because one of its terms reads it."""
    return any("real" in listed.term.reads + listed.term.images for listed in algorithm.g_terms)


def drawn_rows(
    algorithm: Algorithm, steps: int, size: int, key: jax.Array, step: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The rows of a dataset of `size` images that `steps` train steps draw, the first of them step number `step`.

    For the discriminator int32 [steps * d_steps_per_g_step, batch_size]. For the generator [steps, g_batch_size], or
    [0, g_batch_size] if it draws no real images.
    """

    def batches(purpose: Purpose, first: jax.Array, count: int, batch_size: int) -> jax.Array:
        order = order_key(jax.random.fold_in(key, purpose))
        indices = first + jnp.arange(count, dtype=jnp.int32)
        return jax.vmap(lambda index: rows(order, index, batch_size, size))(indices)

    n = algorithm.d_steps_per_g_step
    d_rows = batches(Purpose.D_DATA, step * n, steps * n, algorithm.batch_size)
    g_steps = steps if g_draws_real(algorithm) else 0
    return d_rows, batches(Purpose.G_DATA, step, g_steps, algorithm.g_batch_size)
