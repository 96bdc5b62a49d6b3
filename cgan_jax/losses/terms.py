"""The contract between the training step and the losses, regularizers and heads, none of which it knows by name.

A head turns a discriminator's features into an `Output`. The step evaluates the discriminator on named batches, puts
the results into a `Pass`, and sums the `Term`s that the recipe lists.
"""

import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from cgan_jax import parallel
from cgan_jax.annealing import Number, at
from cgan_jax.data.batches import Batch
from cgan_jax.errors import UsageError
from cgan_jax.lookup import entry_named
from cgan_jax.networks.heads import Output

_SELDOM = "every_"

Tree = TypeVar("Tree")
Batches = Mapping[str, Batch]
"""By name: "real", "fake", and the views that terms add."""
Views = Callable[[jax.Array, Batches, Callable], dict[str, Batch]]
"""(key, batches, generate) -> further batches, by name."""


class Pass(NamedTuple):
    """What a term may read: one evaluation of the discriminator."""

    batches: Batches
    outputs: Mapping[str, Output]
    """The discriminator's output on each batch."""
    discriminate: Callable[[jax.Array, jax.Array], Output]
    """(images, labels) -> Output, augmentation included, parameters bound."""
    generate: Callable[[jax.Array, jax.Array], jax.Array]
    """(latents, labels) -> images, parameters bound."""
    memory: Any
    """What the term returned as its memory at the last evaluation."""
    key: jax.Array
    step: jax.Array
    """The number of this player's step: the discriminator makes `d_steps_per_g_step` of them per generator step."""
    annealed: jax.Array | float = 0.0
    """How far annealing is, 0 to 1."""


def no_views(key: jax.Array, batches: Batches, generate: Callable) -> dict[str, Batch]:
    """The views of a term that needs none."""
    return {}


class Term(NamedTuple):
    """One summand of a player's loss."""

    value: Callable[[Pass], tuple[jax.Array, Any]]
    """Pass -> (one value per sample [N], the term's memory)."""
    reads: tuple[str, ...] = ()
    """The batches or views on which it reads the discriminator's output."""
    images: tuple[str, ...] = ()
    """The batches or views of which it reads only the images. They alone need no evaluation of the discriminator."""
    views: Views = no_views
    init_memory: Any = ()
    boundary: float | None = None
    """The decision boundary: a larger logit counts as real. None if a logit alone decides nothing."""
    period: int = 1
    """It is 0 but at every so many steps."""
    tells: tuple[str, ...] = ()
    """Entries of its memory to log."""
    is_per_sample: bool = False
    """Whether it is wrong for a discriminator that couples samples: it takes a function of each sample's gradient."""


class Weighted(NamedTuple):
    """A term as the recipe lists it."""

    name: str
    weight: Number
    term: Term


def extra(passed: Pass, batch: str, name: str) -> jax.Array:
    """The entry `name` of the head's extras for a batch. Raises UsageError if the head does not compute it."""
    extras = passed.outputs[batch].extras
    if name not in extras:
        computed = ", ".join(extras) or "no extras"
        raise UsageError(f"this loss needs a head that computes {name}; this one computes {computed}")
    return extras[name]


def period_of(terms: Sequence[Weighted]) -> int:
    """How many steps an update by the terms is apart from the next. It is 1 if one reads outputs, which are logged."""
    return 1 if any(listed.term.reads for listed in terms) else math.gcd(*(listed.term.period for listed in terms))


def boundary_of(terms: Iterable[Weighted]) -> float | None:
    """The decision boundary of the first term that has one, else None."""
    return next((listed.term.boundary for listed in terms if listed.term.boundary is not None), None)


def on_logits(loss: Callable[..., jax.Array], *reads: str, boundary: float | None = None) -> Term:
    """The term of a loss that maps the logits of the batches `reads`, in this order, to one value per sample."""

    def value(passed: Pass) -> tuple[jax.Array, Any]:
        return loss(*(passed.outputs[name].logits for name in reads)), ()

    return Term(value, reads=reads, boundary=boundary)


def every(term: Term, k: int) -> Term:
    """The term times k at every k-th step, else 0 (lazy regularisation; Karras et al. 2020, section 3.1)."""
    if k == 1:
        return term

    def value(passed: Pass) -> tuple[jax.Array, Any]:
        # lax.cond needs both branches to agree on which results vary over replicas: all of them.
        def now():
            values, memory = term.value(passed)
            return parallel.varying((k * values, memory))

        def not_now():
            shapes, _ = jax.eval_shape(now)
            return parallel.varying((jnp.zeros(shapes.shape, shapes.dtype), passed.memory))

        return seldom(passed.step, k, now, not_now)

    return term._replace(value=value, period=k)


def seldom(step: jax.Array, k: int, now: Callable[..., Tree], not_now: Callable[..., Tree], *given: Any) -> Tree:
    """now(*given) at every k-th step, else not_now(*given).

    The scope's name tells those who count the arithmetic of a program how often that is (`seldom_of`).
    """
    with jax.named_scope(f"{_SELDOM}{k}"):
        return jax.lax.cond(step % k == 0, now, not_now, *given)


def seldom_of(scope: str) -> int:
    """At how many steps a conditional takes its branch once; 1 if `seldom` did not make it.

    `scope` is the conditional's own in a traced program, or holds its op_name in a compiled one. Differentiation wraps
    it: transpose(jvp(every_4)).
    """
    found = re.search(rf'\b{_SELDOM}(\d+)\)*(/cond"|$)', scope)
    return int(found[1]) if found else 1


def from_recipe(
    section: Mapping[str, Mapping[str, Number]], table: Mapping[str, Callable[..., Term]]
) -> tuple[Weighted, ...]:
    """{name: {"weight": w, "every": k, **hyperparameters}} -> the terms to sum, without those of weight 0.

    Raises UsageError for an unknown loss, and for hyperparameters that are unknown or missing.
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
    needs = {name for name, parameter in takes.items() if parameter.default is parameter.empty}
    if not needs <= set(given) <= set(takes):
        raise UsageError(
            f"the loss {name} takes {', '.join(['weight', 'every', *takes])};"
            f" the recipe gives {', '.join(given) or 'no ' + ', '.join(sorted(needs))}"
        )


def with_views(terms: tuple[Weighted, ...], key: jax.Array, batches: Batches, generate: Callable) -> dict[str, Batch]:
    """The batches, and the views of them that the terms add."""
    seen = dict(batches)
    for number, listed in enumerate(terms):
        seen |= listed.term.views(_views_key(key, number), batches, generate)
    return seen


def batches_read(terms: tuple[Weighted, ...], batches: Batches) -> dict[str, Batch]:
    """The batches on which at least one term reads the discriminator's output."""
    read = {name for listed in terms for name in listed.term.reads}
    return {name: batch for name, batch in batches.items() if name in read}


def objective(terms: tuple[Weighted, ...], passed: Pass) -> tuple[jax.Array, dict[str, Any], dict[str, jax.Array]]:
    """The weighted sum of the terms' means, a scalar; each term's new memory; the scalars to log.

    Those are each term's unweighted mean, and what it tells of its memory.
    """
    total, memory, means = jnp.zeros(()), {}, {}
    for number, (name, weight, term) in enumerate(terms):
        key = _value_key(passed.key, number)
        values, memory[name] = term.value(passed._replace(memory=passed.memory[name], key=key))
        if values.ndim != 1:
            raise ValueError(f"the term {name} gave values of shape {values.shape}, not one per sample")
        means[name] = jnp.mean(values)
        means |= {f"{name}_{entry}": memory[name][entry] for entry in term.tells}
        total += at(weight, passed.annealed) * means[name]
    return total, memory, means


def _views_key(key: jax.Array, number: int) -> jax.Array:
    """The key for the views of term `number`: even, so that no term's value has it."""
    return jax.random.fold_in(key, 2 * number)


def _value_key(key: jax.Array, number: int) -> jax.Array:
    """The key for the value of term `number`: odd, so that no term's views have it."""
    return jax.random.fold_in(key, 2 * number + 1)
