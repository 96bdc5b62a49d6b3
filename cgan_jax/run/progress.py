"""Progress of a long command: a bar on a terminal, plain lines elsewhere."""

import contextlib
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized

from tqdm import tqdm


def duration(seconds: float) -> str:
    """75.3 -> "1m15s"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"


def say(text: str) -> None:
    """A line for whoever still reads: a pipe that was closed, a terminal that has gone must not end a run of days."""
    try:
        print(text, flush=True)
    except OSError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (until the process ends)


def counting(total: int, what: str) -> tqdm:
    """A bar over `total` images, shown on a terminal once it has taken a few seconds."""
    shown = sys.stderr.isatty()
    return tqdm(total=total, desc=what, unit=" images", delay=2, disable=not shown, leave=False, dynamic_ncols=True)


def counted(batches: Iterable[Sized], total: int, what: str) -> Iterator[Sized]:
    """The batches of `total` images, counted by a bar."""
    with counting(total, what) as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch))


class TrainingProgress:
    """Shows how far a run is, how fast it goes, what its losses are, and how long it will take."""

    def __init__(self, done_kimg: float, total_kimg: float, images_per_epoch: int, shown: bool = True):
        """Without `shown` there is no bar: another process has it."""
        self._total_kimg = total_kimg
        self._images_per_epoch = images_per_epoch
        layout = "{l_bar}{bar}| {n:.1f}/{total:.1f} kimg{postfix}"
        self._bar = None
        if sys.stderr.isatty() and shown:
            self._bar = tqdm(total=total_kimg, initial=done_kimg, bar_format=layout, dynamic_ncols=True)

    def advance(self, step: int, kimg: float) -> None:
        """Moves the bar after a call."""
        if self._bar is not None:
            self._bar.update(min(kimg, self._total_kimg) - self._bar.n)

    def report(self, step: int, kimg: float, scalars: Mapping[str, float], limit: float = math.inf) -> None:
        """Shows the scalars of the last interval, and how long it will take: no more than `limit` seconds."""
        numbers = (
            f"step {step}  epoch {1000 * kimg / self._images_per_epoch:.2f}"
            f"  d_loss {scalars['train/d_loss']:.3f}  g_loss {scalars['train/g_loss']:.3f}"
        )
        if speed := scalars.get("time/images_per_sec"):
            left = max(0.0, min(limit, 1000 * (self._total_kimg - kimg) / speed))
            numbers += f"  {speed:.0f} images/s  {duration(left)} left"
        if self._bar is None:
            say(f"kimg {kimg:.1f}/{self._total_kimg:.1f}  {numbers}")
        else:
            self._bar.set_postfix_str(numbers)

    def say(self, text: str) -> None:
        """A line of its own."""
        if self._bar is None:
            say(text)
        else:
            with self._bar.external_write_mode():
                say(text)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class Clock:
    """Training time, maintenance time, and the means of the scalars since the last lap."""

    def __init__(self, history: Sequence[Mapping[str, float]], kimg: float):
        """Goes on from the last line of a run's metrics."""
        self.seconds = history[-1]["seconds"] if history else 0.0
        self._maintenance = history[-1]["time/maintenance_seconds"] if history else 0.0
        self._sums: dict[str, float] = {}
        self._calls = 0
        self.start(kimg)

    @property
    def total(self) -> float:
        """Seconds of training so far, those since the last lap too."""
        return self.seconds + time.perf_counter() - self._since

    def start(self, kimg: float) -> None:
        """Time and images count from here: after the first call, most of which is compilation."""
        self._since, self._kimg = time.perf_counter(), kimg

    def add(self, numbers: Mapping[str, float]) -> None:
        """The scalars of a call."""
        self._calls += 1
        for name, value in numbers.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    @property
    def has_news(self) -> bool:
        """Whether a call was added since the last lap."""
        return self._calls > 0

    def lap(self, kimg: float) -> dict[str, float]:
        """The means since the last lap, the speed of training, and the time spent on maintenance so far."""
        now = time.perf_counter()
        elapsed = now - self._since
        self.seconds += elapsed
        means = {name: total / self._calls for name, total in self._sums.items()}
        if kimg > self._kimg:
            means["time/images_per_sec"] = 1000 * (kimg - self._kimg) / elapsed
        means["time/maintenance_seconds"] = round(self._maintenance, 3)
        self._since, self._kimg, self._sums, self._calls = now, kimg, {}, 0
        return means

    @contextlib.contextmanager
    def maintenance(self) -> Iterator[None]:
        """What is done inside is not training."""
        began = time.perf_counter()
        yield
        pause = time.perf_counter() - began
        self._maintenance += pause
        self._since += pause
