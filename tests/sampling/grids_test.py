"""Grids and curves, pixel by pixel where it matters."""

import os
import threading

import numpy as np
import pytest
from PIL import Image

from cgan_jax.run import curves
from cgan_jax.sampling import grids


def flat(value, size=32, channels=1):
    return np.full((size, size, channels), value, np.uint8)


def test_a_grid_has_every_image_at_its_row_and_column_with_gaps_between():
    rows = [[flat(10), flat(20), flat(30)], [flat(40), flat(50), flat(60)]]
    picture = np.asarray(grids.grid(rows))
    # 32 pixels are shown as 64; gaps of 2 around each.
    assert picture.shape == (2 * 66 + 2, 3 * 66 + 2, 3)
    for y in range(2):
        for x in range(3):
            cell = picture[2 + 66 * y : 66 + 66 * y, 2 + 66 * x : 66 + 66 * x]
            np.testing.assert_array_equal(cell, np.full((64, 64, 3), rows[y][x][0, 0, 0]))
    np.testing.assert_array_equal(picture[66:68], 255)
    np.testing.assert_array_equal(picture[:, 66:68], 255)


@pytest.mark.parametrize(("size", "shown"), [(8, 64), (28, 56), (32, 64), (64, 64), (100, 100)])
def test_small_images_are_enlarged_by_whole_pixels(size, shown):
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    picture = np.asarray(grids.grid([[image]]))
    expected = image.repeat(shown // size, axis=0).repeat(shown // size, axis=1)
    np.testing.assert_array_equal(picture[2:-2, 2:-2], expected)


def test_rows_of_different_lengths_leave_paper():
    picture = np.asarray(grids.grid([[flat(0), flat(0)], [flat(0)]]))
    np.testing.assert_array_equal(picture[68:132, 68:132], 255)
    np.testing.assert_array_equal(picture[68:132, 2:66], 0)


def test_names_stand_beside_their_rows_and_move_the_images_aside():
    rows = [[flat(7)], [flat(7)]]
    plain, named = (np.asarray(grids.grid(rows, names)) for names in ((), ("cat", "a longer name")))
    margin = named.shape[1] - plain.shape[1]
    np.testing.assert_array_equal(named[:, margin:], plain)
    first, second = named[2:66, :margin], named[68:132, :margin]
    assert 0 < np.sum(first < 255) < np.sum(second < 255), "more ink for the longer name"
    assert np.all(named[:, margin - 1] == 255), "no name is cut off"


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_a_saved_image_is_read_back_pixel_by_pixel(tmp_path, channels, mode):
    image = np.random.default_rng(0).integers(0, 256, (5, 6, channels), dtype=np.uint8)
    grids.save(grids.to_pillow(image), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as read:
        assert (read.format, read.mode) == ("PNG", mode)
        np.testing.assert_array_equal(np.asarray(read).reshape(image.shape), image)
    assert os.listdir(tmp_path) == ["a.png"]


def test_curves_show_what_was_logged_and_leave_one_file(tmp_path):
    history = [
        {"kimg": float(i), "train/d_loss": 1.0, "train/g_loss": float(i), "train/d_accuracy_real": 0.5}
        for i in range(5)
    ]
    sizes = {}
    for name, lines in (("empty", []), ("full", history)):
        curves.save_curves(lines, tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as read:
            assert read.format == "PNG"
            sizes[name] = read.size
            coloured = np.ptp(np.asarray(read.convert("RGB")).astype(int), axis=2) > 60
            # Each curve is a line of colour across its panel; the legend's strokes are all there is without.
            assert (coloured.sum() > 1000) == (name == "full")
    assert sizes["empty"] == sizes["full"] and sorted(os.listdir(tmp_path)) == ["empty.png", "full.png"]


@pytest.mark.parametrize(
    ("d_terms", "g_term", "d_loss", "g_loss"),
    [
        (("bce_real", "bce_fake"), "bce", 2 * np.log(2), np.log(2)),
        (("bce_real", "bce_fake"), "minimax", 2 * np.log(2), -np.log(2)),
        (("hinge_real", "hinge_fake"), "hinge", 2.0, 0.0),
        (("relativistic",), "relativistic", np.log(2), np.log(2)),
        (("wasserstein_real", "wasserstein_fake"), "wasserstein", 0.0, 0.0),
    ],
)
def test_chance_levels_are_the_losses_of_equal_logits(d_terms, g_term, d_loss, g_loss):
    penalty = {"gradient_penalty": {"weight": 10.0, "target": 1.0}}
    terms = {name: {"weight": 1.0} for name in d_terms}
    levels = curves.chance_levels(
        {"loss": {"d_updates": {"both": terms | penalty}, "g_terms": {g_term: {"weight": 1.0}}}}
    )
    assert levels["train/d_loss"] == pytest.approx(d_loss, abs=1e-6)
    assert levels["train/g_loss"] == pytest.approx(g_loss, abs=1e-6)


def test_the_chance_level_of_a_lazy_loss_is_that_of_its_mean():
    lazy = {name: {"weight": 1.0, "every": 4} for name in ("bce_real", "bce_fake")}
    recipe = {"loss": {"d_updates": {"both": lazy}, "g_terms": {"bce": {"weight": 1.0, "every": 2}}}}
    levels = curves.chance_levels(recipe)
    assert levels["train/d_loss"] == pytest.approx(2 * np.log(2))
    assert levels["train/g_loss"] == pytest.approx(np.log(2))


def overlaid(runs, path) -> np.ndarray:
    """The picture of two panels as RGB."""
    curves.save_overlaid_curves(runs, ["train/d_loss", "eval/fid"], path)
    with Image.open(path) as read:
        return np.asarray(read.convert("RGB")).astype(int)


def pixels_of(colour: str, picture: np.ndarray) -> int:
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(picture - rgb).max(axis=2) < 24).sum())


def line(kimg: float, loss: float) -> dict[str, float]:
    return {"kimg": kimg, "train/d_loss": loss}


def test_overlaid_runs_have_a_colour_each_and_missing_curves_are_no_error(tmp_path):
    runs = {f"run {i}": [line(k, i + k) for k in range(5)] for i in range(3)}
    picture = overlaid({**runs, "not started": [], "one line": [{"kimg": 1.0, "eval/fid": 2.0}]}, tmp_path / "a.png")
    for colour in curves._COLOURS[1:3]:
        assert pixels_of(colour, picture) > 300, colour
    without = overlaid({"run 0": runs["run 0"]}, tmp_path / "b.png")
    assert pixels_of(curves._COLOURS[1], without) == 0
    assert sorted(os.listdir(tmp_path)) == ["a.png", "b.png"]


def test_twelve_runs_have_twelve_looks():
    looks = {(i % len(curves._COLOURS), i // len(curves._COLOURS) % len(curves._STROKES)) for i in range(12)}
    assert len(looks) == 12 and len(set(curves._COLOURS)) == len(curves._COLOURS)


def test_a_run_that_runs_away_leaves_the_others_their_height(tmp_path):
    calm = {f"run {i}": [line(k, 1 + 0.5 * (-1) ** (k + i)) for k in range(30)] for i in range(3)}
    spread = []
    for name, last in (("calm", 1.0), ("away", 1e6)):
        runs = {**calm, "other": [line(k, last if k > 20 else 1.0) for k in range(30)]}
        picture = overlaid(runs, tmp_path / f"{name}.png")
        left = picture[:, : picture.shape[1] // 3]
        rgb = [int(curves._COLOURS[1][i : i + 2], 16) for i in (1, 3, 5)]
        rows = np.flatnonzero((np.abs(left - rgb).max(axis=2) < 24).any(axis=1))
        spread.append(np.ptp(rows) / picture.shape[0])
    assert spread[1] > spread[0] / 4, spread


def test_numbers_at_the_ends_keep_their_distance_and_their_order():
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    ends = [0.5, 0.51, 0.52, 0.0, 1.0, 0.99]
    axes.set_ylim(0, 1)
    curves._number_ends(axes, [[(0.0, 0.0), (1.0, end)] for end in ends])
    written = {text.get_text(): float(text.get_position()[1]) for text in axes.texts}
    heights = [written[str(i + 1)] for i in range(len(ends))]
    assert np.argsort(heights).tolist() == np.argsort(ends).tolist()
    assert np.diff(np.sort(heights)).min() > 0.06 and min(heights) >= 0 and max(heights) <= 1
    assert heights[3] == 0.0 and heights[0] == 0.5, "where there is room a number is at its curve's end"


@pytest.mark.parametrize("name", ["a.gif", "a.webp"])
def test_an_animation_goes_there_and_back_and_loops(tmp_path, name):
    frames = [Image.new("RGB", (20, 10), (level, level, level)) for level in (0, 80, 160, 240)]
    grids.save_animation(frames, tmp_path / name, seconds=3.0)
    with Image.open(tmp_path / name) as animation:
        assert animation.n_frames == 6 and animation.info.get("loop", 0) == 0
        levels = []
        for frame in range(6):
            animation.seek(frame)
            levels.append(animation.convert("RGB").getpixel((5, 5))[0])
            assert animation.info["duration"] == 500
    assert levels == [0, 80, 160, 240, 160, 80]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_painter_leaves_out_what_comes_while_it_paints_and_keeps_what_must_be():
    painter, begin, painted = curves.Painter(print), threading.Event(), []
    painter.paint(lambda: (begin.wait(10), painted.append("slow")))
    painter.paint(painted.append, "left out")
    threading.Timer(0.05, begin.set).start()
    painter.paint(painted.append, "kept", wait=True)
    painter.close()
    assert painted == ["slow", "kept"]


def test_a_picture_that_cannot_be_written_is_told_of_and_ends_nothing(tmp_path):
    said = []
    painter = curves.Painter(said.append)
    for _ in range(2):
        painter.paint(curves.save_curves, [], tmp_path / "nowhere" / "curves.png", wait=True)
    painter.close()
    assert len(said) == 2 and all("a picture could not be written" in line and "nowhere" in line for line in said)
    painter = curves.Painter(said.append)
    painter.paint(lambda: 1 / 0)
    painter.close()
    assert said[2:] == ["warning: a picture could not be written: division by zero"]


@pytest.mark.parametrize("name", ["lr$_$bs", "$x^2$", r"\$a$b$", "\x07$\udcff$"])
def test_a_name_is_drawn_letter_by_letter(name, tmp_path, monkeypatch):
    monkeypatch.setattr("matplotlib.mathtext.MathTextParser.parse", lambda *_, **__: pytest.fail("a formula"))
    curves.png_of([], name)
    curves.save_overlaid_curves({name: [{"kimg": 1.0, f"eval/{name}": 2.0}]}, [f"eval/{name}"], tmp_path / "curves.png")


def test_a_transparent_image_lies_on_the_paper():
    image = np.zeros((64, 64, 4), np.uint8)
    image[:, 32:, 3] = 255  # the right half is black, the left one is nothing
    pixels = np.asarray(grids.grid([[image]]))[2:-2, 2:-2]
    assert pixels.shape[2] == 3 and (pixels[:, :32] == 255).all() and (pixels[:, 32:] == 0).all()
