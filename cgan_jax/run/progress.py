"""Progress of a long command: a bar on a terminal, lines in a pipe or file."""

import contextlib
import math
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized

from tqdm import tqdm


def duration(seconds: float) -> str:
    """Seconds in words: 75.3 -> "1m15s"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"


def say(text: str) -> None:
    """Prints a line. A closed pipe or terminal silences the output; it must not end a run of days."""
    try:
        print(text, flush=True)
    except OSError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (until the process ends)


@contextlib.contextmanager
def telling(what: str, first: float = 5.0, every: float = 30.0) -> Iterator[None]:
    """Says on stderr what is being done and for how long, after `first` seconds and then after each `every`."""
    began, done = time.monotonic(), threading.Event()

    def tell() -> None:
        wait = first
        while not done.wait(wait):
            with contextlib.suppress(OSError, ValueError):  # closed
                print(f"{what}: {duration(time.monotonic() - began)} so far", file=sys.stderr, flush=True)
            wait = every

    threading.Thread(target=tell, name="telling", daemon=True).start()
    try:
        yield
    finally:
        done.set()


class _Lines:
    """A line every half a minute in place of a bar, if stderr is no terminal."""

    every = 30.0

    def __init__(self, total: int, what: str):
        self._total, self._what, self._done = total, what, 0
        self._began = self._told = time.monotonic()

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, images: int) -> None:
        """Counts further images."""
        self._done += images
        now = time.monotonic()
        if now - self._told >= self.every:
            self._told, took = now, now - self._began
            left = duration(took * (self._total - self._done) / self._done)
            with contextlib.suppress(OSError, ValueError):
                text = f"{self._what}: {self._done:,} of {self._total:,} images in {duration(took)}, {left} left"
                print(text, file=sys.stderr, flush=True)


def counting(total: int, what: str) -> tqdm | _Lines:
    """A bar over `total` images, shown after 2 s, on a terminal; elsewhere lines. Both have `update(images)`."""
    if not sys.stderr.isatty():
        return _Lines(total, what)
    return tqdm(total=total, desc=what, unit=" images", delay=2, leave=False, dynamic_ncols=True)


def counted(batches: Iterable[Sized], total: int, what: str) -> Iterator[Sized]:
    """Yields the batches and counts their images, `total` in all, on a bar."""
    with counting(total, what) as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch))


class Speed:
    """The images per second of batches after the first, which compiles; as text in brackets once it is known."""

    least = 1.0
    """Seconds. A shorter time is not worth telling."""

    def __init__(self) -> None:
        self._images, self._began, self._ended = 0, None, 0.0

    def of(self, batches: Iterable[Sized]) -> Iterator[Sized]:
        """Yields the batches and measures them, as several calls may do one after the other."""
        for batch in batches:
            self._ended = time.perf_counter()
            if self._began is None:
                self._began = self._ended
            else:
                self._images += len(batch)
            yield batch
            self._ended = time.perf_counter()

    def __str__(self) -> str:
        seconds = self._ended - (self._began or 0.0)
        return f" ({self._images / seconds:.3g} images/s)" if self._images and seconds >= self.least else ""


class TrainingProgress:
    """Shows the progress, speed, losses and remaining time of a run."""

    def __init__(self, done_kimg: float, total_kimg: float, images_per_epoch: int, shown: bool = True):
        """`shown` is False in all processes but the first, which shows the bar."""
        self._total_kimg = total_kimg
        self._images_per_epoch = images_per_epoch
        layout = "{percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} kimg{postfix}"
        self._speed, self._ends, self._losses = 0.0, math.inf, ""
        self._bar = None
        if sys.stderr.isatty() and shown:
            self._bar = tqdm(total=total_kimg, initial=done_kimg, bar_format=layout, dynamic_ncols=True)

    def advance(self, step: int, kimg: float) -> None:
        """Moves the bar after a call, and renews the time left."""
        if self._bar is not None:
            if self._speed:
                # The losses come last, because a narrow terminal cuts off the end.
                left = duration(self._left(kimg, self._ends - time.monotonic()))
                self._bar.set_postfix_str(f"{self._speed:.0f} images/s, {left} left, {self._losses}", refresh=False)
            self._bar.update(min(kimg, self._total_kimg) - self._bar.n)

    def report(self, step: int, kimg: float, scalars: Mapping[str, float], limit: float = math.inf) -> None:
        """Shows the scalars of the last interval and the remaining time, at most `limit` seconds."""
        self._speed = scalars.get("time/images_per_sec", self._speed)
        self._ends = time.monotonic() + limit
        d_loss, g_loss = scalars["train/d_loss"], scalars["train/g_loss"]
        self._losses = f"D {d_loss:.3g}, G {g_loss:.3g}"
        if self._bar is not None:
            self.advance(step, kimg)
            self._bar.refresh()
            return
        line = (
            f"kimg {kimg:.1f}/{self._total_kimg:.1f}  step {step}  epoch {1000 * kimg / self._images_per_epoch:.2f}"
            f"  d_loss {d_loss:.3f}  g_loss {g_loss:.3f}"
        )
        if self._speed:
            line += f"  {self._speed:.0f} images/s  {duration(self._left(kimg, limit))} left"
        say(line)

    def _left(self, kimg: float, limit: float) -> float:
        """Seconds to the end of the run at the last speed, at most `limit`."""
        return max(0.0, min(limit, 1000 * (self._total_kimg - kimg) / self._speed))

    def say(self, text: str) -> None:
        """Prints a line, above the bar if there is one."""
        if self._bar is None:
            say(text)
        else:
            with self._bar.external_write_mode():
                say(text)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class Clock:
    """Measures training time and maintenance time, and averages the scalars since the last lap."""

    def __init__(self, history: Sequence[Mapping[str, float]], kimg: float):
        """Continues from the last line of metrics.jsonl in `history`."""
        self.seconds = history[-1]["seconds"] if history else 0.0
        self._maintenance = history[-1].get("time/maintenance_seconds", 0.0) if history else 0.0
        self._sums: dict[str, float] = {}
        self._calls = 0
        self._sent = (kimg, 0.0)
        self.start(kimg)

    @property
    def total(self) -> float:
        """Seconds of training so far, including those since the last lap."""
        return self.seconds + time.perf_counter() - self._since

    def start(self, kimg: float) -> None:
        """Counts time and images from now: after the first call, most of which is compilation."""
        self._since, self._kimg, self._ended = time.perf_counter(), kimg, kimg
        self._unrated, self._usual = 0.0, 0.0

    def sent(self, kimg: float, held: float) -> None:
        """Notes the call that ends at `kimg`, whose dispatch held the host for so many seconds."""
        self._sent = (kimg, held)

    def came(self, kimg: float, waited: float) -> None:
        """Notes that the numbers of the call that ends at `kimg` came after the host waited for so many seconds.

        A GPU holds the host until the call that is being dispatched has nearly ended. Numbers of the call before are
        then there at once, and the newer call counts as ended, too. That it held the host is seen by the time that the
        last call took.
        """
        newest, held = self._sent
        held_till_its_end = self._usual > 0 and held > max(waited, self._usual / 2)
        self._ended = max(kimg, newest) if held_till_its_end else kimg
        self._usual = held + waited

    def add(self, numbers: Mapping[str, float]) -> None:
        """Adds the scalars of a call."""
        self._calls += 1
        for name, value in numbers.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    @property
    def has_news(self) -> bool:
        """Whether a call was added since the last lap."""
        return self._calls > 0

    def lap(self, kimg: float) -> dict[str, float]:
        """Returns the means since the last lap, images/s, and the maintenance time so far; starts the next lap.

        The images are those of calls that have ended (`came`), of which the last may be newer than `kimg`.
        """
        now, kimg = time.perf_counter(), max(kimg, self._ended)
        elapsed = now - self._since
        self.seconds += elapsed
        means = {name: total / self._calls for name, total in self._sums.items()}
        self._unrated += elapsed
        if kimg > self._kimg:
            means["time/images_per_sec"] = 1000 * (kimg - self._kimg) / self._unrated
            self._unrated = 0.0
        means["time/maintenance_seconds"] = round(self._maintenance, 3)
        self._since, self._kimg, self._sums, self._calls = now, max(kimg, self._kimg), {}, 0
        return means

    @contextlib.contextmanager
    def maintenance(self) -> Iterator[None]:
        """Counts the time inside as maintenance, not as training."""
        began = time.perf_counter()
        yield
        pause = time.perf_counter() - began
        self._maintenance += pause
        self._since += pause
