"""Valid requests are drawn, wrong ones are refused in a line, and a bounded number waits for a bounded time."""

import asyncio
import io
import threading
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

from cgan_jax.errors import UsageError
from cgan_jax.serving.studio import Busy, Queue, Studio, grid_png, images_zip

NAMES = ["cat", "dog, wet", "5"]


class Painter:
    """A model whose images tell what they were asked for: (label, index, seed) as their colour."""

    conditional, class_names = True, NAMES

    def images(self, seed, labels, indices, truncation):
        assert len(labels) == len(indices) == 16
        colours = np.stack([labels, indices, np.full(16, seed % 256)], axis=-1)
        return np.broadcast_to(colours[:, None, None], (16, 8, 8, 3)).astype(np.uint8)

    def between(self, start, end, share):
        colour = (1 - share) * np.array([*start, 0]) + share * np.array([*end, 0])
        return np.broadcast_to(colour, (8, 8, 3)).astype(np.uint8)


@pytest.fixture
def studio() -> Studio:
    return Studio(Painter(), {})


def test_images_are_those_of_the_classes_count_and_seed(studio):
    drawing = studio.draw(studio.request({"classes": [2, "cat"], "count": 37, "seed": 9}))
    assert drawing.labels.tolist() == [2] * 19 + [0] * 18
    assert drawing.images[:, 0, 0].tolist() == [[2, i, 9] for i in range(19)] + [[0, i, 9] for i in range(18)]


@pytest.mark.parametrize(
    "classes, labels", [("all", [0, 1, 2]), ("cat,2", [0, 2]), (["dog, wet"], [1]), (["5", 0], [2, 0]), ([1], [1])]
)
def test_classes_are_given_by_name_or_number(studio, classes, labels):
    assert list(dict.fromkeys(studio.request({"classes": classes}).labels.tolist())) == labels


@pytest.mark.parametrize(
    "given, message",
    [
        ({"count": 0}, "count must be a whole number from 1 to 256, given 0"),
        ({"count": 1_000_000}, "from 1 to 256, given 1000000"),
        ({"count": 2.5}, "given 2.5"),
        ({"count": True}, "given True"),
        ({"count": "16"}, "given '16'"),
        ({"count": None}, "given None"),
        ({"seed": -1}, "seed must be a whole number from 0 to 4294967295, given -1"),
        ({"seed": 10**30}, "seed must be"),
        ({"truncation": -0.1}, "truncation must be a number from 0 (none) to 10, given -0.1"),
        ({"truncation": float("nan")}, "given nan"),
        ({"truncation": [1]}, "given [1]"),
        ({"classes": [3]}, "unknown class '#3'; there are 3: 0 cat, 1 dog, wet, 2 5"),
        ({"classes": "bird"}, "unknown class 'bird'"),
        ({"classes": []}, 'classes must be "all" or a list of names and numbers, given []'),
        ({"classes": [0, 0]}, "asked for twice"),
        ({"classes": [0] * 10_000}, "classes must be"),
        ({"classes": [[0]]}, "a class is given by its name or number, given [0]"),
        ({"classes": [True]}, "given True"),
        ({"classes": {"cat": 1}}, "classes must be"),
        ({"labels": [0]}, "unknown field 'labels'; there are: classes, count, seed, truncation"),
    ],
)
def test_what_is_wrong_is_said_in_one_short_line(studio, given, message):
    with pytest.raises(UsageError) as raised:
        studio.request(given)
    assert message in str(raised.value) and len(str(raised.value)) < 200


@pytest.mark.parametrize("share", [-0.1, 1.1, "half", None, True])
def test_a_share_is_between_0_and_1(studio, share):
    with pytest.raises(UsageError, match="share must be a number from 0 to 1"):
        studio.morph(({}, {}), share)


def test_morphing_goes_from_one_end_to_the_other(studio):
    ends = {"class": "cat", "seed": 10}, {"class": "5", "seed": 20}
    assert [studio.morph(ends, share)[0, 0].tolist() for share in (0, 0.5, 1)] == [[0, 10, 0], [1, 15, 0], [2, 20, 0]]


def test_an_unconditional_model_has_no_classes():
    painter = Painter()
    painter.conditional = False
    studio = Studio(painter, {})
    assert set(studio.draw(studio.request({"count": 3})).labels.tolist()) == {0}
    with pytest.raises(UsageError, match="no classes to ask for"):
        studio.request({"classes": ["cat"]})


def test_one_works_so_many_wait_and_no_more():
    async def scene():
        queue, free, order = Queue(most_waiting=3), threading.Event(), []
        first = asyncio.create_task(queue.run(lambda: free.wait(30)))
        while not queue.is_working:
            await asyncio.sleep(0)
        others = [asyncio.create_task(queue.run(lambda i=i: order.append(i) or i)) for i in range(3)]
        await asyncio.sleep(0.01)
        with pytest.raises(Busy, match="3 requests are waiting"):
            await queue.run(lambda: None)
        assert threading.active_count() < 10 and order == []
        free.set()
        assert await first and await asyncio.gather(*others) == [0, 1, 2] == order
        assert await queue.run(lambda: 5) == 5 and not queue.is_working

    asyncio.run(scene())


def test_who_waits_too_long_is_told_and_takes_no_turn():
    async def scene():
        queue, free = Queue(patience=0.05), threading.Event()
        first = asyncio.create_task(queue.run(lambda: free.wait(30)))
        await asyncio.sleep(0.01)
        with pytest.raises(Busy, match=r"within 0\.05 seconds"):
            await queue.run(lambda: None)
        free.set()
        await first
        assert await queue.run(lambda: 5) == 5

    asyncio.run(scene())


def test_who_stops_waiting_leaves_its_place():
    async def scene():
        queue, free, done = Queue(most_waiting=1), threading.Event(), []
        first = asyncio.create_task(queue.run(lambda: free.wait(30)))
        await asyncio.sleep(0.01)
        leaving = asyncio.create_task(queue.run(lambda: done.append(1)))
        await asyncio.sleep(0.01)
        third = asyncio.create_task(queue.run(lambda: 5))
        await asyncio.sleep(0.01)
        leaving.cancel()
        await asyncio.sleep(0.3)
        free.set()
        assert await first and await third == 5 and not done

    asyncio.run(scene())


def test_work_that_nobody_waits_for_any_longer_still_has_the_thread_alone():
    async def scene():
        queue, free, running = Queue(), threading.Event(), []

        def work():
            running.append("begun")
            free.wait(30)
            running.append("ended")

        first = asyncio.create_task(queue.run(work))
        while not running:
            await asyncio.sleep(0.001)
        first.cancel()
        await asyncio.sleep(0.01)
        assert queue.is_working
        second = asyncio.create_task(queue.run(lambda: list(running)))
        await asyncio.sleep(0.01)
        assert queue.is_working
        free.set()
        assert await second == ["begun", "ended"]

    asyncio.run(scene())


def test_an_error_is_its_callers_alone():
    async def scene():
        queue = Queue()
        with pytest.raises(ZeroDivisionError):
            await queue.run(lambda: 1 / 0)
        assert await queue.run(lambda: 5) == 5

    asyncio.run(scene())


def test_what_has_not_begun_when_a_queue_closes_is_not_waited_for():
    async def scene():
        queue, free = Queue(), threading.Event()
        task = asyncio.create_task(queue.run(lambda: free.wait(30)))
        await asyncio.sleep(0.01)
        began = time.monotonic()
        queue.close()
        assert time.monotonic() - began < 1 and queue.is_working
        free.set()
        await task

    asyncio.run(scene())


def test_a_grid_has_a_row_per_class_and_an_archive_a_file_per_image(studio):
    drawing = studio.draw(studio.request({"classes": [1, 0], "count": 20}))
    with Image.open(io.BytesIO(grid_png(studio, drawing))) as grid:
        rows = [grid.getpixel((grid.width - 640, 2 + 66 * row + 30)) for row in range(2)]
    assert rows[0][0] == 1 and rows[1][0] == 0
    content = images_zip(studio, drawing)
    assert content == images_zip(studio, drawing)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.namelist()[:2] == ["dog__wet/000000.png", "dog__wet/000001.png"]
        with Image.open(archive.open("cat/000009.png")) as image:
            assert image.getpixel((0, 0)) == (0, 9, 0)
