"""Kills a run with SIGKILL many times, at random and at chosen moments, and compares its end with an undisturbed twin.

    python -m benchmarks.kills --folder=/tmp/kills

Each row is a kill: its aim, what the run was doing according to its files and output, and the newest checkpoint. If a
run ends before all kills are used up, the next run starts. At the end every array of the last checkpoint must have the
twin's bits: parameters, optimizers, averages, statistics, key.

An append is too short for a signal, so a kill right after one also tears the last line of the log at a random byte. A
full disk is a separate small file system, which a large file fills, if this process may mount one. Else no file may
grow beyond a few kilobytes (RLIMIT_FSIZE). A run on a full disk is killed, or ends by itself with exit code 2.
"""

import argparse
import contextlib
import functools
import itertools
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from cgan_jax import train_state
from cgan_jax.build import ImageSpec, build
from cgan_jax.parallel import make_mesh, replicated
from cgan_jax.run import workdir
from cgan_jax.run.checkpoint import Checkpoints

AIMS = ("compilation", "save", "evaluation", "training", "append", "full disk", "any moment")
_LOGS = (workdir.METRICS, workdir.EVALUATIONS, workdir.ENVIRONMENTS)
_DISK = 1 << 25  # bytes
_BALLAST = "ballast"
_SPEC = ImageSpec(image_size=8, channels=1, num_classes=10)
_RECIPE = Path(__file__).parents[1] / "configs" / "digits.py"
_SMALL = {
    "dataset.image_size": 8,
    "generator.latent_dim": 4,
    "generator.width": 4,
    "generator.embedding_dim": 3,
    "discriminator.width": 4,
    "discriminator.embedding_dim": 3,
    "train.batch_size": 16,
    "train.g_batch_size": 16,
    "train.log_kimg": 0.16,
    "train.sample_kimg": 0.64,
    "checkpoint.every_kimg": 0.32,
    "evaluate.metrics": "pixel_mse,ms_ssim",
    "evaluate.keep_best": "pixel_mse",
    "evaluate.every_kimg": 0.32,
    "evaluate.num_images": 1000,
    "guard.collapse": 0.0,
}
_WITHIN = {"compilation": 3.0, "evaluation": 0.05}  # seconds


class Kill(NamedTuple):
    """One row of the table."""

    aim: str
    hit: str
    seconds: float
    step: int
    """The newest checkpoint after the kill."""


class Ordeal:
    """A folder with the undisturbed twin and with the runs that are killed."""

    def __init__(self, folder: Path, kimg: float, seed: int):
        self.folder, self.kimg, self.random = folder, kimg, random.Random(seed)
        self.environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1", "CGAN_CACHE_DIR": str(folder / "cache")}
        began = time.monotonic()
        self.sizes: dict[str, int] = {}
        process = self.start("twin")
        self.startup = self._until(process, "first call done") - began
        assert process.wait() == 0

    def start(self, name: str, *flags: str, limit: Callable[[], None] | None = None) -> subprocess.Popen:
        """Starts or resumes a run; the command is the same."""
        overrides = [f"--config.{key}={value}" for key, value in {**_SMALL, "train.total_kimg": self.kimg}.items()]
        arguments = [f"--config={_RECIPE}", f"--workdir={self.folder / name}", *overrides, *flags]
        log = open(self.folder / f"{name}.log", "a")  # noqa: SIM115 (the process writes to it)
        command = [sys.executable, "-m", "cgan_jax", "train", *arguments]
        return subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, preexec_fn=limit)

    def kill(self, name: str, aim: str) -> Kill | None:
        """Starts or resumes a run and kills it. Returns None if it ended first."""
        log = self.folder / f"{name}.log"
        self.seen, self.sizes = len(log.read_text()) if log.exists() else 0, {}
        with self._full_disk(name) if aim == "full disk" else contextlib.nullcontext() as limit:
            process = self.start(name, *(["--nocache"] if aim == "compilation" else []), limit=limit)
            began = time.monotonic()
            hit = self._hit(process, name, aim, began)
        if process.wait() == 0:
            return None
        if process.returncode != -signal.SIGKILL:
            assert aim == "full disk" and process.returncode == 2, log.read_text()[-2000:]
            assert log.read_text()[self.seen :].count("cgan: error: ") == 1, log.read_text()[-2000:]
            hit = f"{hit}, which ended by itself"
        if aim == "append":
            self._tear(name)
        return Kill(aim, hit, time.monotonic() - began, max(steps_in(self.folder / name), default=0))

    def _hit(self, process: subprocess.Popen, name: str, aim: str, began: float) -> str:
        """Kills the process when it does what is aimed at. Returns what it did last."""
        moment = began + self.random.uniform(0, 2 * self.startup)
        passes = self.random.randint(0, 2) if aim in ("save", "evaluation", "append") else 0
        doing = "start"
        while process.poll() is None:
            doing = self.doing(name)
            is_aim = self._appended(name) if aim == "append" else doing == aim
            if aim in ("any moment", "full disk"):
                is_aim = time.monotonic() >= moment
            if is_aim and passes:
                passes -= 1
                self._wait_until_past(process, name, aim)
            elif is_aim:
                time.sleep(self.random.uniform(0, _WITHIN.get(aim, 0.0)))
                doing = "append" if aim == "append" else self.doing(name)
                process.kill()
                process.wait()
            time.sleep(0.001)
        return doing

    def _appended(self, name: str) -> bool:
        """Whether a log has grown since the last look."""
        paths = [self.folder / name / log for log in _LOGS]
        before, self.sizes = self.sizes, {path.name: path.stat().st_size for path in paths if path.exists()}
        return bool(before) and any(size > before.get(log, 0) for log, size in self.sizes.items())

    def _tear(self, name: str) -> None:
        """Cuts the newest log inside its last line, as a kill inside the append leaves it."""
        paths = [path for log in _LOGS if (path := self.folder / name / log).exists() and path.stat().st_size]
        newest = max(paths, key=lambda path: path.stat().st_mtime_ns)
        last = len(newest.read_bytes().splitlines(keepends=True)[-1])
        os.truncate(newest, newest.stat().st_size - self.random.randint(1, last - 1))

    @contextlib.contextmanager
    def _full_disk(self, name: str) -> Iterator[Callable[[], None] | None]:
        """Leaves a few kilobytes on the run's disk. Yields what limits the process if that cannot be done."""
        left = self.random.randint(1 << 12, 1 << 18)
        if not self._mounted(name):
            yield functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (left >> 4, left >> 4))
            return
        ballast = self.folder / name / _BALLAST
        try:
            with open(ballast, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(ballast.parent).free - left)
            yield None
        finally:
            ballast.unlink()

    def _mounted(self, name: str) -> bool:
        """Whether the run's folder is a separate small file system."""
        return os.path.ismount(self.folder / name)

    @contextlib.contextmanager
    def disk(self, name: str) -> Iterator[None]:
        """Mounts a small file system as the run's folder while the context lasts, if this process may."""
        folder = self.folder / name
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "none", folder]
        is_mounted = shutil.which("mount") and subprocess.run(mount, stderr=subprocess.DEVNULL).returncode == 0
        try:
            yield
        finally:
            if is_mounted:
                subprocess.run(["umount", "--lazy", folder], check=True)

    def _wait_until_past(self, process: subprocess.Popen, name: str, aim: str) -> None:
        while process.poll() is None and self.doing(name) == aim:
            time.sleep(0.001)

    def doing(self, name: str) -> str:
        """What a run is doing, according to its output since the last start and its files."""
        run, log = self.folder / name, self.folder / f"{name}.log"
        said = log.read_text()[self.seen :]
        if "first call done" not in said:
            return "compilation" if "step 0 of" in said or "resuming at" in said else "start"
        steps = steps_in(run)
        sealed = {int(path.stem) for path in (run / "integrity").glob("[0-9]*.json")}
        if list((run / "checkpoints").glob("*tmp*")):
            return "save"
        evaluated = [int(line["step"]) for line in workdir.read_metrics(run, workdir.EVALUATIONS)]
        # From the commit of a checkpoint until its scores are logged; its manifest is written at the start of that.
        if max(steps, default=0) > max(evaluated, default=0):
            return "evaluation"
        return "training" if max(steps, default=0) in {*sealed, 0} else "save"

    def bits(self, name: str) -> dict[str, bytes]:
        """Every array of a run's last checkpoint."""
        recipe = workdir.read_info(self.folder / name).recipe
        algorithm = build(recipe, _SPEC)
        shapes = jax.eval_shape(lambda: train_state.create(algorithm, _SPEC, jax.random.key(0)))
        checkpoints = Checkpoints(self.folder / name, read_only=True)
        state = checkpoints.restore(checkpoints.chosen(None), shapes, replicated(make_mesh(jax.devices()[:1])))
        checkpoints.close()
        leaves = jax.tree_util.tree_leaves_with_path(state.replace(key=jax.random.key_data(state.key)))
        return {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves}

    def _until(self, process: subprocess.Popen, text: str) -> float:
        while text not in (self.folder / "twin.log").read_text():
            assert process.poll() is None, (self.folder / "twin.log").read_text()
            time.sleep(0.05)
        return time.monotonic()


def steps_in(run: Path) -> list[int]:
    """The steps that orbax has committed."""
    return [int(path.name) for path in (run / "checkpoints").glob("*") if path.name.isdecimal()]


def suffer(ordeal: Ordeal, kills: int) -> tuple[list[Kill], list[str]]:
    """Returns (the kills, the names of the runs). Asserts that each run ends with the twin's bits."""
    aims, done, runs = itertools.cycle(AIMS), [], []
    twin = ordeal.bits("twin")
    while len(done) < kills:
        name = f"killed{len(runs)}"
        runs.append(name)
        with ordeal.disk(name):
            while len(done) < kills and (kill := ordeal.kill(name, next(aims))):
                done.append(kill)
                print(f"{len(done)} {name}: {kill}", flush=True)
            assert ordeal.start(name).wait() == 0, (ordeal.folder / f"{name}.log").read_text()[-2000:]
            differing = [key for key, value in ordeal.bits(name).items() if value != twin[key]]
            assert not differing, f"{name} does not end where the twin does: {differing}"
        log = (ordeal.folder / f"{name}.log").read_text()
        assert "Traceback" not in log and "is damaged" not in log, log
    return done, runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--kimg", type=float, default=32.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.folder.mkdir(parents=True)
    ordeal = Ordeal(given.folder, given.kimg, given.seed)
    kills, runs = suffer(ordeal, given.kills)
    print("\n| kill | aimed at | hit | seconds after the start | newest checkpoint |\n|---|---|---|---|---|")
    for number, kill in enumerate(kills, 1):
        print(f"| {number} | {kill.aim} | {kill.hit} | {kill.seconds:.2f} | {kill.step} |")
    print(f"\n{len(kills)} kills of {len(runs)} runs; every run ended with the twin's bits")


if __name__ == "__main__":
    main()
