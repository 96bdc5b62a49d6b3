"""Trains one run from its recipe to its last checkpoint: set up, restore, loop. The mathematics is in train_step.

A call is one compiled program of `steps_per_call` train steps. The host dispatches call n and then reads the numbers of
call n-1, so between maintenance the devices do not wait for the host. Pictures, checkpoints and evaluations are
maintenance: the clock counts them apart from training.
"""

import contextlib
import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from PIL import Image

from cgan_jax import STARTED, parallel, transfer
from cgan_jax import recipe as recipes
from cgan_jax.build import Algorithm, ImageSpec, build, images_per_step, kimg_after, steps_for
from cgan_jax.data import placement, sources
from cgan_jax.data.batches import Data, balanced
from cgan_jax.errors import GuardError, Interrupted, UsageError
from cgan_jax.evaluation.evaluation import Evaluator
from cgan_jax.files import storage
from cgan_jax.parallel import distribute, everywhere, make_mesh, on_one_device, replicated
from cgan_jax.run import checkpoint, integrity, memory, packed, processes, progress, throughput
from cgan_jax.run import workdir as workdirs
from cgan_jax.run.journal import Journal
from cgan_jax.run.metric_writers import DEFAULT, Profile, make_hooks
from cgan_jax.run.progress import say
from cgan_jax.run.recovery import Recovery
from cgan_jax.run.signals import StopRequest
from cgan_jax.run.throughput import steps_per_call
from cgan_jax.run.watchdog import Watchdog
from cgan_jax.sampling import grids
from cgan_jax.sampling.sampling import make_sampler, rows_of_real, rows_of_samples
from cgan_jax.train_state import TrainState, create, describe
from cgan_jax.train_step import drawn_rows, train_step, train_steps


def train_and_evaluate(
    recipe: dict[str, Any],
    workdir: Path,
    profile: bool = False,
    writers: Sequence[str] = DEFAULT,
    dataset: sources.Dataset | None = None,
    on_log: Callable[[dict[str, float]], None] | None = None,
    on_sample: Callable[[Image.Image, float], None] | None = None,
    exits: bool = True,
    init_from: str = "",
    memory_gigabytes: float | None = None,
) -> None:
    """Trains `recipe` in `workdir`, from the latest checkpoint if there is one, to `total_kimg` or `max_minutes`.

    `profile` writes a trace of a few calls for TensorBoard. `writers` are files of run/writers/, which get the numbers
    and pictures. `dataset` replaces the images that the recipe names. `on_log` gets each line of metrics.jsonl,
    `on_sample` each picture of samples and its kimg. With `exits`, the signals that stop a run may end the process.
    `init_from` names a model (models.find) whose weights a new run begins with; one that goes on does not read it.
    `memory_gigabytes` changes remat and train.accumulate until training takes no more of a device (memory.fitted).

    Raises UsageError before training if the recipe cannot work. Raises GuardError if a guard of the recipe stops the
    run, and Interrupted, with the state saved, after SIGINT, SIGTERM or SIGHUP.
    """
    started = STARTED if exits else time.perf_counter()
    with StopRequest(exits) as stop, contextlib.ExitStack() as held:
        with stop.at_once("stopped before training began; run the same command again"):
            with processes.together():
                recipes.check(recipe)
                recipes.check_devices(recipe, jax.device_count())
                with progress.telling("reading the images"):
                    dataset = dataset or load_dataset(recipe)
                for line in dataset.about if processes.is_first() else ():
                    say(line)
                if memory_gigabytes is not None:
                    recipe = _within(memory_gigabytes, recipe, dataset)
                with progress.telling("preparing the networks"):
                    prepared = prepare(recipe, dataset)
                info = workdirs.RunInfo(recipe, prepared.spec.channels, list(dataset.class_names), len(dataset.labels))
                if processes.is_first():
                    held.enter_context(workdirs.locked(workdir))
            mesh, sampler = make_mesh(), make_sampler(prepared.algorithm.generator)
            with processes.together():
                _check_folder(workdir, info)
                source = _source(init_from, workdir, info, mesh)
            begin = source and functools.partial(transfer.begun, source, prepared.algorithm, info.classes)
            recovery = Recovery(workdir, recipe, prepared.algorithm, prepared.spec, prepared.shapes, mesh, begin)
            held.callback(recovery.close)
            draw = functools.partial(_picture_of_samples, sampler, info)
            journal = Journal(workdir, info, draw, writers, on_log, on_sample)
            held.callback(journal.close)
            journal.started, journal.init_from = started, source and source.record
            del source, begin  # the weights would stay in memory beside the new ones
            state = recovery.restore(journal)
            _say_frozen(prepared.algorithm)
            journal.open(int(state.step))
            if journal.writes and not state.step:
                about = describe(prepared.algorithm, prepared.spec, prepared.shapes)
                journal.describe(about, _picture_of_real(dataset, info), state.average)
            run = _Run(recipe, dataset, prepared, mesh, sampler, journal, recovery)
        run.train(state, stop, profile)


class Prepared(NamedTuple):
    """What `prepare` makes of a recipe and a dataset."""

    spec: ImageSpec
    algorithm: Algorithm
    evaluator: Evaluator
    shapes: TrainState


def load_dataset(recipe: Mapping[str, Any]) -> sources.Dataset:
    """The dataset of a checked recipe. Raises UsageError if it is missing."""
    return sources.load_section(recipe["dataset"])


def prepare(recipe: Mapping[str, Any], dataset: sources.Dataset) -> Prepared:
    """Builds a checked recipe in shapes alone. Raises UsageError if it cannot be trained on this dataset."""
    spec = _spec(recipe, dataset)
    algorithm = build(recipe, spec)
    evaluator = Evaluator(recipe, dataset)
    shapes = jax.eval_shape(lambda: create(algorithm, spec, jax.random.key(0, impl=parallel.PRNG)))
    if algorithm.accumulate > 1:  # some layers and losses refuse, as soon as they are traced
        first = Data(dataset.images[: algorithm.batch_size], dataset.labels[: algorithm.batch_size])
        jax.eval_shape(functools.partial(train_step, algorithm), shapes, first)
    return Prepared(spec, algorithm, evaluator, shapes)


def _spec(recipe: Mapping[str, Any], dataset: sources.Dataset) -> ImageSpec:
    return ImageSpec(recipe["dataset"]["image_size"], dataset.images.shape[-1], len(dataset.class_names))


def _within(gigabytes: float, recipe: Mapping[str, Any], dataset: sources.Dataset) -> dict[str, Any]:
    """The recipe with settings with which training takes at most so much memory of a device (memory.fitted)."""
    tell = say if processes.is_first() else lambda line: None
    with progress.telling(f"compiling until training fits {gigabytes:g} GB"):
        return memory.fitted(recipe, len(dataset.labels), _spec(recipe, dataset), make_mesh(), gigabytes, tell)


def _check_folder(workdir: Path, info: workdirs.RunInfo) -> None:
    """Raises UsageError if the run in `workdir` started with another recipe or dataset, or lost its checkpoints."""
    processes.check_shared(workdir)
    if packed.is_packed(workdir):
        raise UsageError(f"{workdir} holds a packed model, whose training is over; use another --workdir")
    if not checkpoint.exist(workdir):
        if _had_checkpoints(workdir):
            raise UsageError(
                f"{workdir} holds the logs of a run whose checkpoints are gone, and a new start would erase them;"
                " move it away, or use another --workdir"
            )
        if not workdirs.read_metrics(workdir):
            return
    if not (workdir / workdirs.CONFIG).exists():
        say(f"warning: {workdir / workdirs.CONFIG} is missing; it is written again, for the recipe that is given")
    else:
        started = workdirs.read_info(workdir)
        recipes.check_same_run(started.recipe, info.recipe, str(workdir))
        workdirs.check_same_dataset(started, info, workdir)
        recipes.warn_of_schedules(started.recipe, info.recipe)


def _had_checkpoints(workdir: Path) -> bool:
    """Whether something is left that follows a checkpoint. A run that was killed before its first one has nothing."""
    scores = [workdirs.read_metrics(workdir, log) for log in (workdirs.EVALUATIONS, workdirs.AVERAGES)]
    return any([*scores, storage.files_below(workdir / integrity.FOLDER)])


def _source(init_from: str, workdir: Path, info: workdirs.RunInfo, mesh: jax.sharding.Mesh) -> transfer.Source | None:
    """The model that a new run begins from. None without one, and if the run goes on from its own checkpoint.

    Raises UsageError if there is no such model, if it does not fit, or if the run began from another one.
    """
    if not init_from:
        return None
    if checkpoint.exist(workdir):
        transfer.check_resumed(workdir, init_from)
        return None
    with progress.telling(f"reading {init_from}"):
        return transfer.read(init_from, info.recipe["architecture"], replicated(mesh))


def _say_frozen(algorithm: Algorithm) -> None:
    for player, frozen in (("generator", algorithm.g_frozen), ("discriminator", algorithm.d_frozen)):
        if frozen and processes.is_first():
            say(f"train.freeze: of the {player} {', '.join(sorted({name.split('.')[1] for name in frozen}))} stay")


def _picture_of_samples(sampler: Callable, info: workdirs.RunInfo, average: Any) -> Image.Image:
    """A grid of the averaged generator's images, one row per class."""
    seed, conditional = info.recipe["seed"], info.recipe["dataset"]["conditional"]
    return grids.grid(*rows_of_samples(sampler, on_one_device(average), seed, info.class_names, conditional))


def _picture_of_real(dataset: sources.Dataset, info: workdirs.RunInfo) -> Image.Image:
    """A grid of real images, one row per class."""
    conditional = info.recipe["dataset"]["conditional"]
    return grids.grid(*rows_of_real(dataset.images, dataset.labels, dataset.class_names, conditional))


class _Run(NamedTuple):
    """The fixed parts of a run. The loop holds the state, which changes."""

    recipe: Mapping[str, Any]
    dataset: sources.Dataset
    prepared: Prepared
    mesh: jax.sharding.Mesh
    sampler: Callable
    journal: Journal
    recovery: Recovery

    def train(self, state: TrainState, stop: StopRequest, profile: bool) -> None:
        """Trains to the end, with at most as many rollbacks as the recipe allows."""
        recipe, algorithm, journal = self.recipe, self.prepared.algorithm, self.journal
        per_call = steps_per_call(recipe, algorithm, self.prepared.spec, self.mesh)
        steps = functools.partial(train_steps, algorithm, per_call)
        data_spec = placement.SPECS[recipe["dataset"]["placement"]]
        call = distribute(steps, self.mesh, recipe["train"]["parallelism"], data_spec)
        any_process = processes.AnyProcess(self.mesh)
        guard = recipe["guard"]
        with (
            Watchdog(guard["watchdog_minutes"], guard["watchdog_exits"], int(state.step)) as watchdog,
            contextlib.ExitStack() as closing,
        ):
            hooks = make_hooks(journal.writer, journal.workdir, self.total_steps, profile)
            for hook in hooks:
                if isinstance(hook, Profile):
                    closing.callback(hook.close)
            while True:
                try:
                    self.loop(state, call, per_call, any_process, watchdog, hooks, stop)
                    break
                except GuardError as error:
                    state = self.recovery.roll_back(error, journal)
        self.recovery.checkpoints.wait()
        journal.finish()

    def loop(
        self,
        state: TrainState,
        call: Callable,
        per_call: int,
        any_process: processes.AnyProcess,
        watchdog: Watchdog,
        hooks: list[Callable[[int], None]],
        stop: StopRequest,
    ) -> None:
        """Makes calls until all images are shown or all minutes are used.

        Raises GuardError, and Interrupted after the state is saved.
        """
        journal, recovery, step = self.journal, self.recovery, int(state.step)
        state = self.timed(state)
        pending: list[Callable[[], None]] = []
        if processes.of_first(float(self.lacks_evaluation(step, per_call))):
            self.evaluate(state, step, stop)
        recovery.check_evaluations(journal)
        if self.done(step):
            return
        with contextlib.closing(self.feed(state, per_call)) as feed:
            data = next(feed)
            journal.measure_ceiling(lambda: self.ceiling(call, state, data, per_call))
            while not self.done(step):
                # Dispatch a call and its data; meanwhile read the numbers of the call before it.
                before, began = self.kimg(step), time.perf_counter()
                state, scalars = call(state, data) if journal.began else self.first(call, state, data, stop)
                step += per_call
                journal.clock.sent(self.kimg(step), time.perf_counter() - began)
                data = next(feed)
                journal.step = step
                _drain(pending)
                # Watch over the run.
                watchdog.beat(step - per_call)
                recovery.checkpoints.check()
                if journal.max_minutes:
                    state = self.timed(state)
                pending.append(functools.partial(self.record, step, before, scalars))
                for hook in hooks:
                    hook(step)
                # Ask once per call whether to stop: a request during maintenance takes effect after the next call.
                stopping = any_process(stop.requested)
                ends = stopping or self.done(step)
                if ends or self.needs_maintenance(before, step):
                    _drain(pending)
                    self.maintain(state, before, step, ends, watchdog, stop)
                if stopping and not self.done(step):
                    raise Interrupted(f"stopped and saved at step {step}; run the same command again to go on")

    @property
    def total_steps(self) -> int:
        return steps_for(self.recipe, self.recipe["train"]["total_kimg"])

    def kimg(self, step: int) -> float:
        return kimg_after(self.recipe, step)

    def done(self, step: int) -> bool:
        """Whether all images are shown or all minutes are used."""
        return step >= self.total_steps or self.journal.time_share >= 1.0

    def timed(self, state: TrainState) -> TrainState:
        """The state with the share of the run's minutes that are used; schedules of the next call follow it."""
        return state.replace(time_share=everywhere(self.journal.tell_time(), self.mesh))

    def feed(self, state: TrainState, per_call: int) -> Any:
        """Yields the data of each call, starting at this state."""
        section, (images, labels, *_) = self.recipe["dataset"], self.dataset
        data, where = Data(images, labels, balanced(labels, section.get("balance", "none"))), section["placement"]
        draws = functools.partial(drawn_rows, self.prepared.algorithm, per_call)
        return placement.feed(where, data, self.mesh, draws, state.key, per_call, int(state.step))

    def ceiling(self, call: Callable, state: TrainState, data: Any, per_call: int) -> dict[str, float]:
        """Images/s if the layers ran as fast as a large matrix product here, and at the datasheet's peak if known."""
        rates = throughput.calls_per_sec_at_most(call, state, data, self.mesh)
        return {name: rate * per_call * images_per_step(self.recipe) for name, rate in rates.items()}

    def first(self, call: Callable, state: TrainState, data: Any, stop: StopRequest) -> tuple[TrainState, dict]:
        """Makes the first call, most of which is compilation, and then starts the clock."""
        with (
            stop.at_once(
                f"stopped before a step was taken from {self.journal.step}; run the same command again to go on"
            ),
            progress.telling("compiling the training step, which later starts find in the cache"),
        ):
            state, scalars = jax.block_until_ready(call(state, data))
        self.journal.begin(int(state.step))
        return state, scalars

    def record(self, step: int, before: float, scalars: dict[str, jax.Array]) -> None:
        """Reads the numbers of a call, checks them, and logs their means if a log interval ends."""
        began = time.perf_counter()
        numbers = {f"train/{name}": float(value) for name, value in jax.device_get(scalars).items()}
        self.journal.clock.came(self.kimg(step), time.perf_counter() - began)
        for name, value in numbers.items():
            if not math.isfinite(value):
                raise self.recovery.trouble(f"{name} is {value}", step, self.kimg(step))
        self.journal.add(step, numbers)
        if is_due(before, self.kimg(step), self.recipe["train"]["log_kimg"]):
            self.log(step)

    def log(self, step: int) -> None:
        """Logs the means since the last line. Raises GuardError if the discriminator has won."""
        self.journal.log(step, len(self.recovery.rollbacks), self.recovery.since)
        self.recovery.check_discriminator(self.journal)

    def needs_maintenance(self, before: float, step: int) -> bool:
        intervals = self.recipe["checkpoint"]["every_kimg"], self.recipe["train"]["sample_kimg"]
        return self.evaluates(before, step) or is_due(before, self.kimg(step), *intervals)

    def maintain(
        self, state: TrainState, before: float, step: int, ends: bool, watchdog: Watchdog, stop: StopRequest
    ) -> None:
        """Saves the pictures and checkpoints that are due, or all if the run `ends`; evaluates if that is due.

        The checkpoint is saved before its evaluation. If the evaluation is interrupted, the next start repeats it.
        """
        jax.block_until_ready(state)
        journal, now = self.journal, self.kimg(step)
        # A run with limited minutes logs its time before each checkpoint, so that a resumed run knows it.
        if (ends or journal.max_minutes) and journal.clock.has_news:
            self.log(step)
        with journal.clock.maintenance(), watchdog.resting():
            evaluates = self.evaluates(before, step)
            if ends or evaluates or is_due(before, now, self.recipe["checkpoint"]["every_kimg"]):
                self.recovery.save(state, now)
            if ends or is_due(before, now, self.recipe["train"]["sample_kimg"]):
                journal.show(step, state.average, wait=ends)
            if evaluates:
                self.evaluate(state, step, stop)
            journal.writer.flush()

    def evaluates(self, before: float, step: int) -> bool:
        """Whether the recipe has metrics and they are due, by the interval or because the run is done."""
        due = self.done(step) or is_due(before, self.kimg(step), self.recipe["evaluate"]["every_kimg"])
        return bool(self.prepared.evaluator.metrics) and due

    def lacks_evaluation(self, step: int, per_call: int) -> bool:
        """Whether the step that the run was restored from still needs its evaluation."""
        evaluated = any(line["step"] == step for line in self.journal.evaluations)
        before = self.kimg(step) - per_call * images_per_step(self.recipe) / 1000
        return step > 0 and self.evaluates(before, step) and not evaluated

    def evaluate(self, state: TrainState, step: int, stop: StopRequest) -> None:
        """Evaluates the checkpoint, and records its cost if the recipe keeps the best one."""
        self.recovery.checkpoints.wait()
        evaluator, cost = self.prepared.evaluator, None
        with stop.at_once(f"stopped in an evaluation, saved at step {step}; run the same command again to go on"):
            if self.journal.writes:
                scores, protocol = evaluator(self.sampler, on_one_device(state.average))
                self.journal.score(step, scores, protocol)
                cost = evaluator.cost(scores)
            cost = processes.of_first(cost)
        if cost is not None:
            self.recovery.checkpoints.rate(step, cost, evaluator.cost_of)
        self.recovery.check_evaluations(self.journal)


def is_due(before: float, now: float, *intervals: float) -> bool:
    """Whether (before, now] contains a multiple of one of the intervals, all in kimg."""
    return any(math.floor(now / interval) > math.floor(before / interval) for interval in intervals)


def _drain(pending: list[Callable[[], None]]) -> None:
    while pending:
        pending.pop(0)()
