"""One run from its recipe to its last checkpoint: build, restore, loop, log, draw pictures, save. No mathematics.

The host dispatches call n and then reads the numbers of call n-1, so the devices never wait for it. Pictures,
checkpoints and evaluations are maintenance: their time is kept apart from training time. Curves are drawn beside it.
"""

import contextlib
import functools
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from cgan_jax import STARTED, parallel
from cgan_jax import recipe as recipes
from cgan_jax.build import Algorithm, ImageSpec, build, images_per_step, steps_for
from cgan_jax.data import placement, sources
from cgan_jax.data.batches import Data
from cgan_jax.errors import GuardError, Interrupted
from cgan_jax.evaluation.evaluation import Evaluator
from cgan_jax.files import storage
from cgan_jax.parallel import distribute, everywhere, make_mesh, on_one_device, replicate, replicated
from cgan_jax.run import checkpoint, curves, environment, guards, processes, throughput
from cgan_jax.run import workdir as workdirs
from cgan_jax.run.checkpoint import Checkpoints
from cgan_jax.run.metric_writers import Profile, make_hooks, make_writer
from cgan_jax.run.progress import Clock, TrainingProgress, duration
from cgan_jax.run.signals import StopRequest
from cgan_jax.run.throughput import steps_per_call
from cgan_jax.run.watchdog import Watchdog
from cgan_jax.sampling import grids
from cgan_jax.sampling.sampling import make_sampler, rows_of_real, rows_of_samples
from cgan_jax.train_state import TrainState, create, create_quickly, describe, is_finite
from cgan_jax.train_step import drawn_rows, train_steps


def train_and_evaluate(recipe: dict[str, Any], workdir: Path, profile: bool = False) -> None:
    """Trains `recipe` in `workdir`, or goes on from its latest checkpoint, to `total_kimg` or for `max_minutes`.

    Raises UsageError for a recipe that cannot work, before it has cost anything; GuardError where a guard of the recipe
    stops the run; Interrupted, with the state saved, after SIGINT, SIGTERM or SIGHUP.
    """
    with StopRequest() as stop, contextlib.ExitStack() as held:
        with stop.at_once("stopped before training began; run the same command again"):
            with processes.together():
                recipes.check(recipe)
                recipes.check_devices(recipe, jax.device_count())
                dataset = load_dataset(recipe)
                prepared = prepare(recipe, dataset)
                info = workdirs.RunInfo(recipe, prepared.spec.channels, list(dataset.class_names), len(dataset.labels))
                if processes.is_first():
                    held.enter_context(workdirs.locked(workdir))
            with processes.together():
                processes.check_shared(workdir)
                if (workdir / workdirs.CONFIG).exists() and checkpoint.exist(workdir):
                    started = workdirs.read_info(workdir)
                    recipes.check_same_run(started.recipe, recipe, str(workdir))
                    workdirs.check_same_dataset(started, info, workdir)
                    recipes.warn_of_schedules(started.recipe, recipe)
            run = _Run(info, workdir, dataset, prepared)
            held.callback(run.close)
        run.train(stop, profile)


class Prepared(NamedTuple):
    """What a recipe comes to on a dataset."""

    spec: ImageSpec
    algorithm: Algorithm
    evaluator: Evaluator
    shapes: TrainState


def load_dataset(recipe: Mapping[str, Any]) -> sources.Dataset:
    """The data of a checked recipe. Raises UsageError where they are not there."""
    section = recipe["dataset"]
    return sources.load(*(section[name] for name in ("source", "name", "split", "data_dir", "image_size")))


def prepare(recipe: Mapping[str, Any], dataset: sources.Dataset) -> Prepared:
    """All of a checked recipe that can be refused before training, in shapes alone: raises UsageError."""
    spec = ImageSpec(recipe["dataset"]["image_size"], dataset.images.shape[-1], len(dataset.class_names))
    algorithm = build(recipe, spec)
    evaluator = Evaluator(recipe, dataset)
    shapes = jax.eval_shape(lambda: create(algorithm, spec, jax.random.key(0, impl=parallel.PRNG)))
    return Prepared(spec, algorithm, evaluator, shapes)


class _Run:
    """A run in progress: its state on the devices and everything that is written about it."""

    def __init__(self, info: workdirs.RunInfo, workdir: Path, dataset: sources.Dataset, prepared: Prepared):
        self.recipe, self.workdir, self.dataset = info.recipe, workdir, dataset
        self.spec, self.algorithm, self.evaluator, self.shapes = prepared
        self.kimg_per_step = images_per_step(self.recipe) / 1000
        self.total_steps = steps_for(self.recipe, self.recipe["train"]["total_kimg"])
        self.mesh = make_mesh()
        self.began, self.fastest, self.max_minutes = False, 0.0, self.recipe["train"]["max_minutes"]
        self.checkpoints = Checkpoints(workdir, self.recipe["checkpoint"]["max_to_keep"])
        self.writes, self.rollbacks = processes.is_first(), guards.rollbacks(workdir)
        self._restore()
        self.sampler = make_sampler(self.algorithm.generator)
        if self.writes:
            workdirs.write_info(workdir, info)
            workdirs.append_environment(workdir, environment.describe())
        self.progress = TrainingProgress(
            self.kimg, self.total_steps * self.kimg_per_step, info.num_images, shown=self.writes
        )
        self.progress.say(
            f"{'resuming at' if self.step else 'starting from'} step {self.step} of {self.total_steps},"
            f" {self.kimg:.1f} kimg,"
            f" on {jax.device_count()} {jax.default_backend()} device(s) in {workdir}"
        )
        self.writer, self.painter = make_writer(workdir), curves.Painter(self.progress.say)
        if self.max_minutes:
            self.progress.say(
                f"{self.clock.seconds / 60:.1f} of {self.max_minutes:g} minutes of training are used;"
                " schedules follow the clock, so that no two such runs are alike bit for bit"
            )
        if not self.step and self.writes:
            self._describe()
        self.feed, self.any_process = (_ for _ in ()), processes.AnyProcess(self.mesh)
        self.hooks: list[Callable[[int], None]] = []

    @property
    def kimg(self) -> float:
        """Thousands of real images shown so far."""
        return round(self.step * self.kimg_per_step, 6)

    @property
    def done(self) -> bool:
        """Whether all images are shown or all minutes used."""
        return self.step >= self.total_steps or self.time_share >= 1.0

    def train(self, stop: StopRequest, profile: bool) -> None:
        """To the end, by way of as many rollbacks as the recipe allows."""
        per_call = steps_per_call(self.recipe, self.algorithm, self.spec, self.mesh)
        parallelism = self.recipe["train"]["parallelism"]
        steps = functools.partial(train_steps, self.algorithm, per_call)
        call = distribute(steps, self.mesh, parallelism, placement.SPECS[self.recipe["dataset"]["placement"]])
        self.hooks = make_hooks(self.writer, self.workdir, self.total_steps, profile)
        guard = self.recipe["guard"]
        with Watchdog(guard["watchdog_minutes"], guard["watchdog_exits"], self.step) as self.watchdog:
            while True:
                try:
                    self._go_on(call, per_call, stop)
                    break
                except GuardError as error:
                    self._roll_back(error)
        self.checkpoints.wait()
        self.progress.say(
            f"done: {self.kimg:.1f} kimg, {duration(self.clock.seconds)} of training; pictures in {self.workdir}"
        )

    def _go_on(self, call: Callable, per_call: int, stop: StopRequest) -> None:
        """The loop. Raises Interrupted, with the state saved, and GuardError."""
        pending: list[Callable[[], None]] = []
        if processes.of_first(float(self._lacks_evaluation(per_call))):
            self._evaluate(stop)
        self._check_evaluations()
        if self.done:
            return
        data = self._feed_from_here(per_call)
        if not self.fastest:
            rate = throughput.calls_per_sec_at_ceiling(call, self.state, data, self.mesh)
            self.fastest = rate * per_call * images_per_step(self.recipe)
        while not self.done:
            before = self.kimg
            self.state, scalars = call(self.state, data) if self.began else self._first(call, data, stop)
            data = next(self.feed)
            self.step += per_call
            _drain(pending)
            self.watchdog.beat(self.step - per_call)
            self.checkpoints.check()
            if self.max_minutes:
                self._tell_the_time()
            pending.append(functools.partial(self._record, self.step, before, scalars))
            for hook in self.hooks:
                hook(self.step)
            # Asked once: a request during maintenance is granted after the next call.
            stopping = self.any_process(stop.requested)
            ends = stopping or self.done
            intervals = self.recipe["checkpoint"]["every_kimg"], self.recipe["train"]["sample_kimg"]
            if ends or self._evaluates(before) or _is_due(before, self.kimg, *intervals):
                _drain(pending)
                self._maintain(before, ends, stop)
            if stopping and not self.done:
                raise Interrupted(f"stopped and saved at step {self.step}; run the same command again to go on")

    def close(self) -> None:
        """Waits for what is being written, one after the other, whatever is raised meanwhile."""
        with contextlib.ExitStack() as last_first:
            for part in (self.checkpoints, self.writer, self.feed, self.progress, self.painter):
                last_first.callback(part.close)
            for hook in self.hooks:
                if isinstance(hook, Profile):
                    last_first.callback(hook.close)

    def _feed_from_here(self, per_call: int) -> Any:
        """Begins the data of the calls from this step on, and returns those of the first."""
        self.feed.close()
        data, where = Data(self.dataset.images, self.dataset.labels), self.recipe["dataset"]["placement"]
        draws = functools.partial(drawn_rows, self.algorithm, per_call)
        self.feed = placement.feed(where, data, self.mesh, draws, self.state.key, per_call, self.step)
        return next(self.feed)

    def _restore(self) -> None:
        """The state of the newest checkpoint that is what was saved, or the first one; and the logs up to it."""
        state = self.checkpoints.restore_newest(self.shapes, replicated(self.mesh))
        if state is None:
            state = replicate(create_quickly(self.algorithm, self.spec, self.recipe["seed"]), self.mesh)
        self.step = int(state.step)
        if fold := guards.folds(self.rollbacks, self.step):
            state = state.replace(key=jax.random.fold_in(state.key, fold))
        self.state = state
        lines_until = workdirs.forget_metrics_after if self.writes else workdirs.read_metrics_until
        self.history = lines_until(self.workdir, self.step)
        evaluations = lines_until(self.workdir, self.step, workdirs.EVALUATIONS)
        # Those that training made: cgan evaluate writes no seconds of training.
        self.evaluations = [line for line in evaluations if "seconds" in line]
        self._remember_good()
        self.clock = Clock(self.history, self.kimg)
        self._tell_the_time()

    def _remember_good(self) -> None:
        """Which checkpoint a guard would go back to is kept for it."""
        since = self.rollbacks[-1]["to"] if self.rollbacks else 0
        self.checkpoints.good_until = guards.good_until(self.recipe["guard"], self.history, self.evaluations, since)

    def _roll_back(self, error: GuardError) -> None:
        """To the last good checkpoint, or the beginning, with another key; raises `error` where that is not allowed."""
        guard, count = self.recipe["guard"], len(self.rollbacks)
        if guard["action"] != "rollback" or count >= guard["max_rollbacks"]:
            raise GuardError(f"{error}, after {count} rollbacks" if count else str(error)) from error
        self.checkpoints.wait()
        steps = self.checkpoints.steps()
        good = [step for step in steps if error.good_until is None or step <= error.good_until]
        to = int(processes.of_first(float(max(good, default=0))))
        # Set aside before it is noted: a kill in between leaves a run that comes to the same trouble again.
        self.checkpoints.set_aside([step for step in steps if step > to])
        went_back = {"step": self.step, "kimg": self.kimg, "to": to, "why": str(error)}
        if self.writes:
            guards.remember_rollback(self.workdir, **went_back)
        self.rollbacks.append(went_back)
        self.progress.say(
            f"guard: {error}; rollback {count + 1} of at most {guard['max_rollbacks']} to step {to}, with a new key"
        )
        self._restore()
        self.progress.advance(self.step, self.kimg)

    def _describe(self) -> None:
        """model.txt and the first pictures."""
        storage.write_whole(self.workdir / "model.txt", describe(self.algorithm, self.spec, self.shapes))
        self.writer.write_hparams(dict(recipes.flattened(self.recipe)))
        storage.make_folder(self.workdir / "samples")
        conditional = self.recipe["dataset"]["conditional"]
        real = grids.grid(
            *rows_of_real(self.dataset.images, self.dataset.labels, self.dataset.class_names, conditional)
        )
        grids.save(real, self.workdir / "samples" / "real.png")
        self._draw_samples()

    def _tell_the_time(self) -> None:
        """Writes the share of its minutes that training has used into the state, for the next call to follow."""
        seconds = self.clock.total if self.began else self.clock.seconds
        share = min(1.0, seconds / (60 * self.max_minutes)) if self.max_minutes else 0.0
        self.time_share = processes.of_first(share)
        self.state = self.state.replace(time_share=everywhere(self.time_share, self.mesh))

    def _first(self, call: Callable, data: Any, stop: StopRequest) -> tuple[TrainState, dict[str, jax.Array]]:
        """The first call, most of which is compilation; once it is done, the clock starts."""
        with stop.at_once(f"stopped before a step was taken from {self.step}; run the same command again to go on"):
            state, scalars = jax.block_until_ready(call(self.state, data))
        self.began = True
        self.progress.say(f"first call done {time.perf_counter() - STARTED:.1f} s after the start")
        self.clock.start(round(int(state.step) * self.kimg_per_step, 6))
        return state, scalars

    def _record(self, step: int, before: float, scalars: dict[str, jax.Array]) -> None:
        """Reads the numbers of a call, checks them, and logs their means where a log interval ends."""
        kimg = round(step * self.kimg_per_step, 6)
        numbers = {f"train/{name}": float(value) for name, value in jax.device_get(scalars).items()}
        for name, value in numbers.items():
            if not math.isfinite(value):
                raise self._guard(f"{name} is {value}", step)
        self.clock.add(numbers)
        self.progress.advance(step, kimg)
        if _is_due(before, kimg, self.recipe["train"]["log_kimg"]):
            self._log(step, kimg)

    def _log(self, step: int, kimg: float) -> None:
        """A line with the means since the last one."""
        means = self.clock.lap(kimg)
        if speed := means.get("time/images_per_sec"):
            means["time/share_of_ceiling"] = speed / self.fastest
        if self.rollbacks:
            means["guard/rollbacks"] = len(self.rollbacks)
        line = {"step": step, "kimg": kimg, "seconds": round(self.clock.seconds, 3), **means}
        if self.writes:
            workdirs.append_metrics(self.workdir, line)
        self.history.append(line)
        self.writer.write_scalars(step, means)
        left = 60 * self.max_minutes - self.clock.seconds if self.max_minutes else math.inf
        self.progress.report(step, kimg, means, left)
        since = self.rollbacks[-1]["to"] if self.rollbacks else 0
        guards.check_discriminator(self.history, self.recipe["guard"]["d_perfect_kimg"], since)
        self._remember_good()

    def _guard(self, what: str, step: int) -> GuardError:
        self.checkpoints.wait()
        steps = self.checkpoints.steps()
        kept = f"the checkpoint at step {steps[-1]} is kept" if steps else "there is no checkpoint yet"
        return GuardError(f"{what} at step {step} ({step * self.kimg_per_step:.1f} kimg); {kept}")

    def _maintain(self, before: float, ends: bool, stop: StopRequest) -> None:
        """Pictures and checkpoints that are due, or all where the run ends here; evaluations where it is done.

        What is evaluated has been saved: an evaluation that is cut short costs nothing and is made up for.
        """
        jax.block_until_ready(self.state)
        # The minutes of a run that ends by the clock are counted up to each checkpoint.
        if (ends or self.max_minutes) and self.clock.has_news:
            self._log(self.step, self.kimg)
        with self.clock.maintenance(), self.watchdog.resting():
            evaluates = self._evaluates(before)
            if ends or evaluates or _is_due(before, self.kimg, self.recipe["checkpoint"]["every_kimg"]):
                # The losses of a call were computed before its updates and cannot vouch for what they led to.
                if not is_finite(self.state):
                    raise self._guard("a parameter or statistic is not finite", self.step)
                self.checkpoints.save(self.state)
            if self.writes and (ends or _is_due(before, self.kimg, self.recipe["train"]["sample_kimg"])):
                self._draw_samples()
                self.painter.paint(curves.save_curves, [*self.history], self.workdir / "curves.png", surely=ends)
            if evaluates:
                self._evaluate(stop)
            self.writer.flush()

    def _evaluates(self, before: float) -> bool:
        """Whether the recipe's metrics are due, or the run is done."""
        is_due = self.done or _is_due(before, self.kimg, self.recipe["evaluate"]["every_kimg"])
        return bool(self.evaluator.metrics) and is_due

    def _lacks_evaluation(self, per_call: int) -> bool:
        """Whether the run ended in the evaluation of the step that it was restored from."""
        evaluated = any(line["step"] == self.step for line in self.evaluations)
        before = self.kimg - per_call * self.kimg_per_step
        return self.step > 0 and self._evaluates(before) and not evaluated

    def _evaluate(self, stop: StopRequest) -> None:
        """Scores the checkpoint, and notes what it is worth where the recipe wants the best one kept."""
        self.checkpoints.wait()
        farewell = f"stopped in an evaluation, saved at step {self.step}; run the same command again to go on"
        if self.writes:
            with stop.at_once(farewell):
                scores, protocol = self.evaluator(self.sampler, on_one_device(self.state.average))
            cost = processes.of_first(self._scored(scores, protocol))
        else:
            with stop.at_once(farewell):
                cost = processes.of_first(None)
        if cost is not None:
            self.checkpoints.rate(self.step, cost, self.evaluator.cost_of)
        self._check_evaluations()

    def _scored(self, scores: Mapping[str, float], protocol: Mapping[str, Any]) -> float | None:
        """Logs the scores; returns what the best checkpoint has least of, where the recipe wants that kept."""
        scalars = {f"eval/{name}": value for name, value in scores.items()}
        line = {"step": self.step, "kimg": self.kimg, "seconds": round(self.clock.seconds, 3), **scalars}
        workdirs.append_metrics(self.workdir, {**line, "protocol": protocol}, workdirs.EVALUATIONS)
        self.evaluations.append(line)
        self.writer.write_scalars(self.step, scalars)
        told = ", ".join(f"{name} {value:.4g}" for name, value in scores.items() if "/" not in name)
        self.progress.say(f"evaluated at {self.kimg:.1f} kimg: {told}")
        return self.evaluator.cost(scores)

    def _check_evaluations(self) -> None:
        """Raises GuardError, in all processes, for a collapse that the first one sees in the evaluations."""
        trouble = None
        try:
            if self.writes:
                guards.check_evaluations(self.evaluations, self.recipe["guard"]["collapse"], self.spec.num_classes)
        except GuardError as error:
            trouble = error
        good_until = processes.of_first(None if trouble is None else float(trouble.good_until))
        if good_until is not None:
            raise trouble or GuardError("the first process found a collapse", good_until=int(good_until))
        self._remember_good()

    def _draw_samples(self) -> None:
        seed, conditional = self.recipe["seed"], self.recipe["dataset"]["conditional"]
        average = on_one_device(self.state.average)
        drawn = rows_of_samples(self.sampler, average, seed, self.dataset.class_names, conditional)
        picture = grids.grid(*drawn)
        whole = self.recipe["train"]["sample_kimg"] >= 1
        name = f"kimg_{self.kimg:06.0f}.png" if whole else f"kimg_{self.kimg:010.3f}.png"
        grids.save(picture, self.workdir / "samples" / name)
        self.writer.write_images(self.step, {"samples": np.asarray(picture)[None]})


def _is_due(before: float, now: float, *intervals: float) -> bool:
    """Whether a multiple of one of the intervals lies in (before, now], all in kimg."""
    return any(math.floor(now / interval) > math.floor(before / interval) for interval in intervals)


def _drain(pending: list[Callable[[], None]]) -> None:
    while pending:
        pending.pop(0)()
