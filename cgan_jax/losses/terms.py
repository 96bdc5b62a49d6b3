"""How losses, regularizers and heads meet the training step, which knows none of them by name.

A head turns a discriminator's features into an `Output`. The step evaluates the discriminator on named batches, puts
all it knows into a `Pass`, and sums the `Term`s that the recipe lists.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cgan_jax import parallel
from cgan_jax.annealing import Number, at
from cgan_jax.data.batches import Batch
from cgan_jax.errors import UsageError
from cgan_jax.lookup import entry_named
from cgan_jax.networks.heads import Output


class Pass(NamedTuple):
    """One evaluation of the discriminator: what a term may read."""

    batches: Mapping[str, Batch]
    """By name: "real", "fake", and the views that terms asked for."""
    outputs: Mapping[str, Output]
    """The discriminator's output on each batch."""
    discriminate: Callable[[jax.Array, jax.Array], Output]
    """(images, labels) -> Output, augmentation included, parameters bound."""
    generate: Callable[[jax.Array, jax.Array], jax.Array]
    """(latents, labels) -> images, parameters bound."""
    memory: Any
    """What the term kept at its last evaluation."""
    key: jax.Array
    step: jax.Array
    annealed: jax.Array | float = 0.0
    """How far the run's annealing is, 0 to 1."""


Views = Callable[[jax.Array, Mapping[str, Batch], Callable], dict[str, Batch]]


def no_views(key: jax.Array, batches: Mapping[str, Batch], generate: Callable) -> dict[str, Batch]:
    """The views of a term that needs none."""
    return {}


class Term(NamedTuple):
    """One summand of a player's loss."""

    value: Callable[[Pass], tuple[jax.Array, Any]]
    """Pass -> (one value per sample [N], what to remember)."""
    reads: tuple[str, ...] = ()
    """The batches, or views, on which it reads the discriminator's output."""
    images: tuple[str, ...] = ()
    """The batches of which it reads no more than the images, so that they need not be evaluated."""
    views: Views = no_views
    """(key, batches, generate) -> further batches to evaluate, by name."""
    init_memory: Any = ()
    boundary: float | None = None
    """The logit above which it takes an image for real; None where a logit alone tells nothing."""


class Weighted(NamedTuple):
    """A term as the recipe lists it."""

    name: str
    weight: Number
    term: Term


def boundary_of(terms: Iterable[Weighted]) -> float | None:
    """The logit above which the first of them that has one takes an image for real."""
    return next((listed.term.boundary for listed in terms if listed.term.boundary is not None), None)


def on_logits(loss: Callable[..., jax.Array], *reads: str, boundary: float | None = None) -> Term:
    """The term of a loss that maps the logits of the named batches, in this order, to one value per sample."""

    def value(passed: Pass) -> tuple[jax.Array, Any]:
        return loss(*(passed.outputs[name].logits for name in reads)), ()

    return Term(value, reads=reads, boundary=boundary)


def every(term: Term, k: int) -> Term:
    """The term at every k-th step only, k times as large (lazy regularisation; Karras et al. 2020, section 3.1)."""
    if k == 1:
        return term

    def value(passed: Pass) -> tuple[jax.Array, Any]:
        # Both branches must say alike of every result that it varies over replicas.
        def now():
            values, memory = term.value(passed)
            return parallel.varying((k * values, memory))

        def not_now():
            shapes, _ = jax.eval_shape(now)
            return parallel.varying((jnp.zeros(shapes.shape, shapes.dtype), passed.memory))

        return jax.lax.cond(passed.step % k == 0, now, not_now)

    return term._replace(value=value)


def from_recipe(
    section: Mapping[str, Mapping[str, Number]], table: Mapping[str, Callable[..., Term]]
) -> tuple[Weighted, ...]:
    """{name: {"weight": w, "every": k, **hyperparameters}} -> the terms to sum; those of weight 0 are left out.

    Raises UsageError for a loss that does not exist and for hyperparameters it does not take or lacks.
    """
    terms = []
    for name, entry in section.items():
        hyperparameters = dict(entry)
        weight = hyperparameters.pop("weight")
        k = hyperparameters.pop("every", 1)
        make = entry_named(table, name, "loss")
        _check_hyperparameters(name, make, hyperparameters)
        if weight != 0.0:
            terms.append(Weighted(name, weight, every(make(**hyperparameters), k)))
    return tuple(terms)


def _check_hyperparameters(name: str, make: Callable[..., Term], given: Mapping[str, float]) -> None:
    takes = inspect.signature(make).parameters
    needs = {parameter for parameter, its in takes.items() if its.default is its.empty}
    if not needs <= set(given) <= set(takes):
        raise UsageError(
            f"the loss {name} takes {', '.join(['weight', 'every', *takes])};"
            f" the recipe gives {', '.join(given) or 'no ' + ', '.join(sorted(needs))}"
        )


def with_views(
    terms: tuple[Weighted, ...], key: jax.Array, batches: Mapping[str, Batch], generate: Callable
) -> dict[str, Batch]:
    """The batches, and the views of them that the terms ask for."""
    seen = dict(batches)
    for place, listed in enumerate(terms):
        seen |= listed.term.views(_term_key(key, place, "views"), batches, generate)
    return seen


def batches_read(terms: tuple[Weighted, ...], batches: Mapping[str, Batch]) -> dict[str, Batch]:
    """Those batches on which at least one term reads the discriminator's output."""
    read = {name for listed in terms for name in listed.term.reads}
    return {name: batch for name, batch in batches.items() if name in read}


def objective(terms: tuple[Weighted, ...], passed: Pass) -> tuple[jax.Array, dict[str, Any], dict[str, jax.Array]]:
    """The weighted sum of the terms' means, a scalar; each term's new memory; each term's unweighted mean."""
    total, memory, means = jnp.zeros(()), {}, {}
    for place, (name, weight, term) in enumerate(terms):
        key = _term_key(passed.key, place, "value")
        values, memory[name] = term.value(passed._replace(memory=passed.memory[name], key=key))
        if values.ndim != 1:
            raise ValueError(f"the term {name} gave values of shape {values.shape}, not one per sample")
        means[name] = jnp.mean(values)
        total += at(weight, passed.annealed) * means[name]
    return total, memory, means


def _term_key(key: jax.Array, place: int, use: str) -> jax.Array:
    """No two terms, and not a term's views and its value, draw the same numbers."""
    return jax.random.fold_in(key, 2 * place + ("views", "value").index(use))
