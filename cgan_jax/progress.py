"""Progress of a long command: a bar on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Mapping

from tqdm import tqdm


def duration(seconds: float) -> str:
    """75.3 -> "1m15s"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"


class TrainingProgress:
    """Shows how far a run is, how fast it goes, what its losses are, and how long it will take."""

    def __init__(self, done_kimg: float, total_kimg: float, images_per_epoch: int):
        self._total_kimg = total_kimg
        self._images_per_epoch = images_per_epoch
        layout = "{l_bar}{bar}| {n:.1f}/{total:.1f} kimg {postfix}"
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=total_kimg, initial=done_kimg, bar_format=layout, dynamic_ncols=True)

    def advance(self, step: int, kimg: float) -> None:
        """Moves the bar after a call."""
        if self._bar is not None:
            self._bar.update(min(kimg, self._total_kimg) - self._bar.n)

    def report(self, step: int, kimg: float, scalars: Mapping[str, float]) -> None:
        """Shows the scalars of the last interval."""
        speed = scalars["time/images_per_sec"]
        numbers = (
            f"step {step}  epoch {1000 * kimg / self._images_per_epoch:.2f}"
            f"  d_loss {scalars['train/d_loss']:.3f}  g_loss {scalars['train/g_loss']:.3f}"
            f"  {speed:.0f} images/s  {duration(1000 * max(0.0, self._total_kimg - kimg) / speed)} left"
        )
        if self._bar is None:
            print(f"kimg {kimg:.1f}/{self._total_kimg:.1f}  {numbers}", flush=True)
        else:
            self._bar.set_postfix_str(numbers)

    def say(self, text: str) -> None:
        """A line of its own."""
        if self._bar is None:
            print(text, flush=True)
        else:
            self._bar.write(text)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
