"""`cgan benchmark`: every number is there and adds up, for people and for machines."""

import contextlib
import importlib.metadata
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgan_jax import train_state
from cgan_jax.build import ImageSpec, build
from cgan_jax.commands.benchmark import prediction, table
from cgan_jax.data.batches import Data
from cgan_jax.errors import UsageError
from cgan_jax.evaluation import speed
from cgan_jax.run.throughput import layer_flop
from cgan_jax.train_step import train_step
from tests.command_line import cgan, write_recipe
from tests.run.throughput_test import by_hand

SPEC = ImageSpec(image_size=8, channels=1, num_classes=10)


@pytest.fixture(scope="module")
def printed(tmp_path_factory) -> str:
    """What --json prints for the small recipe, made unconditional by a flag."""
    from tests.conftest import small_recipe

    config = write_recipe(tmp_path_factory.mktemp("benchmark"), small_recipe())
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        flags = ("--calls=3", "--json", "--config.dataset.conditional=False", "--config.train.steps_per_call=2")
        flags += ("--operations=200",)
        assert cgan("benchmark", f"--config={config}", *flags) == 0
    return out.getvalue()


def test_json_is_one_object_whose_numbers_agree(printed):
    numbers = json.loads(printed)
    assert numbers["recipe"] == "recipe" and numbers["data"] == "1797 images of 8x8x1, digits all"
    assert numbers["placement"] == "replicated"
    assert (numbers["devices"], numbers["calls"], numbers["steps_per_call"]) == (8, 3, 2)
    assert numbers["jax"] == jax.__version__ and numbers["device"].startswith("cpu")
    flop = by_hand(width=4, latent_dim=4, output_kernel_size=4, batch_size=16) / 16
    assert numbers["gflop_per_image_layers"] * 1e9 == pytest.approx(flop)
    speed, step = numbers["images_per_sec"], numbers["seconds_per_step"]
    assert speed["median"] == pytest.approx(16 / step["median"])
    assert numbers["gflop_per_sec"] * 1e9 == pytest.approx(flop * speed["median"])
    assert numbers["share_of_ceiling"] == pytest.approx(numbers["gflop_per_sec"] / numbers["ceiling_gflop_per_sec"])
    for spread in (speed, step, numbers["sampled_images_per_sec"], *numbers["part_seconds"].values()):
        assert 0 < spread["low"] <= spread["median"] <= spread["high"]
    assert list(numbers["part_seconds"]) == ["data", "discriminator", "generator", "optimizers"]
    assert 0 < numbers["compile_seconds"] < numbers["first_step_seconds"]
    assert numbers["peak_gigabytes"] > 0.01 and numbers["peak_of"] == "process"
    assert numbers["gflop_per_image_compiled"] > 0
    operations = numbers["operations"]
    costs = [one["milliseconds"] for one in operations["costly"]]
    assert 5 < len(costs) <= 200 and costs == sorted(costs, reverse=True) and costs[-1] > 0
    assert any("networks/" in one["line"] for one in operations["costly"]) and operations["started"] > 5


def test_the_table_has_a_line_for_every_number(printed):
    text = table(json.loads(printed))
    names = (
        *("step", "real images", "an image's layers", "an image as compiled", "layers' speed", "ceiling, float32"),
        *("share of the ceiling", "compilation", "command to first step", "peak memory, process", "images drawn"),
        *("data alone", "discriminator alone", "generator alone", "optimizers, average"),
    )
    lines = text.splitlines()
    assert [line[:24].rstrip() for line in lines[5:21]] == [*names, "operations of a step"]
    times = [float(line.split(" times")[0]) for line in lines[21:]]
    assert len(times) > 5 and min(times) > 0 and all(" ms   " in line for line in lines[21:])
    assert "3 calls of 2 step(s), shard_map over 8 x cpu" in lines[0] and jax.__version__ in lines[1]
    assert lines[2] == "1797 images of 8x8x1, digits all, replicated"
    assert "None" not in text and max(map(len, lines[:21])) < 120
    unknown = json.loads(printed) | {"gflop_per_image_compiled": None}
    assert "an image as compiled                   -\n" in table(unknown) + "\n"


def test_the_parts_are_the_arithmetic_of_the_step_and_leave_what_is_not_theirs(recipe):
    recipe["train"]["d_steps_per_g_step"] = 2
    algorithm = build(recipe, SPEC)
    data = Data(jnp.zeros((20, 8, 8, 1), jnp.uint8), jnp.arange(20) % 10)
    state = jax.eval_shape(lambda: train_state.create(algorithm, SPEC, jax.random.key(0)))
    parts, i = speed.parts(algorithm, data), jax.ShapeDtypeStruct((), np.int32)
    flop = {name: layer_flop(part, state, i) for name, part in parts.items()}
    whole = layer_flop(lambda state: train_step(algorithm, state, data), state)
    assert flop["data"] == flop["optimizers"] == 0
    assert flop["discriminator"] + flop["generator"] == whole
    for part in parts.values():
        after, scalars = jax.eval_shape(part, state, i)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
        assert all(value.shape == () for value in scalars.values())


def test_where_the_data_are_not_prepared_images_are_made_up_and_it_says_so(recipe, tmp_path):
    missing = recipe["dataset"] | {"source": "tfds", "name": "cifar10", "split": "train", "data_dir": str(tmp_path)}
    dataset, source = speed.load_or_make_up(missing)
    assert dataset.images.shape == (1024, 8, 8, 3)
    assert "made up" in source and "cifar10 is not prepared" in source
    folder = recipe["dataset"] | {"source": "image_folder", "name": "photos", "data_dir": str(tmp_path)}
    assert "made up" in speed.load_or_make_up(folder)[1]
    with pytest.raises(UsageError, match="unknown split"):
        speed.load_or_make_up(recipe["dataset"] | {"split": "validation"})


PREDICTED = {
    **{"recipe": "digits", "topology": "v5e:2x4", "devices": 8, "device": "TPU v5 lite", "compiler": "libtpu 1"},
    **{"jax": "1", "date": "2026-11-26", "placement": "replicated", "images": 1797, "steps_per_call": 32},
    **{"batch_per_device": 8, "dtype": "float32", "gflop_per_step": 0.5, "fits": True, "compile_seconds": 61.0},
    "memory_gigabytes": {"arguments": 0.1, "temporaries": 0.2, "peak": 0.3, "device": 17.18, "share": 0.98},
    **{"state_leaves": 76, "donated_leaves": 76, "operations_per_step": 300.0, "gigabytes_per_step": 0.25},
    "collectives_per_step": {"all-reduce": {"count": 2.0, "megabytes": 1.5}},
    **{"images_per_sec": {"arithmetic": 9e5, "bytes": 2e5, "compiler": 3e5}, "bound": "bytes", "share_of_peak": 0.2},
    "drawing": {"images": 512, "peak_gigabytes": 0.01, "images_per_sec": {"arithmetic": 5e6, "bytes": 4e6}},
    "features": {"images": 2048, "peak_gigabytes": 0.13, "images_per_sec": {"arithmetic": 1e5, "bytes": 4e6}},
    "costly": [{"milliseconds": 0.1, "megabytes": 8.0, "operation": "fusion", "line": "networks/layers.py:56"}],
}


def test_a_prediction_says_that_it_is_one_by_which_compiler_and_what_bounds():
    text = prediction(PREDICTED)
    assert "A prediction, nothing ran: libtpu 1, jax 1, 2026-11-26" in text
    assert "fits                    0.3 GB beside the 16.8 GB" in text and "76 of 76 arrays" in text
    assert "at most, by bytes       2e+05 images/s, the least" in text and text.count("the least") == 1
    assert "images drawn            4e+06 images/s at most, 0.01 GB" in text
    assert "features of images      1e+05 images/s at most, 0.13 GB" in text
    assert "all-reduce              2 a step, 1.5 MB" in text and text.endswith("8  fusion  networks/layers.py:56")


def test_what_does_not_fit_is_told_with_advice():
    told = ("recipe", "topology", "devices", "device", "compiler", "jax", "date", "placement", "images", "dtype")
    numbers = {name: PREDICTED[name] for name in (*told, "steps_per_call", "batch_per_device", "gflop_per_step")}
    memory = {"peak": None, "device": 17.18, "share": 0.98}
    numbers |= {"fits": False, "memory_gigabytes": memory, "advice": ["--config.train.accumulate=2", "more devices"]}
    text = prediction(numbers)
    assert "does not fit            more beside the 16.8 GB" in text
    assert "take less by            --config.train.accumulate=2\n" in text and "None" not in text


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "--config=NAME must be given"),
        (["--config=nowhere.py"], "no such recipe file: nowhere.py"),
        (["--config={recipe}", "--calls=0"], "--calls=0: 0 is not a positive integer"),
        (["--config={recipe}", "--calls=many"], "calls"),
        (["--config={recipe}", "--config.train.batch_size=12"], "batch_size=12 cannot be shared evenly by 8 devices"),
        (["--config={recipe}", "--config.train.batchsize=12"], "unknown key train.batchsize"),
        (["--config={recipe}", "--workdir=runs"], "workdir"),
        (["--config={recipe}", "--topology=v9:2x2"], "unknown device 'v9'; there are: v4, v5e"),
        (["--config={recipe}", "--topology=v5e"], "v5e takes a shape such as v5e:2x2"),
        (["--config={recipe}", "--topology=h100:0"], "h100 takes a shape such as h100:8"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(recipe, tmp_path, capsys, arguments, line):
    path = write_recipe(tmp_path, recipe)
    assert cgan("benchmark", *(argument.format(recipe=path) for argument in arguments)) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.startswith("cgan: error: ") and line in error and error.count("\n") == 1


@pytest.mark.parametrize(("package", "topology"), [("libtpu", "v5e:2x4"), ("jax-cuda13-pjrt", "h100")])
def test_without_the_compiler_the_error_says_what_to_install(recipe, tmp_path, capsys, package, topology):
    if package in {distribution.name for distribution in importlib.metadata.distributions()}:
        pytest.skip(f"{package} is installed")
    assert cgan("benchmark", f"--config={write_recipe(tmp_path, recipe)}", f"--topology={topology}") == 2
    assert "pip install" in capsys.readouterr().err
