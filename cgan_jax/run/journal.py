"""The outputs of a run in training: lines on the terminal, logs, event files, curves, pictures, and the time."""

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from cgan_jax import STARTED
from cgan_jax import recipe as recipes
from cgan_jax.build import kimg_after, steps_for
from cgan_jax.files import storage
from cgan_jax.files.png import png
from cgan_jax.run import curves, environment, metric_writers, processes
from cgan_jax.run import workdir as workdirs
from cgan_jax.run.progress import Clock, TrainingProgress, duration


class Journal:
    """The record of one run, in its folder and on the terminal. Only the first process writes."""

    def __init__(
        self,
        workdir: Path,
        info: workdirs.RunInfo,
        draw: Callable[[Any], Image.Image],
        writers: Sequence[str] = metric_writers.DEFAULT,
        on_log: Callable[[dict[str, float]], None] | None = None,
        on_sample: Callable[[Image.Image, float], None] | None = None,
    ):
        """`draw(average)` returns a picture of samples; `average` holds the averaged generator's variables.

        `on_log` gets each line of metrics.jsonl, `on_sample` each picture of samples and its kimg.
        """
        self._on_log, self._on_sample = on_log, on_sample
        self.workdir, self._info, self._draw = workdir, info, draw
        self._recipe = info.recipe
        self.writes = processes.is_first()
        self.max_minutes: float = info.recipe["train"]["max_minutes"]
        self.time_share = 0.0
        """The share of `max_minutes` that is used; 0 without a limit."""
        self.started = STARTED
        """When the wait for the first call began, by time.perf_counter()."""
        self.began = False
        """Whether this process has finished its first call."""
        self.step = 0
        self.init_from: dict[str, Any] | None = None
        """The model that the run begins from in this process."""
        self.history: list[dict[str, float]] = []
        self.evaluations: list[dict[str, float]] = []
        self.writer = metric_writers.MetricWriter(workdir, writers)
        self._painter = curves.Painter(self.say)
        self._chance_levels = curves.chance_levels(info.recipe)
        self._progress: TrainingProgress | None = None
        self._fastest: Mapping[str, float] = {}
        self.clock = Clock((), 0.0)

    def rewind(self, step: int) -> None:
        """Drops the log lines after `step`, because the run was restored to `step`."""
        self.step = step
        lines_until = workdirs.forget_metrics_after if self.writes else workdirs.read_metrics_until
        self.history = lines_until(self.workdir, step)
        evaluations = lines_until(self.workdir, step, workdirs.EVALUATIONS)
        lines_until(self.workdir, step, workdirs.AVERAGES)
        # Keep the evaluations made during training: lines of `cgan evaluate` have no seconds.
        self.evaluations = [line for line in evaluations if "seconds" in line]
        self.clock = Clock(self.history, self.kimg(step))
        if self._progress is not None:
            self._progress.advance(step, self.kimg(step))

    def open(self, step: int) -> None:
        """Writes config.json and the environment, and prints where the run starts."""
        if self.writes:
            workdirs.write_info(self.workdir, self._info)
            origin = {"init_from": self.init_from} if self.init_from else {}
            workdirs.append_environment(self.workdir, {**environment.describe(), **origin})
        total = steps_for(self._recipe, self._recipe["train"]["total_kimg"])
        kimg = self.kimg(step)
        self._progress = TrainingProgress(kimg, self.kimg(total), self._info.num_images, shown=self.writes)
        where = f"on {jax.device_count()} {jax.default_backend()} device(s) in {self.workdir}"
        if step >= total:
            length = self._recipe["train"]["total_kimg"]
            self.say(
                f"resuming at step {step}, {kimg:.1f} kimg: train.total_kimg={length:g} leaves nothing to train {where}"
            )
        else:
            self.say(f"{'resuming at' if step else 'starting from'} step {step} of {total}, {kimg:.1f} kimg, {where}")
        if self.max_minutes:
            self.say(
                f"{self.clock.seconds / 60:.1f} of {self.max_minutes:g} minutes of training are used;"
                " schedules follow the clock, so two such runs differ in their bits"
            )

    def describe(self, model: str, real: Image.Image, average: Any) -> None:
        """Writes model.txt and the first pictures: real images, and samples before training."""
        storage.write_whole(self.workdir / "model.txt", model)
        self.writer.write_hparams(dict(recipes.flattened(self._recipe)))
        self._write_picture("real.png", real)
        self.writer.write_images(0, {"real": _batch_of(real)})
        self._save_samples(average)

    def say(self, text: str) -> None:
        """Prints a line."""
        if self._progress is None:
            print(text, flush=True)
        else:
            self._progress.say(text)

    def kimg(self, step: int) -> float:
        """Thousands of real images shown to the discriminator by `step`."""
        return kimg_after(self._recipe, step)

    def measure_ceiling(self, measure: Callable[[], Mapping[str, float]]) -> None:
        """Keeps `measure()`, by name the images/s that log lines compare the speed with. Measures once per process."""
        if not self._fastest:
            self._fastest = measure()

    def begin(self, step: int) -> None:
        """Starts the clock, after the first call."""
        self.began = True
        self.say(f"first call done {time.perf_counter() - self.started:.1f} s after the start")
        self.clock.start(self.kimg(step))

    def tell_time(self) -> float:
        """Updates `time_share` by the first process's clock, and returns it."""
        seconds = self.clock.total if self.began else self.clock.seconds
        share = min(1.0, seconds / (60 * self.max_minutes)) if self.max_minutes else 0.0
        self.time_share = processes.of_first(share)
        return self.time_share

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        """Adds the scalars of a call to the current means, and moves the bar."""
        self.clock.add(numbers)
        self._progress.advance(step, self.kimg(step))

    def log(self, step: int, rollbacks: int, since: int) -> None:
        """Logs a line with the means since the last line."""
        kimg = self.kimg(step)
        means = self.clock.lap(kimg)
        if speed := means.get("time/images_per_sec"):
            means |= {f"time/share_of_{name}": speed / fastest for name, fastest in self._fastest.items()}
        if rollbacks:
            means["guard/rollbacks"] = rollbacks
        line = {"step": step, "kimg": kimg, "seconds": round(self.clock.seconds, 3), **means}
        if self.writes:
            workdirs.append_metrics(self.workdir, line)
        self.history.append(line)
        self.writer.write_scalars(step, {"kimg": kimg, **means})
        left = 60 * self.max_minutes - self.clock.seconds if self.max_minutes else math.inf
        self._progress.report(step, kimg, means, left)
        if self._on_log is not None and self.writes:
            self._on_log(line)

    def show(self, step: int, average: Any, wait: bool) -> None:
        """Saves a picture of samples and the curves. A busy painter skips the curves unless it must `wait`."""
        if self.writes:
            self._save_samples(average)
            name, levels = storage.resolved(self.workdir).name, self._chance_levels
            path = self.workdir / "curves.png"
            self._painter.paint(curves.save_curves, [*self.history], path, name, levels, wait=wait)

    def score(self, step: int, scores: Mapping[str, float], protocol: Mapping[str, Any]) -> None:
        """Logs an evaluation."""
        scalars = {f"eval/{name}": value for name, value in scores.items()}
        kimg = self.kimg(step)
        line = {"step": step, "kimg": kimg, "seconds": round(self.clock.seconds, 3), **scalars}
        workdirs.append_metrics(self.workdir, {**line, "protocol": protocol}, workdirs.EVALUATIONS)
        self.evaluations.append(line)
        self.writer.write_scalars(step, {"kimg": kimg, **scalars})
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in scores.items() if "/" not in name)
        self.say(f"evaluated at {kimg:.1f} kimg: {numbers}")

    def finish(self) -> None:
        """Prints the last line of a run that is done."""
        trained = duration(self.clock.seconds)
        self.say(
            f"done: {self.kimg(self.step):.1f} kimg, {trained} of training; pictures in {self.workdir / 'samples'}"
        )

    def close(self) -> None:
        """Waits for the painter, then closes the bar and the event files, also after an error in one of them."""
        with contextlib.ExitStack() as last_first:
            last_first.callback(self.writer.close)
            if self._progress is not None:
                last_first.callback(self._progress.close)
            last_first.callback(self._painter.close)

    def _save_samples(self, average: Any) -> None:
        """Writes samples/kimg_KIMG.png, and the same picture to the event files."""
        picture, kimg = self._draw(average), self.kimg(self.step)
        # The last picture of a run may lie between two intervals, and must not take another one's name.
        whole = self._recipe["train"]["sample_kimg"] >= 1 and abs(kimg - round(kimg)) < 0.1
        name = f"kimg_{kimg:06.0f}.png" if whole and (kimg >= 0.5 or not kimg) else f"kimg_{kimg:010.3f}.png"
        self._write_picture(name, picture)
        self.writer.write_images(self.step, {"samples": _batch_of(picture)})
        if self._on_sample is not None:
            self._on_sample(picture, kimg)

    def _write_picture(self, name: str, picture: Image.Image) -> None:
        folder = self.workdir / "samples"
        storage.make_folder(folder)  # somebody may have moved it away since the last start
        storage.write_whole(folder / name, png(picture))


def _batch_of(picture: Image.Image) -> np.ndarray:
    """uint8 [1, H, W, C]."""
    pixels = np.asarray(picture)
    return pixels.reshape(1, *pixels.shape[:2], -1)
