"""One run from its recipe to its last checkpoint: build, restore, loop, log, draw pictures, save. No mathematics.

The host dispatches call n and then reads the numbers of call n-1, so the devices never wait for it. Pictures,
checkpoints and evaluations are maintenance: their time is kept apart from training time.
"""

import functools
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cgan_jax import datasets, pictures, replica, throughput
from cgan_jax import recipe as recipes
from cgan_jax import workdir as workdirs
from cgan_jax.algorithm import Algorithm, ImageSpec, build, images_per_step, steps_for
from cgan_jax.checkpoint import Checkpoints
from cgan_jax.data import on_host
from cgan_jax.errors import GuardError, Interrupted
from cgan_jax.evaluation import Evaluator
from cgan_jax.metric_writers import make_hooks, make_writer
from cgan_jax.progress import Clock, TrainingProgress, duration
from cgan_jax.sampling import make_sampler, rows_of_real, rows_of_samples
from cgan_jax.sharding import distribute, make_mesh, replicate, replicated
from cgan_jax.signals import StopRequest
from cgan_jax.train_state import TrainState, create
from cgan_jax.train_step import train_steps

_STARTED = time.perf_counter()
_STEPS_PER_CALL = {"cpu": 1}
_STEPS_PER_CALL_ELSEWHERE = 32


def train_and_evaluate(recipe: dict[str, Any], workdir: Path, profile: bool = False) -> None:
    """Trains `recipe` in `workdir`, or goes on from its latest checkpoint, to `total_kimg` or for `max_minutes`.

    Raises UsageError for a recipe that cannot work, before anything is written; GuardError where a number is not
    finite; Interrupted, with the state saved, after SIGINT or SIGTERM.
    """
    recipes.check(recipe)
    recipes.check_devices(recipe, jax.device_count())
    dataset = load_dataset(recipe)
    spec, algorithm, evaluator, shapes = prepare(recipe, dataset)
    info = workdirs.RunInfo(recipe, spec.channels, list(dataset.class_names), len(dataset.labels))
    with workdirs.locked(workdir), StopRequest() as stop:
        if (workdir / workdirs.CONFIG).exists():
            started = workdirs.read_info(workdir)
            recipes.check_same_run(started.recipe, recipe, str(workdir))
            workdirs.check_same_dataset(started, info, workdir)
            recipes.warn_of_schedules(started.recipe, recipe)
        run = _Run(info, workdir, dataset, algorithm, evaluator, spec, shapes)
        try:
            run.train(stop, profile)
        finally:
            run.close()


class Prepared(NamedTuple):
    """What a recipe comes to on a dataset."""

    spec: ImageSpec
    algorithm: Algorithm
    evaluator: Evaluator
    shapes: TrainState


def load_dataset(recipe: Mapping[str, Any]) -> datasets.Dataset:
    """The data of a checked recipe. Raises UsageError where they are not there."""
    section = recipe["dataset"]
    return datasets.load(*(section[name] for name in ("source", "name", "split", "data_dir", "image_size")))


def prepare(recipe: Mapping[str, Any], dataset: datasets.Dataset) -> Prepared:
    """All of a checked recipe that can be refused before training, in shapes alone: raises UsageError."""
    spec = ImageSpec(recipe["dataset"]["image_size"], dataset.images.shape[-1], len(dataset.class_names))
    algorithm = build(recipe, spec)
    evaluator = Evaluator(recipe, dataset)
    shapes = jax.eval_shape(lambda: create(algorithm, spec, jax.random.key(0, impl=replica.PRNG)))
    return Prepared(spec, algorithm, evaluator, shapes)


class _Run:
    """A run in progress: its state on the devices and everything that is written about it."""

    def __init__(
        self,
        info: workdirs.RunInfo,
        workdir: Path,
        dataset: datasets.Dataset,
        algorithm: Algorithm,
        evaluator: Evaluator,
        spec: ImageSpec,
        shapes: TrainState,
    ):
        self.evaluator = evaluator
        self.recipe, self.workdir, self.dataset, self.algorithm = info.recipe, workdir, dataset, algorithm
        self.kimg_per_step = images_per_step(self.recipe) / 1000
        self.total_steps = steps_for(self.recipe, self.recipe["train"]["total_kimg"])
        self.max_minutes = self.recipe["train"]["max_minutes"]
        mesh = make_mesh()
        self.checkpoints = Checkpoints(workdir, self.recipe["checkpoint"]["max_to_keep"])
        steps = self.checkpoints.steps()
        if steps:
            self.state = self.checkpoints.restore(steps[-1], shapes, replicated(mesh))
        else:
            self.state = replicate(create_quickly(algorithm, spec, self.recipe["seed"]), mesh)
        self.step = steps[-1] if steps else 0
        self.data = replicate(on_host(dataset.images, dataset.labels), mesh)
        self.sampler = make_sampler(algorithm.generator)
        workdirs.write_info(workdir, info)
        self.history = workdirs.forget_metrics_after(workdir, self.step)
        workdirs.forget_metrics_after(workdir, self.step, workdirs.EVALUATIONS)
        self.progress = TrainingProgress(self.kimg, self.total_steps * self.kimg_per_step, info.num_images)
        self.progress.say(
            f"{'resuming at' if steps else 'starting from'} step {self.step} of {self.total_steps},"
            f" {self.kimg:.1f} kimg,"
            f" on {jax.device_count()} {jax.default_backend()} device(s) in {workdir}"
        )
        self.writer = make_writer(workdir)
        if not steps:
            self._describe(spec, shapes)
        self.clock = Clock(self.history, self.kimg)
        self.began, self.mesh = False, mesh
        self._tell_the_time()
        if self.max_minutes:
            self.progress.say(
                f"{self.clock.seconds / 60:.1f} of {self.max_minutes:g} minutes of training are used;"
                " schedules follow the clock, so that no two such runs are alike bit for bit"
            )

    @property
    def kimg(self) -> float:
        """Thousands of real images shown so far."""
        return round(self.step * self.kimg_per_step, 6)

    @property
    def done(self) -> bool:
        """Whether all images are shown or all minutes used."""
        return self.step >= self.total_steps or self.time_share >= 1.0

    def train(self, stop: StopRequest, profile: bool) -> None:
        """The loop."""
        train, per_call = self.recipe["train"], steps_per_call(self.recipe)
        call = distribute(functools.partial(train_steps, self.algorithm, per_call), self.mesh, train["parallelism"])
        hooks = make_hooks(self.writer, self.workdir, self.total_steps, profile)
        pending: list[Callable[[], None]] = []
        if not self.done:
            rate = throughput.calls_per_sec_at_ceiling(call, self.state, self.data, self.mesh)
            self.fastest = rate * per_call * images_per_step(self.recipe)
        while not self.done:
            before = self.kimg
            self.state, scalars = call(self.state, self.data)
            self.step += per_call
            _drain(pending)
            self._after_first(scalars)
            if self.max_minutes:
                self._tell_the_time()
            pending.append(functools.partial(self._record, self.step, before, scalars))
            for hook in hooks:
                hook(self.step)
            stopping = stop.requested  # read once: a request during maintenance is granted after the next call
            ends = stopping or self.done
            intervals = [self.recipe["checkpoint"]["every_kimg"], train["sample_kimg"]]
            if self.evaluator.metrics:
                intervals.append(self.recipe["evaluate"]["every_kimg"])
            if ends or _is_due(before, self.kimg, *intervals):
                _drain(pending)
                self._maintain(before, ends)
            if stopping and not self.done:
                raise Interrupted(f"stopped and saved at step {self.step}; run the same command again to go on")
        self.progress.say(
            f"done: {self.kimg:.1f} kimg, {duration(self.clock.seconds)} of training; pictures in {self.workdir}"
        )

    def close(self) -> None:
        """Waits for what is being written."""
        self.progress.close()
        self.checkpoints.close()
        self.writer.close()

    def _describe(self, spec: ImageSpec, shapes: TrainState) -> None:
        """model.txt and the first pictures."""
        workdirs.write_whole(self.workdir / "model.txt", describe(self.algorithm, spec, shapes))
        self.writer.write_hparams(dict(recipes.flattened(self.recipe)))
        (self.workdir / "samples").mkdir(exist_ok=True)
        conditional = self.recipe["dataset"]["conditional"]
        real = pictures.grid(
            *rows_of_real(self.dataset.images, self.dataset.labels, self.dataset.class_names, conditional)
        )
        pictures.save(real, self.workdir / "samples" / "real.png")
        self._draw_samples()

    def _tell_the_time(self) -> None:
        """Writes the share of its minutes that training has used into the state, for the next call's schedules."""
        seconds = self.clock.total if self.began else self.clock.seconds
        self.time_share = min(1.0, seconds / (60 * self.max_minutes)) if self.max_minutes else 0.0
        share = jax.device_put(np.float32(self.time_share), replicated(self.mesh))
        self.state = self.state.replace(time_share=share)

    def _after_first(self, scalars: dict[str, jax.Array]) -> None:
        """Once the first call is done, most of which is compilation, the clock starts."""
        if not self.began:
            self.began = True
            jax.block_until_ready(scalars)
            self.progress.say(f"first call done {time.perf_counter() - _STARTED:.1f} s after the start")
            self.clock.start(self.kimg)

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
        line = {"step": step, "kimg": kimg, "seconds": round(self.clock.seconds, 3), **means}
        workdirs.append_metrics(self.workdir, line)
        self.history.append(line)
        self.writer.write_scalars(step, means)
        left = 60 * self.max_minutes - self.clock.seconds if self.max_minutes else math.inf
        self.progress.report(step, kimg, means, left)

    def _guard(self, what: str, step: int) -> GuardError:
        steps = self.checkpoints.steps()
        kept = f"the checkpoint at step {steps[-1]} is kept" if steps else "there is no checkpoint yet"
        return GuardError(f"{what} at step {step} ({step * self.kimg_per_step:.1f} kimg); {kept}")

    def _maintain(self, before: float, ends: bool) -> None:
        """Pictures and checkpoints that are due, or all where the run ends here; evaluations where it is done."""
        jax.block_until_ready(self.state)
        if ends and self.clock.has_news:
            self._log(self.step, self.kimg)
        with self.clock.maintenance():
            every = self.recipe["evaluate"]["every_kimg"]
            evaluates = bool(self.evaluator.metrics) and (self.done or _is_due(before, self.kimg, every))
            saves = ends or _is_due(before, self.kimg, self.recipe["checkpoint"]["every_kimg"])
            # The losses of a call were computed before its updates and cannot vouch for what they led to.
            if (saves or evaluates) and not is_finite(self.state):
                raise self._guard("a parameter or statistic is not finite", self.step)
            cost = self._evaluate() if evaluates else None
            if saves or cost is not None:
                self.checkpoints.save(self.state, cost)
            if ends or _is_due(before, self.kimg, self.recipe["train"]["sample_kimg"]):
                self._draw_samples()
                pictures.save_curves(self.history, self.workdir / "curves.png")

    def _evaluate(self) -> float | None:
        """Logs the scores; returns what the best checkpoint has least of, where the recipe wants that kept."""
        scores, protocol = self.evaluator(self.sampler, self.state.average)
        scalars = {f"eval/{name}": value for name, value in scores.items()}
        line = {"step": self.step, "kimg": self.kimg, "seconds": round(self.clock.seconds, 3), **scalars}
        workdirs.append_metrics(self.workdir, {**line, "protocol": protocol}, workdirs.EVALUATIONS)
        self.writer.write_scalars(self.step, scalars)
        told = ", ".join(f"{name} {value:.4g}" for name, value in scores.items() if "/" not in name)
        self.progress.say(f"evaluated at {self.kimg:.1f} kimg: {told}")
        return self.evaluator.cost(scores)

    def _draw_samples(self) -> None:
        seed, conditional = self.recipe["seed"], self.recipe["dataset"]["conditional"]
        drawn = rows_of_samples(self.sampler, self.state.average, seed, self.dataset.class_names, conditional)
        picture = pictures.grid(*drawn)
        whole = self.recipe["train"]["sample_kimg"] >= 1
        name = f"kimg_{self.kimg:06.0f}.png" if whole else f"kimg_{self.kimg:010.3f}.png"
        pictures.save(picture, self.workdir / "samples" / name)
        self.writer.write_images(self.step, {"samples": np.asarray(picture)[None]})


def steps_per_call(recipe: dict[str, Any]) -> int:
    """Generator steps in one dispatch: `train.steps_per_call`, or where that is 0 what suits the backend.

    On a CPU a convolution inside a loop is slower than outside of one; elsewhere many steps hide the host's work.
    """
    return recipe["train"]["steps_per_call"] or _STEPS_PER_CALL.get(jax.default_backend(), _STEPS_PER_CALL_ELSEWHERE)


@jax.jit
def is_finite(tree: Any) -> jax.Array:
    """Whether every floating-point number of a tree is finite, a bool scalar."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def create_quickly(algorithm: Algorithm, spec: ImageSpec, seed: int) -> TrainState:
    """The first state, by a program that runs once and is not worth optimising: 3 s of compilation in place of 14."""
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    is_cpu = jax.default_backend() == "cpu"
    return jax.jit(
        lambda: create(algorithm, spec, jax.random.key(seed, impl=replica.PRNG)),
        compiler_options=options if is_cpu else None,
    )()


def describe(algorithm: Algorithm, spec: ImageSpec, shapes: TrainState) -> str:
    """Layers, shapes and parameters of both networks, as text."""
    from clu import parameter_overview

    labels = np.zeros((1,), np.int32)
    latents = np.zeros((1, algorithm.generator.latent_dim), np.float32)
    images = np.zeros((1, spec.image_size, spec.image_size, spec.channels), np.float32)
    key, wide = jax.random.key(0), {"width": 140, "force_terminal": False}
    return "\n".join(
        [
            algorithm.generator.tabulate(key, latents, labels, False, console_kwargs=wide),
            algorithm.discriminator.tabulate(key, images, labels, False, console_kwargs=wide),
            "Generator",
            parameter_overview.get_parameter_overview(shapes.g_params, include_stats=False),
            "Discriminator",
            parameter_overview.get_parameter_overview(shapes.d_params, include_stats=False),
            "",
        ]
    )


def _is_due(before: float, now: float, *intervals: float) -> bool:
    """Whether a multiple of one of the intervals lies in (before, now], all in kimg."""
    return any(math.floor(now / interval) > math.floor(before / interval) for interval in intervals)


def _drain(pending: list[Callable[[], None]]) -> None:
    while pending:
        pending.pop(0)()
