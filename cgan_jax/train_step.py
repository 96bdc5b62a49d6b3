"""THE ALGORITHM: alternating updates of a discriminator and a generator (Goodfellow et al. 2014, algorithm 1).

One train step is
    `d_steps_per_g_step` times discriminator_step: fresh real images, fakes for the same labels, and one optimizer
        update for each entry of the recipe's `loss.d_updates`;
    once generator_step: fresh latents, one optimizer update;
    the averaged generator follows (an exponential moving average; Karras et al. 2018, section 3).

Every function is pure and describes one replica under the axis "data" (replica.py): it sees its share of the batch, and
gradients, statistics and memories are averaged over the axis before they are used. All randomness belongs to a sample
of the global batch, never to a device: fold_in(fold_in(fold_in(run key, purpose), step), place in the global batch).
"""

import enum
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from cgan_jax import parallel
from cgan_jax.annealing import half_cosine
from cgan_jax.build import Algorithm
from cgan_jax.data.batches import Batch, Data, draw, draw_labels, order_key, rows
from cgan_jax.losses.terms import Pass, Weighted, batches_read, boundary_of, objective, with_views
from cgan_jax.networks.heads import Output
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


class Look(NamedTuple):
    """What one look of the discriminator at images draws, and how far annealing is by then."""

    dropout: jax.Array
    augment: jax.Array
    annealed: jax.Array | float


def discriminator_step(
    algorithm: Algorithm, state: TrainState, data: Data, index: jax.Array
) -> tuple[TrainState, Scalars]:
    """The discriminator's updates on its real batch number `index` of the run, and their scalars."""
    real = draw(data, _key(state, Purpose.D_DATA), index, algorithm.batch_size, algorithm.flip)
    latents = _latents(algorithm, _key(state, Purpose.D_LATENTS, index), real.labels)

    def generate(latents, labels):
        return algorithm.generator.apply({"params": state.g_params, **state.g_stats}, latents, labels, train=True)

    batches = {"real": real, "fake": Batch(generate(latents, real.labels), real.labels, latents)}
    scalars, annealed = {"d_loss": jnp.zeros(())}, _annealed(algorithm, state, index / algorithm.d_steps_per_g_step)
    for number, (name, terms) in enumerate(algorithm.d_updates.items()):
        purposes = Purpose.D_DROPOUT, Purpose.D_AUGMENT, Purpose.D_TERMS
        *draws, key = (jax.random.fold_in(_key(state, purpose, index), number) for purpose in purposes)
        look = Look(*draws, annealed)

        def loss(params, terms=terms, name=name, look=look, key=key, state=state):
            seen = with_views(terms, key, batches, generate)
            read = batches_read(terms, seen)
            outputs, stats = _outputs(algorithm, params, state.d_stats, read, look, moving=True)
            discriminate = _discriminate(algorithm, params, state.d_stats, look)
            passed = Pass(seen, outputs, discriminate, generate, state.memory["d"][name], key, index, annealed)
            total, memory, means = objective(terms, passed)
            means = {"d_loss": total, **_named_in(algorithm, name, means), **_accuracies(terms, outputs)}
            return total, (stats, memory, means)

        gradients, aux = jax.grad(loss, has_aux=True)(parallel.varying(state.d_params))
        gradients, (stats, memory, means) = parallel.mean((gradients, aux))
        updates, opt_state = _updates(
            algorithm.d_optimizer, gradients, state.d_opt_state, state.d_params, state, annealed
        )
        state = state.replace(
            d_params=optax.apply_updates(state.d_params, updates),
            d_stats=stats,
            d_opt_state=opt_state,
            memory={**state.memory, "d": {**state.memory["d"], name: memory}},
        )
        scalars = {**scalars, **means, "d_loss": scalars["d_loss"] + means["d_loss"]}
    return state, scalars


def generator_step(algorithm: Algorithm, state: TrainState, data: Data) -> tuple[TrainState, Scalars]:
    """One update of the generator, and its scalars. Fakes share the labels of a real batch where a term reads one."""
    local_size = algorithm.g_batch_size // parallel.count()
    annealed = _annealed(algorithm, state, state.step)
    purposes = Purpose.G_DROPOUT, Purpose.G_AUGMENT, Purpose.G_TERMS
    *draws, key = (_key(state, purpose, state.step) for purpose in purposes)
    look = Look(*draws, annealed)
    batches = {}
    if g_draws_real(algorithm):
        batches["real"] = draw(data, _key(state, Purpose.G_DATA), state.step, algorithm.g_batch_size, algorithm.flip)
        labels = batches["real"].labels
    else:
        labels = draw_labels(data, parallel.sample_keys(_key(state, Purpose.G_LABELS, state.step), local_size))
    latents = _latents(algorithm, _key(state, Purpose.G_LATENTS, state.step), labels)

    def loss(params):
        def generate(latents, labels):
            return algorithm.generator.apply({"params": params, **state.g_stats}, latents, labels, train=True)

        images, stats = algorithm.generator.apply(
            {"params": params, **state.g_stats}, latents, labels, train=True, mutable=list(state.g_stats)
        )
        seen = with_views(algorithm.g_terms, key, {**batches, "fake": Batch(images, labels, latents)}, generate)
        read = batches_read(algorithm.g_terms, seen)
        outputs, _ = _outputs(algorithm, state.d_params, state.d_stats, read, look, moving=False)
        discriminate = _discriminate(algorithm, state.d_params, state.d_stats, look)
        passed = Pass(seen, outputs, discriminate, generate, state.memory["g"], key, state.step, annealed)
        total, memory, means = objective(algorithm.g_terms, passed)
        return total, (dict(stats), memory, {"g_loss": total, **_prefixed("g_", means)})

    gradients, aux = jax.grad(loss, has_aux=True)(parallel.varying(state.g_params))
    gradients, (stats, memory, scalars) = parallel.mean((gradients, aux))
    updates, opt_state = _updates(algorithm.g_optimizer, gradients, state.g_opt_state, state.g_params, state, annealed)
    state = state.replace(
        g_params=optax.apply_updates(state.g_params, updates),
        g_stats=stats,
        g_opt_state=opt_state,
        memory={**state.memory, "g": memory},
    )
    return state, scalars


def g_draws_real(algorithm: Algorithm) -> bool:
    """Whether the generator's update draws a real batch: where one of its terms reads it."""
    return any("real" in listed.term.reads + listed.term.images for listed in algorithm.g_terms)


def train_step(algorithm: Algorithm, state: TrainState, data: Data) -> tuple[TrainState, Scalars]:
    """All discriminator updates, one generator update, and the average: step -> step + 1."""
    n = algorithm.d_steps_per_g_step

    def body(state, i):
        return discriminator_step(algorithm, state, data, state.step * n + i)

    state, d_scalars = repeated(body, state, n)
    state, g_scalars = generator_step(algorithm, state, data)
    return averaged(algorithm, state), {**d_scalars, **g_scalars}


def train_steps(algorithm: Algorithm, steps: int, state: TrainState, data: Data) -> tuple[TrainState, Scalars]:
    """`steps` train steps in one compiled program, and the means of their scalars."""
    return repeated(lambda state, _: train_step(algorithm, state, data), state, steps)


def repeated(body: Callable, state: TrainState, times: int) -> tuple[TrainState, Scalars]:
    """`times` applications of `body(state, i) -> (state, scalars)` and the scalars' means, looped on the device."""
    if times == 1:
        return body(state, jnp.int32(0))
    state, scalars = jax.lax.scan(body, state, jnp.arange(times, dtype=jnp.int32))
    return state, jax.tree.map(jnp.mean, scalars)


def averaged(algorithm: Algorithm, state: TrainState) -> TrainState:
    """The state one step on, its averaged generator (statistics too) moved towards the generator."""
    step = state.step + 1
    decay = algorithm.ema_decay(_annealed(algorithm, state, state.step))
    decay = jnp.where(step > algorithm.ema_start_step, decay, 0.0)
    moved = jax.tree.map(
        lambda average, now: now + decay.astype(now.dtype) * (average - now),
        (state.ema_params, state.ema_stats),
        (state.g_params, state.g_stats),
    )
    return state.replace(step=step, ema_params=moved[0], ema_stats=moved[1])


def _key(state: TrainState, purpose: Purpose, index: jax.Array | None = None) -> jax.Array:
    """The run's key for a purpose, at a step. The purpose is folded in first: folding is splitting, so that a key from
    which others are split must never be one of which an index is folded in."""
    key = jax.random.fold_in(state.key, purpose)
    return key if index is None else jax.random.fold_in(key, index)


def _annealed(algorithm: Algorithm, state: TrainState, done: jax.Array) -> jax.Array | float:
    """How far annealing is after so many generator steps, or after the share of its minutes that a run has used."""
    if not algorithm.anneal_steps:
        return 0.0
    return half_cosine(jnp.maximum(done, state.time_share * algorithm.total_steps) / algorithm.anneal_steps)


def _updates(optimizer, gradients, opt_state, params, state: TrainState, annealed) -> tuple[Tree, Tree]:
    optimizer = optax.with_extra_args_support(optimizer)
    return optimizer.update(gradients, opt_state, params, annealed=annealed, time_share=state.time_share)


def _latents(algorithm: Algorithm, key: jax.Array, labels: jax.Array) -> jax.Array:
    keys = parallel.sample_keys(key, labels.shape[0])
    return jax.vmap(lambda key: jax.random.normal(key, (algorithm.generator.latent_dim,)))(keys)


def _outputs(
    algorithm: Algorithm, params: Tree, stats: Tree, batches: Mapping[str, Batch], look: Look, moving: bool
) -> tuple[dict[str, Output], Tree]:
    """The discriminator's output on each batch, and its statistics, which change only if `moving`.

    One call on all of them where the network treats samples one by one, else one call per batch.
    """
    if not batches:
        return {}, stats
    if not algorithm.discriminator.couples_samples:
        names, listed = list(batches), list(batches.values())
        output, stats = _apply(algorithm, params, stats, *_interleaved(listed), look, moving)
        return {name: jax.tree.map(lambda x, i=i: x[i :: len(names)], output) for i, name in enumerate(names)}, stats
    outputs = {}
    for number, (name, batch) in enumerate(batches.items()):
        its = look._replace(**{use: jax.random.fold_in(getattr(look, use), number) for use in ("dropout", "augment")})
        outputs[name], stats = _apply(algorithm, params, stats, batch.images, batch.labels, its, moving)
    return outputs, stats


def _interleaved(batches: list[Batch]) -> tuple[jax.Array, jax.Array]:
    """The images and labels of several batches of one size, sample by sample.

    In this order a sample's place in the global batch, which its dropout mask hangs on, is the same however many
    replicas share the batch; one batch after the other it would not be.
    """
    images = jnp.stack([batch.images for batch in batches], axis=1)
    labels = jnp.stack([batch.labels for batch in batches], axis=1)
    return images.reshape(-1, *images.shape[2:]), labels.reshape(-1)


def _apply(algorithm, params, stats, images, labels, look, moving) -> tuple[Output, Tree]:
    mutable = list(stats) if moving else []
    images = algorithm.augment(look.augment, images, look.annealed)
    output, moved = algorithm.discriminator.apply(
        {"params": params, **stats}, images, labels, train=True, rngs={"dropout": look.dropout}, mutable=mutable
    )
    return output, dict(moved) if moving else stats


def _discriminate(algorithm: Algorithm, params: Tree, stats: Tree, look: Look) -> Callable[..., Output]:
    def discriminate(images: jax.Array, labels: jax.Array) -> Output:
        return _apply(algorithm, params, stats, images, labels, look, moving=False)[0]

    return discriminate


def _prefixed(prefix: str, scalars: Scalars) -> Scalars:
    return {prefix + name: value for name, value in scalars.items()}


def _named_in(algorithm: Algorithm, update: str, means: Scalars) -> Scalars:
    """The scalars of an update's terms, with its own name where another update has a term of that name."""
    elsewhere = {listed.name for name, terms in algorithm.d_updates.items() if name != update for listed in terms}
    return {f"d_{update}_{name}" if name in elsewhere else f"d_{name}": value for name, value in means.items()}


def _accuracies(terms: Sequence[Weighted], outputs: Mapping[str, Output]) -> Scalars:
    """The shares of real and generated images that the discriminator takes for what they are, by an update's terms.

    None where no term says above which logit an image is taken for real.
    """
    boundary = boundary_of(terms)
    if boundary is None:
        return {}
    told = {"real": lambda logits: logits > boundary, "fake": lambda logits: logits < boundary}
    return {
        f"d_accuracy_{name}": jnp.mean(is_right(outputs[name].logits))
        for name, is_right in told.items()
        if name in outputs
    }


def drawn_rows(
    algorithm: Algorithm, steps: int, size: int, key: jax.Array, step: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The rows of a dataset of `size` images that the train steps from `step` on draw.

    For the discriminator int32 [steps * d_steps_per_g_step, batch_size], for the generator [steps, g_batch_size], or
    [0, g_batch_size] where it draws none.
    """

    def batches(purpose: Purpose, first: jax.Array, count: int, batch_size: int) -> jax.Array:
        own = order_key(jax.random.fold_in(key, purpose))
        indices = first + jnp.arange(count, dtype=jnp.int32)
        return jax.vmap(lambda index: rows(own, index, batch_size, size))(indices)

    n = algorithm.d_steps_per_g_step
    d_rows = batches(Purpose.D_DATA, step * n, steps * n, algorithm.batch_size)
    g_steps = steps if g_draws_real(algorithm) else 0
    return d_rows, batches(Purpose.G_DATA, step, g_steps, algorithm.g_batch_size)
