"""Synthetic datasets: how many of which class, in which order, through interruptions, and what their card says."""

import json
import os
import signal
import types
from pathlib import Path

import numpy as np
import pytest

from cgan_jax.errors import Interrupted, UsageError
from cgan_jax.run import workdir
from cgan_jax.sampling import card, synthesis
from cgan_jax.sampling.formats import Plan
from tests.conftest import small_recipe

NAMES = ["cat", "dog", "tree frog"]


def counts(balance, num_images=10, real=(0, 0, 0, 1)):
    return synthesis.counts_for(balance, num_images, NAMES, lambda: np.int32(real))


@pytest.mark.parametrize(
    ("balance", "num_images", "expected"),
    [
        ("uniform", 10, [4, 3, 3]),
        ("uniform", 2, [1, 1, 0]),
        ("dataset", 8, [6, 2, 0]),
        ("dataset", 9, [7, 2, 0]),  # quotas 6.75 and 2.25
        ("dataset", 10, [8, 2, 0]),  # 7.5 and 2.5: the first of equal remainders
        ("cat=5,dog=1", 10, [5, 1, 0]),
        ("tree frog=2, 0=1", 10, [1, 0, 2]),
        ("DOG=7", 10, [0, 7, 0]),
    ],
)
def test_counts_by_balance(balance, num_images, expected):
    assert counts(balance, num_images) == expected


@pytest.mark.parametrize(
    ("balance", "message"),
    [
        ("even", "--balance must be uniform, dataset or counts such as cat=5000,dog=1000, given 'even'"),
        ("", "--balance must be uniform"),
        ("cat=5,dog", "--balance must be uniform"),
        ("cow=5", "unknown class 'cow'; there are 3: 0 cat"),
        ("cat=5,0=5", "class '0' is asked for twice"),
        ("cat=many", "--balance: the count of 'cat' must be 1 to 20000000, given 'many'"),
        ("cat=0", "given '0'"),
        ("cat=15000000,dog=15000000", "--balance asks for 30000000 images, more than 20000000"),
        ("cat=-1", "given '-1'"),
    ],
)
def test_what_is_no_balance_is_one_line(balance, message):
    with pytest.raises(UsageError) as caught:
        counts(balance)
    assert message in str(caught.value)


def test_classes_are_mixed_evenly_and_every_image_comes_once():
    given = [30, 10, 0, 5]
    labels, indices = synthesis.interleaved(given)
    assert labels.dtype == indices.dtype == np.int32
    for label, count in enumerate(given):
        assert indices[labels == label].tolist() == list(range(count))
    for end in range(1, 46):
        shares = np.bincount(labels[:end], minlength=4)
        assert np.all(np.abs(shares - np.array(given) * end / 45) <= 1.01)
    assert synthesis.interleaved([2, 2])[0].tolist() == [0, 1, 0, 1]


PLAN = Plan("pets_synthetic", tuple(NAMES), *synthesis.interleaved([5, 4, 2]), (4, 4, 3), shard_size=4)


def unfinished(out: Path, form: str, step=8, seed=0) -> synthesis.Unfinished:
    info = workdir.RunInfo(small_recipe(), 3, NAMES, 100)
    sampler = types.SimpleNamespace(info=info, step=step, batch_stats="ema", logged_as="")
    return synthesis.Unfinished(out, card.origin(out.parent, sampler), PLAN, form, seed, None)


def image_of(label, index):
    return np.random.default_rng((label, index)).integers(0, 256, (4, 4, 3), dtype=np.uint8)


def draw(places):
    """The images of some places in batches of 3, which no shard is a multiple of."""
    pairs = list(zip(PLAN.labels[places].tolist(), PLAN.indices[places].tolist(), strict=True))
    for start in range(0, len(pairs), 3):
        yield np.stack([image_of(*pair) for pair in pairs[start : start + 3]])


def write(out: Path, form: str, draw=draw, **settings):
    begun = unfinished(out, form, **settings)
    with workdir.locked(begun.folder):
        begun.write(draw)
        begun.move()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


FORMATS = ["image_folder", "npz", "tar", "tfds"]


@pytest.mark.parametrize("form", FORMATS)
def test_a_dataset_is_what_its_format_says_and_nothing_else_is_left(form, tmp_path):
    write(tmp_path / "out", form)
    assert set(contents(tmp_path / "out")) == {str(path) for path in synthesis.files_of(form, PLAN)}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("images", [0, 3, 4, 6, 10])
def test_one_that_was_cut_off_goes_on_to_the_same_bytes(form, images, tmp_path):
    drawn = 0

    def failing(places):
        nonlocal drawn
        for batch in draw(places):
            if drawn + len(batch) > images:
                raise Killed
            drawn += len(batch)
            yield batch

    write(tmp_path / "whole", form)
    with pytest.raises(Killed):
        write(tmp_path / "out", form, failing)
    assert not (tmp_path / "out").exists()
    begun = unfinished(tmp_path / "out", form)
    assert begun.images == images // PLAN.shard_size * PLAN.shard_size
    again = []
    write(tmp_path / "out", form, lambda places: again.append(places) or draw(places))
    assert [places.start for places in again] == list(range(begun.images, 11, 4)), "whole shards are not drawn again"
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("form", FORMATS)
def test_one_that_was_killed_between_its_last_shard_and_its_card_goes_on(form, tmp_path, monkeypatch):
    def killed(*_):
        raise Killed

    write(tmp_path / "whole", form)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(card, "readme", killed)
        write(tmp_path / "out", form)
    write(tmp_path / "out", form, killed)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_one_that_was_killed_while_it_moved_goes_on_moving(tmp_path, monkeypatch):
    out = tmp_path / "out"
    (out / "cat").mkdir(parents=True)
    (out / "cat" / "mine.txt").write_text("mine")
    moved, replace = [], synthesis.os.replace

    def failing(before, after):
        if "mine" not in str(before) and "dataset" in str(before):
            if len(moved) == 4:
                raise Killed
            moved.append(after)
        replace(before, after)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(synthesis.os, "replace", failing)
        write(out, "image_folder")
    assert unfinished(out, "image_folder").whole
    write(out, "image_folder")
    assert set(contents(out)) == {*map(str, synthesis.files_of("image_folder", PLAN)), "cat/mine.txt"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_request_to_stop_keeps_whole_shards(tmp_path):
    def stopping(places):
        for batch in draw(places):
            yield batch
            if places.start == 4:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match=r"^stopped and kept 4 of 11 images; run the same command to go on$"):
        write(tmp_path / "out", "tar", stopping)
    write(tmp_path / "out", "tar")
    write(tmp_path / "whole", "tar")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_another_dataset_is_not_mixed_into_one_that_was_begun(tmp_path):
    def failing(places):
        yield from draw(places)
        raise Killed

    with pytest.raises(Killed):
        write(tmp_path / "out", "npz", failing)
    with pytest.raises(UsageError, match="the beginning of another dataset: its seed is 0, now 1; give what was given"):
        write(tmp_path / "out", "npz", seed=1)
    with pytest.raises(UsageError, match="its format is npz, now tar"):
        write(tmp_path / "out", "tar")


def test_a_card_says_what_the_dataset_is(tmp_path):
    lines = [
        {"step": 4, "kimg": 0.064, "eval/cfd1k_train": 9.0},
        {"step": 8, "kimg": 0.1, "eval/cfd1k_train": 3.0, "protocol": {}},
        {"step": 8, "kimg": 0.128, "eval/cfd1k_train": 2.5},
    ]
    (tmp_path / workdir.EVALUATIONS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    write(tmp_path / "out", "tfds", step=8, seed=7)
    card = json.loads((tmp_path / "out" / synthesis.CARD).read_text())
    assert (card["step"], card["seed"], card["num_images"], card["kimg"]) == (8, 7, 11, 0.128)
    assert card["metrics"] == {"cfd1k_train": 2.5}
    assert [(one["name"], one["folder"], one["images"]) for one in card["classes"]] == [
        ("cat", "cat", 5),
        ("dog", "dog", 4),
        ("tree frog", "tree_frog", 2),
    ]
    text = (tmp_path / "out" / synthesis.README).read_text()
    for part in ("| step | 8 (0.128 kimg) |", "| cfd1k_train | 2.5 |", "tfds.data_source("):
        assert part in text, text


def test_a_class_name_cannot_break_out_of_the_card():
    assert card._cell("<script>alert(1)</script>") == "&lt;script&gt;alert(1)&lt;/script&gt;"
    assert card._cell("a|b\n# c") == "a&#124;b # c"
    assert card._cell("[x](http://y)") == "&#91;x&#93;(http://y)"
