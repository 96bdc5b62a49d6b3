"""The parts of a step that `cgan benchmark` times: every turn does all of its work."""

import functools

import jax
import pytest

from cgan_jax import parallel
from cgan_jax.build import ImageSpec, build
from cgan_jax.data.batches import on_host
from cgan_jax.data.sources import load
from cgan_jax.evaluation import speed
from cgan_jax.evaluation.program import Program
from cgan_jax.train_state import create

TURNS = 4


@pytest.mark.parametrize("part", ["discriminator", "generator"])
def test_no_product_is_computed_once_for_all_turns(recipe, part):
    spec = ImageSpec(8, 1, 10)
    algorithm = build(recipe, spec)
    state = jax.eval_shape(lambda: create(algorithm, spec, jax.random.key(0, impl=parallel.PRNG)))
    digits = load("digits", "", "all", "", 8)
    data = on_host(digits.images, digits.labels)
    call = jax.jit(functools.partial(speed.turns, algorithm, part, TURNS))
    program = Program(call.lower(state, data).compile().as_text())
    products = [times for _, i, times in program.runs() if i.op in ("convolution", "dot")]
    assert len(products) > 5 and set(products) == {TURNS}
