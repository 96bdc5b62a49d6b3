"""Whatever is written into a recipe, it trains a step or is refused with one line; never a traceback."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cgan_jax import recipe as recipes
from cgan_jax import train
from cgan_jax.data.batches import on_host
from cgan_jax.errors import UsageError
from cgan_jax.train_step import train_steps
from tests.command_line import cgan, write_recipe
from tests.conftest import small_recipe, strip_runs

FIELDS = sorted(key for key, _ in recipes.flattened(small_recipe()))

NAMES = (
    st.sampled_from(["adam", "keras_adam", "dcgan", "dcgan_deep", "dcgan_upsample", "digits", "all", "train"])
    | st.sampled_from(["constant", "cosine", "linear", "pmap", "shard_map", "rollback", "inception"])
    | st.sampled_from(["", "fid", "pixel_mse", "ms_ssim,kid", "../x", "é", "\x00"])
)
# Small enough that a step which is not refused takes no memory worth a word.
COUNTS = st.one_of(st.integers(-2, 9), st.sampled_from([16, 24, 32, 2**31 - 1, 2**31, -(2**63)]))
NUMBERS = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, 0.5, 1e-12, 1e-6, 0.016, 1e30, -1.0, float("inf"), float("nan"), 2.0]),
    st.floats(-2.0, 2.0, allow_subnormal=False),
)
OF_ANY_TYPE = st.one_of(NAMES, COUNTS, NUMBERS, st.booleans(), st.none(), st.just({}), st.just([1]))


def values_for(field: str) -> st.SearchStrategy:
    """Mostly of the type that the field has, now and then of any."""
    value = dict(recipes.flattened(small_recipe()))[field]
    own = {bool: st.booleans(), int: COUNTS, float: NUMBERS, str: NAMES}[type(value)]
    return st.one_of(own, own, own, OF_ANY_TYPE)


OVERRIDES = st.lists(st.sampled_from(FIELDS), min_size=1, max_size=3, unique=True).flatmap(
    lambda fields: st.fixed_dictionaries({field: values_for(field) for field in fields})
)
ROUGH = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}


def changed(overrides: dict) -> dict:
    recipe = small_recipe()
    for field, value in overrides.items():
        *path, last = field.split(".")
        section = recipe
        for name in path:
            section = section[name] if isinstance(section, dict) else {}
        section[last] = value
    return recipe


def is_too_large(recipe: dict) -> bool:
    """Whether it asks for more than a test may take, which is not wrong."""
    sizes = [value for _, value in recipes.flattened(recipe) if type(value) is int]
    return any(value > 64 for value in sizes if value < 2**31 - 1) or recipe["dataset"]["image_size"] > 32


@settings(max_examples=60, **ROUGH)
@given(OVERRIDES)
def test_a_recipe_is_refused_in_one_line_or_its_step_can_be_traced(overrides):
    recipe = changed(overrides)
    try:
        recipes.check(recipe)
        recipes.check_devices(recipe, 1)
        if any(type(value) is int and value >= 2**31 - 1 for key, value in recipes.flattened(recipe) if key != "seed"):
            return  # a size that no machine has, which is not looked at before it is tried
        dataset = train.load_dataset(recipe)
        prepared = train.prepare(recipe, dataset)
    except UsageError as error:
        assert str(error) and "\n" not in str(error)
        return
    data = on_host(dataset.images, dataset.labels)
    step = functools.partial(train_steps, prepared.algorithm, 1)
    state, scalars = jax.eval_shape(step, prepared.shapes, data)
    assert state.step.dtype == np.int32 and all(value.dtype == np.float32 for value in scalars.values())


def arguments(overrides: dict) -> list[str]:
    return [f"--config.{field}={value}" for field, value in overrides.items()]


def trains_or_is_refused(overrides: dict, folder, capfd) -> None:
    folder.mkdir()
    recipe = small_recipe()
    recipe["train"]["total_kimg"] = 0.016
    config = write_recipe(folder, recipe)
    code = cgan("train", f"--config={config}", f"--workdir={folder / 'run'}", "--nocache", *arguments(overrides))
    told = capfd.readouterr()
    assert "Traceback" not in told.err
    if code == 0:
        assert "done: " in told.out
    else:
        last = told.err.splitlines()[-1]  # a slow machine tells before it how long compiling takes
        assert code in (2, 3) and last.startswith("cgan: error: ") and told.err.count("cgan: error") == 1, told.err
        assert code == 3 or not (folder / "run").exists()


@pytest.mark.slow  # every example that is not refused compiles a step
def test_flags_train_a_step_or_are_refused_with_a_line(tmp_path, monkeypatch, capfd):
    strip_runs(monkeypatch)
    numbers = iter(range(10_000))

    @settings(max_examples=25, **ROUGH)
    @given(OVERRIDES)
    def check(overrides):
        if all(value is not None for value in overrides.values()) and not is_too_large(changed(overrides)):
            trains_or_is_refused(overrides, tmp_path / str(next(numbers)), capfd)

    check()


@pytest.mark.parametrize(
    "overrides",
    [
        {"train.g_batch_size": 8, "dataset.flip": True},
        {"generator.latent_dim": 0},
        {"g_optimizer.learning_rate": 1e30, "d_optimizer.learning_rate": 1e30},
        {"evaluate.metrics": "fid", "evaluate.num_images": 3},
        {"guard.action": "panic"},
    ],
    ids=str,
)
def test_some_that_matter(overrides, tmp_path, bare, capfd):
    trains_or_is_refused(overrides, tmp_path / "case", capfd)
