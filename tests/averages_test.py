"""Several averages of one generator: each command draws from the one that is asked for, and says which it is."""

import functools
import json
import re
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import cgan_jax
from cgan_jax import averages, exported
from cgan_jax.build import ImageSpec, build
from cgan_jax.errors import UsageError
from cgan_jax.files.storage import make_folder
from cgan_jax.run import workdir
from cgan_jax.run.checkpoint import Checkpoints
from cgan_jax.sampling import sampling, trained
from cgan_jax.serving.models import Served
from cgan_jax.train import train_and_evaluate
from cgan_jax.train_state import create_quickly
from cgan_jax.train_step import averaged
from tests.command_line import cgan
from tests.conftest import small_recipe
from tests.random_run import write_random_run
from tests.transfer_test import begun, state_at

HALFLIVES = "1,25"
THERE = "there are: 0.1 (the default), 1, 25, last"
LABELS = INDICES = np.arange(10, dtype=np.int32)


def recipe_of_several() -> dict:
    recipe = small_recipe()
    recipe["ema"]["halflives_kimg"] = HALFLIVES
    return recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with random weights, of which every average has others."""
    return write_random_run(tmp_path_factory.mktemp("averages") / "run", recipe_of_several())


@pytest.fixture(scope="module")
def params(run):
    """The generator's parameters at step 8 by the name of the average."""
    state = state_at(run, 8)
    return {
        None: state.ema_params,
        "0.1": state.ema_params,
        "last": state.g_params,
        **{name: average["params"] for name, average in state.further.items()},
    }


def assert_same(tree, other) -> None:
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(tree), jax.device_get(other))


@pytest.mark.parametrize(
    ("asked", "name"),
    [(None, None), ("0.1", "0.1"), ("1", "1"), (25.0, "25"), ("2.5e1", "25"), ("last", "last"), (0, "last")],
)
def test_an_average_is_chosen_by_its_halflife(run, params, asked, name):
    sampler = sampling.Sampler(run, ema=asked)
    assert_same(sampler.variables["params"], params[name])
    expected = {"last": "the last step's, not averaged"}.get(name, f"averaged, half-life {name or '0.1'} kimg")
    assert averages.described(sampler.info.recipe) == expected
    assert_same(sampler.discriminator()[1], sampling.Sampler(run).discriminator()[1])


@pytest.mark.parametrize("asked", ["all", "", "nan", "inf", "-1", "0.1 to 5"])
def test_another_one_is_refused_with_what_there_is(run, asked):
    with pytest.raises(UsageError) as caught:
        sampling.Sampler(run, ema=asked)
    assert str(caught.value) == f"--ema={asked}: no such average; {THERE}"


def test_a_run_of_one_average_can_be_drawn_from_its_last_weights(tmp_path):
    run = write_random_run(tmp_path / "run", small_recipe())
    assert_same(sampling.Sampler(run, ema="last").variables["params"], state_at(run, 8).g_params)
    with pytest.raises(UsageError, match=r"there are: 0.1 \(the default\), last; the best sum of .* in 2 checkpoints"):
        sampling.Sampler(run, ema="1")


def test_a_default_that_is_annealed_goes_by_both_its_ends():
    recipe = recipe_of_several()
    recipe["anneal"] = {"kimg": 1.0, "to": {"ema": {"halflife_kimg": 25.0}, "g_optimizer": {"b2": 0.9}}}
    assert averages.names(recipe) == ["0.1 to 25", "1", "25", "last"]
    alone = averages.with_default(recipe, "25")
    assert averages.names(alone) == ["25", "last"] and alone["anneal"]["to"] == {"g_optimizer": {"b2": 0.9}}
    assert recipe["ema"]["halflives_kimg"] == HALFLIVES, "the recipe that was given is not changed"


@pytest.mark.parametrize("command", ["sample", "synthesize", "export", "packed", "serve", "api"])
def test_every_way_to_a_model_takes_it(run, tmp_path, command):
    drawn = sampling.gathered(sampling.Sampler(run, ema="25").images(5, LABELS, INDICES * 0)).astype(int)
    others = sampling.gathered(sampling.Sampler(run).images(5, LABELS, INDICES * 0)).astype(int)
    assert np.abs(drawn - others).max() > 10
    out, of = tmp_path / "out", (f"--workdir={run}", "--ema=25")
    options = ("--num_images=10", "--seed=5")
    if command == "sample":
        assert cgan("sample", *of, *options, "--labels=all", f"--out={out}.npz") == 0
        found = np.load(f"{out}.npz")["images"]
    elif command == "synthesize":
        assert cgan("synthesize", *of, *options, "--format=npz", f"--out={out}") == 0
        with np.load(out / "images.npz") as arrays:
            found = arrays["images"][np.argsort(arrays["labels"])]
        assert "averaged, half-life 25 kimg" in (out / "README.md").read_text()
    elif command == "export":
        assert cgan("export", *of, f"--out={out}") == 0
        found = exported.load(out)(LABELS, seed=5)
    elif command == "packed":
        assert cgan("export", *of, "--format=packed", f"--out={out}") == 0
        found = sampling.gathered(sampling.Sampler(out, ema="25").images(5, LABELS, INDICES * 0))
    elif command == "serve":
        found = Served(run, ema="25").images(5, LABELS, INDICES * 0, 0.0)
    else:
        found = cgan_jax.load(run, ema=25).sample(num_images=10, seed=5).images
    assert np.abs(found.astype(int) - drawn).max() <= (2 if command == "packed" else 1)


def test_what_is_exported_holds_one_and_knows_which(run, tmp_path):
    for kind in ("cgan", "packed"):
        out = tmp_path / kind
        assert cgan("export", f"--workdir={run}", "--ema=last", f"--format={kind}", f"--out={out}") == 0
        info = trained.info_at(out)
        assert averages.described(info.recipe) == "the last step's, not averaged"
        with pytest.raises(UsageError, match=r"--ema=1: no such average; there are: last \(the default\)$"):
            sampling.Sampler(out, ema="1")


def test_a_model_of_the_package_is_of_one_average(capsys):
    assert cgan("evaluate", "--model=digits", "--metrics=ms_ssim", "--num_images=100", "--ema=all") == 2
    assert "--ema=all compares the averages of a run, and digits holds one alone" in capsys.readouterr().err


def test_all_are_scored_at_once_in_a_table_a_picture_and_a_log_of_their_own(tmp_path, capsys):
    run = write_random_run(tmp_path / "run", recipe_of_several())
    drawn = (f"--workdir={run}", "--metrics=pixel_mse", "--num_images=40", "--seeds=2")
    assert cgan("evaluate", *drawn, "--ema=all", f"--json={tmp_path / 'all.json'}") == 0
    table = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]
    assert table[:5] == ["half-life, kimg", "last", "0.1", "1", "25"]
    assert Image.open(run / "averages.png").size[0] > 300
    result = json.loads((tmp_path / "all.json").read_text())
    assert list(result) == ["0.1", "1", "25", "last"]
    (line,) = workdir.read_metrics(run, workdir.EVALUATIONS)
    assert line["eval/pixel_mse"] == pytest.approx(np.mean(result["0.1"]["scores"]["pixel_mse"]))
    assert [line["average"] for line in workdir.read_metrics(run, workdir.AVERAGES)] == ["1", "25", "last"]
    scores = {name: trained.metrics_at(run, 8, name)["pixel_mse"] for name in ("", "1", "25", "last")}
    assert len(set(scores.values())) == 4
    assert cgan_jax.load(run, ema=1).scores["pixel_mse"] == scores["1"]
    # One average scored alone is the one of the table, and a later line replaces an earlier one.
    assert cgan("evaluate", *drawn, "--ema=25") == 0
    assert trained.metrics_at(run, 8, "25")["pixel_mse"] == scores["25"]
    assert workdir.read_metrics(run, workdir.AVERAGES)[-1]["protocol"]["weights"] == "averaged, half-life 25 kimg"
    assert len(workdir.read_metrics(run, workdir.EVALUATIONS)) == 1


def test_a_run_that_begins_from_another_begins_all_averages_from_its_default(run):
    began, there = begun(recipe_of_several(), run), state_at(run, 8)
    assert list(began.further) == ["1", "25"]
    for average in began.further.values():
        assert_same(average["params"], there.ema_params)


def test_a_run_resumes_with_all_averages_and_forgets_scores_of_later_steps(bare, tmp_path):
    run, recipe = tmp_path / "run", recipe_of_several()
    train_and_evaluate(recipe, run)
    whole = state_at(run, 8)
    assert not np.array_equal(*(whole.further[name]["params"]["Dense_0"]["kernel"] for name in ("1", "25")))
    for step in (4, 8):
        workdir.append_metrics(run, {"step": step, "kimg": 0.1, "average": "1", "eval/fid": 1.0}, workdir.AVERAGES)
    shutil.rmtree(run / "checkpoints" / "8")
    train_and_evaluate(recipe, run)
    assert_same(state_at(run, 8), whole)
    assert [line["step"] for line in workdir.read_metrics(run, workdir.AVERAGES)] == [4]


def test_a_checkpoint_without_further_averages_is_what_it_was_before_there_were_any(run, tmp_path):
    one = write_random_run(tmp_path / "run", small_recipe())
    for folder, items in ((one, {"state", "ema"}), (run, {"state", "ema", "ema_1", "ema_25"})):
        assert {path.name for path in (folder / "checkpoints" / "8").iterdir() if path.is_dir()} == items
        assert "further" not in (folder / "checkpoints" / "8" / "state" / "_METADATA").read_text()


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    """(the folder of a run whose generator walks at random for 60 steps, the weights of its first layer at each)."""
    recipe = small_recipe()
    recipe["ema"] = {"halflife_kimg": 0.064, "halflives_kimg": "0.32", "start_kimg": 0.048}  # 4, 20 and 3 steps
    recipe["train"]["total_kimg"] = 0.96
    folder, spec = tmp_path_factory.mktemp("walk") / "run", ImageSpec(8, 1, 10)
    algorithm, rng = build(recipe, spec), np.random.default_rng(0)
    make_folder(folder)
    workdir.write_info(folder, workdir.RunInfo(recipe, 1, [str(digit) for digit in range(10)], 1797))
    checkpoints = Checkpoints(folder)
    state, step = create_quickly(algorithm, spec, 0), jax.jit(functools.partial(averaged, algorithm))
    seen = [5.0 + state.g_params["Dense_0"]["kernel"]]
    for number in range(1, 61):
        seen.append(seen[-1] + rng.normal(size=seen[0].shape).astype(np.float32))
        layer = {**state.g_params["Dense_0"], "kernel": seen[-1]}
        state = step(state.replace(g_params={**state.g_params, "Dense_0": layer}))
        if number % 5 == 0:
            checkpoints.save(state)
    checkpoints.close()
    return folder, np.array(seen)


@pytest.mark.parametrize("steps", [6, 12, 30])
def test_another_halflife_is_a_sum_of_the_averages_in_the_checkpoints(walk, steps, capsys):
    folder, seen = walk
    expected = seen[3]
    for weights in seen[4:51]:
        expected = weights + 0.5 ** (1 / steps) * (expected - weights)
    sampler = sampling.Sampler(folder, 50, ema=steps * 0.016)
    found = np.asarray(sampler.variables["params"]["Dense_0"]["kernel"])
    assert averages.described(sampler.info.recipe) == f"averaged, half-life {steps * 0.016:g} kimg"
    off = np.sqrt(np.mean((found - expected) ** 2))
    assert off < 0.03 * np.sqrt(np.mean((seen[50] - expected) ** 2))
    told = re.search(r"is a sum of 20 averages in 10 checkpoints, (\d\.\d\d)% off", capsys.readouterr().out)
    assert float(told[1]) < 3


@pytest.mark.parametrize(
    "command", [("sample", "--ema=0.001", "--out=none.png", "--labels=3"), ("evaluate", "--ema=last,0.001")]
)
def test_one_that_no_sum_comes_close_to_is_refused(walk, capsys, command):
    assert cgan(*command, f"--workdir={walk[0]}") == 2
    there = "there are: 0.064 (the default), 0.32, last; the best sum of those in 12 checkpoints is"
    assert there in capsys.readouterr().err
    assert not (walk[0] / "averages.jsonl").exists()
