"""A model that answers requests: what a web page and a JSON interface ask for, checked, queued and drawn.

Nothing here knows of HTTP. A request is a mapping of JSON values from anybody; what is wrong with it is said in one
line. A queue lets one request at a time have the device.
"""

import asyncio
import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from cgan_jax.errors import UsageError
from cgan_jax.files.png import png
from cgan_jax.sampling import grids
from cgan_jax.sampling.image_writers import folder_names
from cgan_jax.sampling.request import parse_labels, spread

MOST_IMAGES = 256
_BATCH = 16  # images: what a page asks for at first, so that its program serves most requests
MOST_WAITING = 400
PATIENCE = 20.0  # seconds
_SECOND_LOOK = 0.2  # seconds
_COLUMNS, _UNCONDITIONAL_COLUMNS = 16, 8

Answer = TypeVar("Answer")


class Busy(Exception):
    """More requests wait than there is room or time for."""


class Request(NamedTuple):
    """Images that were asked for, checked."""

    labels: np.ndarray
    indices: np.ndarray
    seed: int
    truncation: float
    """Latents beyond it are drawn again; 0 for none."""


class Drawing(NamedTuple):
    """What came of it: images uint8 [N, H, W, C] and labels [N]."""

    images: np.ndarray
    labels: np.ndarray


class Way(NamedTuple):
    """A place between two images, each given by its label and seed."""

    start: tuple[int, int]
    end: tuple[int, int]
    share: float
    """0 at the start, 1 at the end."""


class Model(Protocol):
    """What draws: a run's generator or an exported one."""

    class_names: Sequence[str]
    conditional: bool

    def images(self, seed: int, labels: np.ndarray, indices: np.ndarray, truncation: float) -> np.ndarray:
        """Images uint8 [N, H, W, C] for labels and indices int32 [N]."""

    def between(self, start: tuple[int, int], end: tuple[int, int], share: float) -> np.ndarray:
        """The image uint8 [H, W, C] that is `share` of the way from one (label, seed) to another."""


class Studio:
    """A model, and what may be asked of it. It draws for one caller at a time: see Queue."""

    def __init__(self, model: Model, about: Mapping[str, Any]):
        """`about` is told to all who ask what is served. What compiles is compiled here, by a first drawing."""
        self.conditional, self.about = model.conditional, dict(about)
        self.class_names = list(model.class_names) if model.conditional else ["image"]
        self._model = model
        self.draw(self.request({}))
        self.morph(({}, {}), 0.5)

    def request(self, given: Mapping[str, Any]) -> Request:
        """{classes, count, seed, truncation}, each of which may be left out. Raises UsageError for a wrong one."""
        unknown = set(given) - {"classes", "count", "seed", "truncation"}
        if unknown:
            raise UsageError(f"unknown field {sorted(unknown)[0]!r}; there are: classes, count, seed, truncation")
        count = _whole(given, "count", _BATCH, 1, MOST_IMAGES)
        labels, indices = spread(count, self._classes(given.get("classes", "all")))
        truncation = given.get("truncation", 0.0)
        if isinstance(truncation, bool) or not isinstance(truncation, int | float) or not 0 <= truncation <= 10:
            raise UsageError(f"truncation must be a number from 0 (none) to 10, given {_short(truncation)}")
        return Request(labels, indices, _whole(given, "seed", 0, 0, 2**32 - 1), float(truncation))

    def draw(self, request: Request) -> Drawing:
        """The images of a request."""
        batches = [self._batch(request, start) for start in range(0, len(request.labels), _BATCH)]
        return Drawing(np.concatenate(batches), request.labels)

    def morph(self, ends: tuple[Mapping[str, Any], Mapping[str, Any]], share: Any) -> np.ndarray:
        """The image uint8 [H, W, C] `share` of the way from one {class, seed} to another. Raises UsageError."""
        return self.between(self.way(ends, share))

    def way(self, ends: tuple[Mapping[str, Any], Mapping[str, Any]], share: Any) -> Way:
        """What a morph was asked for, checked. Raises UsageError for a wrong class, seed or share."""
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise UsageError(f"share must be a number from 0 to 1, given {_short(share)}")
        start, end = (
            (self._class(one.get("class", self.class_names[0])), _whole(one, "seed", 0, 0, 2**32 - 1)) for one in ends
        )
        return Way(start, end, float(share))

    def between(self, way: Way) -> np.ndarray:
        """The image uint8 [H, W, C] at a place of a way."""
        return np.asarray(self._model.between(*way))

    def _batch(self, request: Request, start: int) -> np.ndarray:
        """Images `start` to `start` + 16: batches of one size alone, so that one program serves all requests."""
        labels, indices = (x[start : start + _BATCH] for x in (request.labels, request.indices))
        fill = (0, _BATCH - len(labels))
        images = self._model.images(request.seed, np.pad(labels, fill), np.pad(indices, fill), request.truncation)
        return np.asarray(images)[: len(labels)]

    def _class(self, given: Any) -> int:
        """The class id of one name or number."""
        if len(labels := self._classes([given])) != 1:
            raise UsageError(f"an end of a way is of one class, given {_short(given)}")
        return labels[0]

    def _classes(self, given: Any) -> list[int]:
        """Class ids of "all", "cat,3", or a list of names and numbers."""
        if not self.conditional:
            if given not in ("all", [], ["image"]):
                raise UsageError("this model is unconditional: it has no classes to ask for")
            return [0]
        if isinstance(given, str):
            return parse_labels(given[:10_000], self.class_names)
        if not isinstance(given, list) or not given or len(given) > len(self.class_names):
            raise UsageError(f'classes must be "all" or a list of names and numbers, given {_short(given)}')
        return parse_labels(",".join(self._number(one) for one in given), self.class_names)

    def _number(self, one: Any) -> str:
        """The number of a class, as "#3", or its name as it was given. Names may hold commas."""
        if isinstance(one, str) and self.class_names.count(one) == 1:
            return f"#{self.class_names.index(one)}"
        if isinstance(one, int) and not isinstance(one, bool):
            return f"#{one}"
        if isinstance(one, str) and "," not in one:
            return one
        raise UsageError(f"a class is given by its name or number, given {_short(one)}")


class Queue:
    """One thread that works, and those who wait for it in asyncio, where waiting takes no thread."""

    def __init__(self, most_waiting: int = MOST_WAITING, patience: float = PATIENCE):
        """`patience` is the seconds that a request waits for its turn."""
        self._most, self._patience = most_waiting, patience
        self._pool, self._turn = ThreadPoolExecutor(1, thread_name_prefix="studio"), asyncio.Lock()
        self._waiting = 0

    @property
    def is_working(self) -> bool:
        """Whether the thread has something in hand."""
        return self._turn.locked()

    async def run(self, work: Callable[[], Answer]) -> Answer:
        """The answer of `work`, which the thread does when its turn comes, in the order of arrival.

        Raises Busy where there is no room or the turn does not come in time. One that is cancelled leaves its place.
        """
        if self._waiting >= self._most:
            await asyncio.sleep(_SECOND_LOOK)  # meanwhile it is noticed that some have gone
        if self._waiting >= self._most:
            raise Busy(f"{self._waiting} requests are waiting already; try again in a moment")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._patience):
                await self._turn.acquire()
        except TimeoutError:
            raise Busy(f"no turn came within {self._patience:g} seconds; try again in a moment") from None
        finally:
            self._waiting -= 1
        try:
            done = asyncio.wrap_future(self._pool.submit(work))
        except BaseException:
            self._turn.release()
            raise
        done.add_done_callback(self._release)
        # A caller that stops waiting does not stop the thread: the next turn begins when this work has ended.
        return await asyncio.shield(done)

    def _release(self, done: asyncio.Future) -> None:
        self._turn.release()
        if not done.cancelled():
            done.exception()  # has been looked at: asyncio need not tell of it

    def close(self) -> None:
        """Takes no more work, and waits for none."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _whole(given: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    value = given.get(name, default)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise UsageError(f"{name} must be a whole number from {least} to {most}, given {_short(value)}")
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def grid_png(studio: Studio, drawing: Drawing) -> bytes:
    """The drawing as one picture, a row or more per class, each named."""
    columns = _COLUMNS if studio.conditional else _UNCONDITIONAL_COLUMNS
    rows = grids.rows_by_class(drawing.images, drawing.labels, studio.class_names, studio.conditional, columns)
    return png(grids.grid(*rows))


def images_zip(studio: Studio, drawing: Drawing) -> bytes:
    """CLASS/000000.png and so on, as an archive without dates: the same request gives the same bytes."""
    names, counts = folder_names(studio.class_names), [0] * len(studio.class_names)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for image, label in zip(drawing.images, drawing.labels.tolist(), strict=True):
            archive.writestr(zipfile.ZipInfo(f"{names[label]}/{counts[label]:06d}.png"), png(image))
            counts[label] += 1
    return buffer.getvalue()
