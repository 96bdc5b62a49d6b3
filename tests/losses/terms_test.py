"""Terms: those that a recipe lists, lazy evaluation, and their weighted sum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgan_jax import parallel
from cgan_jax.annealing import Annealed
from cgan_jax.errors import UsageError
from cgan_jax.losses import terms
from cgan_jax.networks import heads
from tests.replicas import FEW_WAYS, on_replicas

LOGITS = np.float32([1.0, -2.0, 0.5, 4.0])


def passed(logits=LOGITS, step=0, memory=()):
    outputs = {"fake": heads.Output(jnp.asarray(logits), {}), "real": heads.Output(-jnp.asarray(logits), {})}
    return terms.Pass({}, outputs, None, None, memory, jax.random.key(0), jnp.int32(step))


def squares():
    return terms.on_logits(jnp.square, "fake")


def scaled(factor: float = 1.0, offset: float = 0.0):
    return terms.on_logits(lambda x: factor * x + offset, "fake")


def counting():
    """A term that counts its evaluations and keeps the last mean."""

    def value(passed):
        logits = passed.outputs["fake"].logits
        return logits, {"count": passed.memory["count"] + 1, "last": jnp.mean(logits)}

    return terms.Term(value, init_memory={"count": jnp.int32(0), "last": jnp.float32(0)})


TABLE = {"squares": squares, "scaled": scaled}


def test_a_loss_reads_the_logits_of_the_named_batches_in_their_order():
    term = terms.on_logits(lambda first, second: first - 10 * second, "real", "fake")
    assert term.reads == ("real", "fake")
    np.testing.assert_allclose(term.value(passed())[0], -LOGITS - 10 * LOGITS)


def test_a_recipe_gives_terms_in_its_order_with_their_weights_and_hyperparameters():
    section = {"scaled": {"weight": 2.0, "factor": 3.0}, "squares": {"weight": -1.0}}
    listed = terms.from_recipe(section, TABLE)
    assert [(term.name, term.weight) for term in listed] == [("scaled", 2.0), ("squares", -1.0)]
    np.testing.assert_allclose(listed[0].term.value(passed())[0], 3 * LOGITS)


def test_a_term_of_weight_0_is_left_out():
    section = {"scaled": {"weight": 0.0}, "squares": {"weight": 1e-9}}
    assert [listed.name for listed in terms.from_recipe(section, TABLE)] == ["squares"]


@pytest.mark.parametrize(
    ("names", "boundary"),
    [(["bce_fake"], 0.0), (["lecam", "least_squares_real"], 0.5), (["wasserstein_real", "gradient_penalty"], None)],
)
def test_the_line_between_real_and_generated_is_that_of_the_first_loss_that_draws_one(names, boundary):
    from cgan_jax.build import DISCRIMINATOR_TERMS

    listed = terms.from_recipe({name: {"weight": 1.0} for name in names}, DISCRIMINATOR_TERMS)
    assert terms.boundary_of(listed) == boundary


def test_a_recipe_is_not_changed_by_reading_it():
    section = {"scaled": {"weight": 2.0, "every": 3, "factor": 3.0}}
    terms.from_recipe(section, TABLE)
    assert section == {"scaled": {"weight": 2.0, "every": 3, "factor": 3.0}}


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_an_unknown_loss_is_one_line_that_lists_what_there_is(weight):
    with pytest.raises(UsageError, match=r"^unknown loss 'cubes'; there are: squares, scaled$"):
        terms.from_recipe({"cubes": {"weight": weight}}, TABLE)


@pytest.mark.parametrize("weight", [0.0, 1.0])
@pytest.mark.parametrize(("name", "takes"), [("squares", "weight, every"), ("scaled", "weight, every, factor, offset")])
def test_a_hyperparameter_that_a_loss_does_not_take_is_one_line_that_lists_those_it_takes(name, takes, weight):
    with pytest.raises(UsageError) as caught:
        terms.from_recipe({name: {"weight": weight, "gamma": 1.0}}, TABLE)
    assert str(caught.value) == f"the loss {name} takes {takes}; the recipe gives gamma"


def test_a_hyperparameter_without_a_default_must_be_given():
    with pytest.raises(UsageError, match=r"^the loss needy takes weight, every, factor; the recipe gives no factor$"):
        terms.from_recipe({"needy": {"weight": 1.0}}, {"needy": lambda factor: scaled(factor)})


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_lazy_term_comes_every_kth_step_k_times_as_large_and_so_does_its_gradient(k):
    (listed,) = terms.from_recipe({"squares": {"weight": 1.0, "every": k}}, TABLE)

    @jax.jit
    def value_and_gradient(logits, step):
        value = lambda x: jnp.sum(listed.term.value(passed(x, step))[0])  # noqa: E731
        return listed.term.value(passed(logits, step))[0], jax.grad(value)(logits)

    for step in range(7):
        factor = k if step in range(0, 7, k) else 0
        value, gradient = value_and_gradient(LOGITS, step)
        np.testing.assert_allclose(value, factor * LOGITS.astype(float) ** 2, rtol=1e-6)
        np.testing.assert_allclose(gradient, factor * 2 * LOGITS, rtol=1e-6)


def test_a_lazy_term_is_0_at_other_steps_even_where_the_logits_are_infinite():
    value = terms.every(squares(), 2).value(passed(np.float32([np.inf, 1.0]), step=1))[0]
    np.testing.assert_array_equal(value, [0.0, 0.0])


@pytest.mark.parametrize("way", FEW_WAYS, ids=str)
def test_a_lazy_term_keeps_its_memory_at_other_steps(way):
    term = terms.every(counting(), 3)

    def run(logits):
        def body(memory, step):
            own = jax.lax.dynamic_slice(logits, (parallel.index() * (8 // way[1]),), (8 // way[1],))
            values, memory = term.value(passed(own, step, memory))
            return parallel.mean(memory), jnp.sum(values)

        memory = {"count": jnp.float32(0), "last": jnp.float32(0)}
        return jax.lax.scan(body, memory, jnp.arange(7))[0]

    logits = np.arange(8, dtype=np.float32)
    memory = on_replicas(way, run, logits)
    np.testing.assert_array_equal(memory["count"], [3] * way[1])  # steps 0, 3 and 6
    np.testing.assert_allclose(memory["last"], [logits.mean()] * way[1], rtol=1e-6)


def test_the_objective_is_the_weighted_sum_of_means():
    listed = (terms.Weighted("a", 2.0, squares()), terms.Weighted("b", -0.5, scaled(3.0)))
    total, memory, means = terms.objective(listed, passed(memory={"a": (), "b": ()}))
    mean_square, mean = np.mean(LOGITS.astype(float) ** 2), np.mean(LOGITS.astype(float))
    np.testing.assert_allclose(total, 2.0 * mean_square - 0.5 * 3.0 * mean, rtol=1e-6)
    np.testing.assert_allclose([means["a"], means["b"]], [mean_square, 3 * mean], rtol=1e-6)
    assert total.shape == () and memory == {"a": (), "b": ()}


def test_the_gradient_of_the_objective_is_that_of_the_weighted_sum_of_means():
    listed = (terms.Weighted("a", 2.0, squares()), terms.Weighted("b", -0.5, scaled(3.0)))
    gradient = jax.grad(lambda x: terms.objective(listed, passed(x, memory={"a": (), "b": ()}))[0])(LOGITS)
    np.testing.assert_allclose(gradient, (2.0 * 2 * LOGITS - 0.5 * 3.0) / 4, rtol=1e-6)


def test_a_weight_that_is_annealed_counts_as_it_is_by_now():
    (listed,) = terms.from_recipe({"squares": {"weight": Annealed(2.0, 6.0)}}, TABLE)
    for annealed, weight in ((0.0, 2.0), (0.25, 3.0), (1.0, 6.0)):
        total, _, means = terms.objective((listed,), passed(memory={"squares": ()})._replace(annealed=annealed))
        np.testing.assert_allclose(total, weight * np.mean(LOGITS.astype(float) ** 2), rtol=1e-6)
        np.testing.assert_allclose(means["squares"], np.mean(LOGITS.astype(float) ** 2), rtol=1e-6)


def test_each_term_reads_and_writes_its_own_memory():
    listed = (terms.Weighted("once", 1.0, counting()), terms.Weighted("often", 1.0, counting()))
    memory = {"once": {"count": 0, "last": 0.0}, "often": {"count": 7, "last": 0.0}}
    _, memory, _ = terms.objective(listed, passed(memory=memory))
    assert (memory["once"]["count"], memory["often"]["count"]) == (1, 8)
    np.testing.assert_allclose(memory["once"]["last"], np.mean(LOGITS))


@pytest.mark.parametrize("shape", [(), (4, 1), (2, 2)])
def test_a_term_that_does_not_give_one_value_per_sample_is_refused(shape):
    term = terms.Term(lambda passed: (jnp.zeros(shape), ()))
    with pytest.raises(ValueError, match="the term odd gave values of shape"):
        terms.objective((terms.Weighted("odd", 1.0, term),), passed(memory={"odd": ()}))


def test_no_two_terms_draw_the_same_numbers_nor_a_terms_views_and_its_value():
    def drawn(key):
        return jax.random.uniform(key, (3,))

    def views(key, batches, generate):
        seen.append(drawn(key))
        return {}

    seen = []
    random = terms.Term(lambda passed: (drawn(passed.key), ()), views=views)
    listed = (terms.Weighted("a", 1.0, random), terms.Weighted("b", 1.0, random))
    evaluation = passed(memory={"a": (), "b": ()})
    _, _, means = terms.objective(listed, evaluation)
    terms.with_views(listed, evaluation.key, {}, None)
    values = [float(means["a"]), float(means["b"]), *(float(jnp.mean(v)) for v in seen)]
    assert len(set(values)) == 4


def test_a_batch_of_which_only_the_images_are_read_is_not_evaluated():
    pixels = terms.Term(lambda passed: (jnp.zeros(3), ()), images=("real", "fake"))
    listed = (terms.Weighted("square", 1.0, squares()), terms.Weighted("pixels", 1.0, pixels))
    batches = {"real": "the real ones", "fake": "the fakes"}
    assert terms.batches_read(listed, batches) == {"fake": "the fakes"}
