"""The report: what it collects from whole, torn and hostile runs, and how a browser shows it."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from cgan_jax.errors import UsageError
from cgan_jax.run import recovery, report, workdir
from tests.browser import opened
from tests.command_line import cgan
from tests.conftest import small_recipe

HOSTILE = '</script><script>document.title="taken"</script><b>cat'


def write_run(path, kimgs=(1.0, 2.0, 3.0), class_names=("cat", "dog"), **scalars):
    """Writes a run as training leaves it, with `scalars` in the evaluations."""
    (path / "samples").mkdir(parents=True)
    recipe = small_recipe()
    recipe["train"]["total_kimg"] = 4.0
    workdir.write_info(path, workdir.RunInfo(recipe, 3, list(class_names), 100))
    for step, kimg in enumerate(kimgs):
        line = {"step": step, "kimg": kimg, "seconds": 10.0 * step}
        workdir.append_metrics(path, {**line, "train/d_loss": kimg / 2, "time/images_per_sec": 7.0})
        noise = np.random.default_rng(step).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path / "samples" / f"kimg_{kimg:010.3f}.png")
    for kimg in kimgs[-2:] if scalars else ():
        found = {f"eval/{name}": value * kimg for name, value in scalars.items()}
        workdir.append_metrics(path, {"step": 0, "kimg": kimg, "seconds": 0.0, **found}, workdir.EVALUATIONS)
    return path


def data_of(html: str) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', html, re.S)[1])


def test_a_report_holds_the_curves_pictures_recipe_and_state_of_each_run(tmp_path):
    one, two = write_run(tmp_path / "one" / "run", cfd1k_train=2.0), write_run(tmp_path / "two" / "run", (1.0, 4.0))
    workdir.append_environment(one, {"command": "cgan train", "jax": "1.2"})
    recovery.remember_rollback(one, step=7, kimg=2.5, to=3, why="train/d_loss is nan")
    first, second = data_of(report.page([one, two]))["runs"]
    assert (first["name"], second["name"]) == ("one/run", "two/run")
    assert (first["status"], second["status"]) == ("stopped", "finished")
    assert first["curves"]["train/d_loss"] == [[1.0, 0.5], [2.0, 1.0], [3.0, 1.5]]
    assert first["curves"]["eval/cfd1k_train"] == [[2.0, 4.0], [3.0, 6.0]]
    assert [picture["kimg"] for picture in second["pictures"]] == [1.0, 4.0]
    assert first["recipe"]["train.total_kimg"] == 4.0
    assert first["rollbacks"] == [{"step": 7, "kimg": 2.5, "to": 3, "why": "train/d_loss is nan"}]
    assert first["environment"] == [{"command": "cgan train", "jax": "1.2"}] and second["environment"] == []


def test_a_run_that_has_used_its_minutes_is_finished(tmp_path):
    run = write_run(tmp_path / "run")
    info = workdir.read_info(run)
    for minutes, status in ((1.0, "stopped"), (0.01, "finished")):
        info.recipe["train"]["max_minutes"] = minutes
        workdir.write_info(run, info)
        assert report.collect(run, "run", 10**6)["status"] == status


def test_the_status_of_a_run_in_training(tmp_path):
    with workdir.locked(write_run(tmp_path / "run")):
        assert report.collect(tmp_path / "run", "run", 10**6)["status"] == "training"


def test_torn_lines_numbers_that_are_not_finite_and_broken_pictures_are_left_out(tmp_path):
    run = write_run(tmp_path / "run")
    with open(run / "metrics.jsonl", "a") as log:
        log.write('{"step": 3, "kimg": 3.5, "seconds": 30.0, "train/d_loss": NaN}\n{"step": 4, "ki')
    picture = run / "samples" / "kimg_000002.000.png"
    picture.write_bytes(picture.read_bytes()[:100])
    found = data_of(report.page([run]))["runs"][0]
    assert [kimg for kimg, _ in found["curves"]["train/d_loss"]] == [1.0, 2.0, 3.0]
    assert [picture["kimg"] for picture in found["pictures"]] == [1.0, 3.0]
    assert found["kimg"] == 3.5


def test_long_curves_become_means_of_neighbours():
    lines = [{"kimg": float(i), "train/x": float(i % 2)} for i in range(5000)]
    points = report.curves(lines, "train/")["train/x"]
    assert len(points) == 500
    assert points[0] == [4.5, 0.5] and points[-1] == [4994.5, 0.5]


def test_the_last_of_several_evaluations_of_one_checkpoint_counts():
    lines = [{"kimg": kimg, "eval/cfd": value} for kimg, value in ((2.0, 5.0), (1.0, 9.0), (2.0, 4.0))]
    assert report.curves(lines, "eval/") == {"eval/cfd": [[1.0, 9.0], [2.0, 4.0]]}


def test_a_curve_has_numbers_of_one_feature_network():
    old, new = ({"kimg": kimg, "protocol": {"weights_sha256": name}} for kimg, name in ((1.0, "old"), (2.0, "new")))
    pixels = {"kimg": 3.0, "protocol": {}}
    assert report.comparable([old, new, pixels]) == [new, pixels]
    assert report.comparable([new, old]) == [old]
    assert report.comparable([pixels]) == [pixels] and report.comparable([]) == []


def test_pictures_stay_below_their_share_and_keep_the_first_and_last(tmp_path):
    run = write_run(tmp_path / "run", tuple(float(i) for i in range(1, 60)))
    every = report.pictures(run / "samples", 10**9)
    assert len(every) == 40 and (every[0]["kimg"], every[-1]["kimg"]) == (1.0, 59.0)
    few = report.pictures(run / "samples", sum(len(picture["src"]) for picture in every) // 3)
    assert len(few) == 10 and (few[0]["kimg"], few[-1]["kimg"]) == (1.0, 59.0)


def test_a_missing_run_is_one_line(tmp_path):
    with pytest.raises(UsageError, match="holds no run"):
        report.page([tmp_path])


def test_a_run_that_has_only_started_has_a_report(tmp_path):
    run = write_run(tmp_path / "run", ())
    assert data_of(report.page([run]))["runs"][0]["pictures"] == []


@pytest.mark.slow  # a browser starts
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_a_browser_shows_curves_moves_the_slider_and_treats_names_as_text(tmp_path, colours):
    run = write_run(
        tmp_path / "run", class_names=(HOSTILE, "dog"), cfd1k_train=2.0, **{f"class_accuracy/{HOSTILE}": 0.1}
    )
    recovery.remember_rollback(run, step=7, kimg=2.5, to=3, why="a loss was not finite")
    assert cgan("report", f"--workdir={tmp_path / 'run'}") == 0
    with opened(f"file://{tmp_path}/run/report.html", colours) as page:
        assert page.title() == "run - cgan_jax"
        assert page.get_by_text(HOSTILE, exact=True).count() == 1
        assert page.get_by_role("row", name="a loss was not finite").is_visible()
        losses = page.locator(".chart", has_text="losses")
        assert "d_loss 1.5 at the end" in " ".join(losses.inner_text().split())
        box = losses.locator("svg").bounding_box()
        page.mouse.move(box["x"] + 0.55 * box["width"], box["y"] + box["height"] / 2)
        assert "d_loss 1 at 2 kimg" in " ".join(losses.inner_text().split())
        shown = page.locator("img[alt^=samples]")
        last = shown.get_attribute("src")
        page.get_by_label("kimg").fill("0")
        assert shown.get_attribute("src") != last and page.get_by_text("1 kimg", exact=True).is_visible()
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 23, 26)"}[colours]


@pytest.mark.slow  # a browser starts
def test_a_browser_shows_numbers_that_differ_in_their_last_bit(tmp_path):
    """An axis cannot be counted through in steps of their difference."""
    run = write_run(tmp_path / "run", (0.1, float(np.nextafter(0.1, 1))))
    (tmp_path / "a.html").write_text(report.page([run]))
    with opened(f"file://{tmp_path}/a.html") as page:
        assert page.locator(".chart", has_text="losses").locator("svg").is_visible()


@pytest.mark.slow  # a browser starts
def test_a_browser_overlays_several_runs_and_marks_differences_of_their_recipes(tmp_path):
    one, two = write_run(tmp_path / "one"), write_run(tmp_path / "two", (1.0, 4.0))
    info = workdir.read_info(two)
    info.recipe["seed"] = 5
    workdir.write_info(two, info)
    (tmp_path / "both.html").write_text(report.page([one, two]))
    with opened(f"file://{tmp_path}/both.html") as page:
        assert page.locator(".chart", has_text="losses").locator("path").count() == 2
        assert page.locator("tr.differs:visible").all_inner_texts() == ["seed\t0\t5"]


def test_grids_are_in_the_order_of_their_kimg(tmp_path):
    names = ["kimg_000000.png", "kimg_000000.320.png", "kimg_000013.png", "kimg_000013.312.png", "kimg_000100.png"]
    for name in [*names, "real.png", "kimg_1.2.3.png", "kimg_..png", "kimg_1..png"]:
        (tmp_path / name).touch()
    assert [path.name for _, path in report.grids_in(tmp_path)] == names
