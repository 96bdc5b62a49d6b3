"""Runs every command on every file of a run, damaged in each of seven ways, and counts what happens.

    python -m benchmarks.damage --folder=/tmp/damage

A run of the digits with two checkpoints, in the folder of a sweep and with an exported model, is copied for each file
and each damage. The commands run on the copy one after another, by two processes that stay, with what a new process
would do anew. A command that takes a minute is a hang. What a command made is compared with what it makes of the whole
run: equal bits of images, weights and checkpoints; in a report and in scores no number that the whole run has not.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cgan_jax.errors import UsageError
from cgan_jax.run import workdir

SURVIVED, REFUSED, TRACEBACK, HANG, SILENT = "survived", "refused in a line", "traceback", "hang", "silent corruption"
OUTCOMES = (SURVIVED, REFUSED, TRACEBACK, HANG, SILENT)
_SMALL = {
    "dataset.image_size": 8,
    "generator.latent_dim": 4,
    "generator.width": 4,
    "generator.embedding_dim": 3,
    "discriminator.width": 4,
    "discriminator.embedding_dim": 3,
    "train.batch_size": 16,
    "train.g_batch_size": 16,
    "train.steps_per_call": 5,
    "train.log_kimg": 0.08,
    "train.sample_kimg": 0.16,
    "checkpoint.every_kimg": 0.16,
    "checkpoint.max_to_keep": 2,
    "evaluate.metrics": "pixel_mse",
    "evaluate.keep_best": "pixel_mse",
    "evaluate.every_kimg": 0.16,
    "evaluate.num_images": 10,
    "guard.collapse": 0.0,
}
_KIMG, _FURTHER = 0.32, 0.4
_RUN, _MODEL = "baseline", "model.cgan"


class Result(NamedTuple):
    """What a command did."""

    code: int | None
    """The exit code, None for an exception."""
    told: str
    made: Any
    """What it wrote, as `subset` compares it."""


# --- the damages


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    if content:
        place = random.Random(path.name).randrange(8 * len(content))
        content[place // 8] ^= 1 << place % 8
    path.write_bytes(content)


def _put_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _put_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _put_link(path: Path) -> None:
    """To nothing, or to a device that never ends."""
    path.unlink()
    path.symlink_to(random.Random(path.name).choice(["nothing", "/dev/zero"]))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "deleted": Path.unlink,
    "cut": _cut,
    "emptied": lambda path: os.truncate(path, 0),
    "a bit flipped": _flip,
    "a folder": _put_folder,
    "a pipe": _put_pipe,
    "a link": _put_link,
}


# --- the commands, each on the folder of the sweep


def _recipe(kimg: float) -> list[str]:
    values = {**_SMALL, "train.total_kimg": kimg}
    return ["--config=digits", *(f"--config.{key}={value}" for key, value in values.items())]


def _cgan(*argv: object) -> None:
    from cgan_jax.__main__ import run

    code = run([str(argument) for argument in argv])
    if code:
        raise SystemExit(code)


def _report(sweep: Path) -> Any:
    out = sweep / "report.html"
    _cgan("report", f"--workdir={sweep / _RUN}", f"--out={out}")
    return _told_by(out.read_text())


def _told_by(page: str) -> Any:
    """The numbers of a report, without its time and pictures: they are encoded again."""
    (told,) = json.loads(re.search(r"<script[^>]*application/json[^>]*>(.*?)</script>", page, re.DOTALL)[1])["runs"]
    told["protocol"].pop("seconds", None)  # of whichever evaluation is the last
    pictures = [picture["kimg"] for picture in told.pop("pictures")]
    parts = {name: told[name] for name in ("num_images", "class_names", "recipe", "total_kimg", "protocol")}
    return {**parts, "curves": told["curves"], "pictures": pictures, "environment": told["environment"]}


def _sample(sweep: Path) -> Any:
    out = sweep / "samples.npz"
    _cgan("sample", f"--workdir={sweep / _RUN}", f"--out={out}", "--num_images=1")
    return _arrays(out)


def _sample_best(sweep: Path) -> Any:
    out = sweep / "best.npz"
    _cgan("sample", f"--workdir={sweep / _RUN}", f"--out={out}", "--num_images=1", "--step=best")
    return _arrays(out)


def _evaluate(sweep: Path) -> Any:
    out = sweep / "scores.json"
    _cgan("evaluate", f"--workdir={sweep / _RUN}", "--metrics=pixel_mse", "--num_images=10", f"--json={out}")
    return json.loads(out.read_text())["scores"]


def _export(sweep: Path) -> Any:
    out = sweep / "weights.safetensors"
    _cgan("export", f"--workdir={sweep / _RUN}", f"--out={out}", "--format=safetensors")
    from cgan_jax.exported import unpack_arrays

    return {name: array.tobytes().hex() for name, array in unpack_arrays(out.read_bytes())[0].items()}


def _synthesize(sweep: Path) -> Any:
    out = sweep / "synthetic"
    _cgan("synthesize", f"--workdir={sweep / _RUN}", f"--out={out}", "--format=npz", "--num_images=10")
    return _arrays(next(out.glob("*.npz")))


def _serve(sweep: Path) -> Any:
    """The model of the page, and its report."""
    from cgan_jax.run import report
    from cgan_jax.serving.models import Served

    images = Served(sweep / _RUN).images(0, np.zeros(1, np.int32), np.zeros(1, np.int32), 0.0)
    return {"images": images.tobytes().hex(), "report": _told_by(report.page([sweep / _RUN]))}


def _serve_model(sweep: Path) -> Any:
    from cgan_jax.serving.models import Served

    return Served(sweep / _RUN / _MODEL).images(0, np.zeros(1, np.int32), np.zeros(1, np.int32), 0.0).tobytes().hex()


def _sweep(sweep: Path) -> Any:
    _cgan("sweep", f"--workdir={sweep}", "--vary=seed=0", *_recipe(_KIMG))
    return {"summary": len((sweep / "summary.csv").read_text().splitlines())}


def _train(sweep: Path) -> Any:
    _cgan("train", f"--workdir={sweep / _RUN}", *_recipe(_FURTHER))
    return _bits(sweep / _RUN)


COMMANDS: dict[str, Callable[[Path], Any]] = {
    "report": _report,
    "sample": _sample,
    "sample --step=best": _sample_best,
    "export": _export,
    "serve": _serve,
    "serve --model": _serve_model,
    "synthesize": _synthesize,
    "evaluate": _evaluate,
    "sweep": _sweep,
    "train": _train,
}


_MENDING = ("sweep", "train")
"""The commands that write checkpoints or config.json, so that each gets a copy."""


def _arrays(path: Path) -> Any:
    with np.load(path) as archive:
        return {name: f"{array.dtype}{array.shape}{array.tobytes().hex()}" for name, array in archive.items()}


def _bits(run: Path) -> Any:
    """Every array of a run's last checkpoint."""
    import jax

    from cgan_jax import parallel, train_state
    from cgan_jax.build import ImageSpec, build
    from cgan_jax.run.checkpoint import Checkpoints

    algorithm, spec = build(workdir.read_info(run).recipe, ImageSpec(8, 1, 10)), ImageSpec(8, 1, 10)
    shapes = jax.eval_shape(lambda: train_state.create(algorithm, spec, jax.random.key(0, impl=parallel.PRNG)))
    checkpoints = Checkpoints(run, read_only=True)
    state = checkpoints.restore(checkpoints.chosen(None), shapes, parallel.replicated(parallel.make_mesh()))
    checkpoints.close()
    state = state.replace(key=jax.random.key_data(state.key), time_share=0.0)
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf).tobytes().hex() for path, leaf in leaves}


# --- the judgement


def subset(made: Any, whole: Any) -> bool:
    """Whether all that was made is also made of the whole run. Lists of points and of names may be shorter."""
    if isinstance(made, dict) and isinstance(whole, dict):
        return all(name in whole and subset(part, whole[name]) for name, part in made.items())
    if isinstance(made, list) and isinstance(whole, list):
        return all(part in whole for part in made)
    return made == whole


def judged(result: Result | None, whole: Any) -> str:
    """The outcome of a command; None is a command that did not end."""
    if result is None:
        return HANG
    errors = [line for line in result.told.splitlines() if line.startswith("cgan: error: ")]
    if "Traceback" in result.told or result.code not in (0, 2) or (result.code == 2 and len(errors) != 1):
        return TRACEBACK
    if result.code == 2:
        return REFUSED
    return SURVIVED if subset(result.made, whole) or "warning: " in result.told else SILENT


# --- the processes


def _obey(pipe: Any) -> None:
    """A process that runs commands: reads (name, folder), writes a Result. It may take 8 GiB, not the machine's all."""
    resource.setrlimit(resource.RLIMIT_AS, (1 << 33, 1 << 33))
    with tempfile.TemporaryFile("w+") as told:
        for stream in (1, 2):
            os.dup2(told.fileno(), stream)
        sys.stdout = sys.stderr = os.fdopen(os.dup(1), "w", buffering=1)
        with contextlib.suppress(EOFError):
            while True:
                name, folder = pipe.recv()
                told.seek(0)
                told.truncate()
                code, made = _done(COMMANDS[name], folder)
                sys.stdout.flush()
                told.seek(0)
                pipe.send(Result(code, told.read(), made))


def _done(command: Callable[[Path], Any], folder: Path) -> tuple[int | None, Any]:
    workdir._TOLD.clear()  # a new process has said nothing
    try:
        return 0, command(folder)
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code)
        return (error.code if isinstance(error.code, int) else 2), None
    except (UsageError, OSError) as error:  # as cgan serve would say it
        print(f"cgan: error: {' '.join(str(error).split())}")
        return 2, None
    except Exception:
        traceback.print_exc()
        return None, None


class Servant:
    """A process that obeys, and is replaced when it hangs or dies."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_obey, args=(other,), daemon=True)
        self._process.start()
        other.close()

    def run(self, name: str, folder: Path, patience: float | None = None) -> Result | None:
        """What a command does to the folder; None if it does not end."""
        self._pipe.send((name, folder))
        try:
            if self._pipe.poll(patience or self._patience):
                return self._pipe.recv()
        except (EOFError, ConnectionError):
            self.end()
            self._start()
            return Result(None, "the process died", None)
        self.end()
        self._start()
        return None

    def end(self) -> None:
        self._process.kill()
        self._process.join()


class Finding(NamedTuple):
    """One command on one damaged file."""

    file: str
    damage: str
    command: str
    outcome: str
    result: Result | None


def make_whole(folder: Path, servant: Servant) -> dict[str, Any]:
    """Makes the run, and returns what each command makes of it."""
    sweep = folder / "whole"
    first = servant.run("sweep", sweep, 600.0)
    assert first and first.code == 0, first
    export = ["export", f"--workdir={sweep / _RUN}", f"--out={sweep / _RUN / _MODEL}"]
    subprocess.run([sys.executable, "-m", "cgan_jax", *export], check=True, stdout=subprocess.DEVNULL)
    rollback = {"step": 10, "kimg": 0.16, "to": 0, "why": "a loss is nan"}  # it changes no key after step 0
    workdir.append_metrics(sweep / _RUN, rollback, workdir.ROLLBACKS)
    copy, whole = folder / "copy", {}
    shutil.copytree(sweep, copy)
    for name in COMMANDS:
        result = servant.run(name, copy, 600.0)
        assert result and result.code == 0, (name, result)
        whole[name] = result.made
    shutil.rmtree(copy)
    return whole


def findings(
    folder: Path, cases: list[tuple[str, str]], commands: list[str], whole: dict[str, Any], servant: Servant
) -> Iterator[Finding]:
    """Takes cases (file, damage) until there are none."""
    while cases:
        file, damage = cases.pop()
        copies: list[Path] = []
        for name in sorted(commands, key=list(COMMANDS).index):
            if not copies or name in _MENDING:
                copies.append(Path(tempfile.mkdtemp(dir=folder)))
                shutil.copytree(folder / "whole", copies[-1] / "sweep")
                DAMAGES[damage](copies[-1] / "sweep" / file)
            result = servant.run(name, copies[-1] / "sweep")
            yield Finding(file, damage, name, judged(result, whole[name]), result)
        for copy in copies:
            shutil.rmtree(copy)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--only", default="", help="A part of the names of files; left out: all.")
    parser.add_argument("--commands", default=",".join(COMMANDS))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--patience", type=float, default=60.0, help="Seconds after which a command counts as a hang.")
    given = parser.parse_args()
    given.folder.mkdir(parents=True)
    os.environ |= {"JAX_NUM_CPU_DEVICES": "1", "CGAN_CACHE_DIR": str(given.folder / "cache")}
    began, servants = time.monotonic(), [Servant(given.patience) for _ in range(given.processes)]
    whole = make_whole(given.folder, servants[0])
    sweep = given.folder / "whole"
    files = sorted(str(path.relative_to(sweep)) for path in sweep.rglob("*") if path.is_file())
    files = [file for file in files if given.only in file]
    cases = [(file, damage) for file in files for damage in DAMAGES]
    random.Random(0).shuffle(cases)  # so that a part of them is of all kinds
    found: list[Finding] = []

    def work(servant: Servant) -> None:
        for finding in findings(given.folder, cases, given.commands.split(","), whole, servant):
            found.append(finding)
            with open(given.folder / "findings.txt", "a") as file:
                print(*finding[:4], sep="\t", file=file)
            if finding.outcome not in (SURVIVED, REFUSED):
                told = finding.result.told[-1500:] if finding.result else ""
                print(f"{finding.outcome}: {finding.command}, {finding.file}, {finding.damage}\n{told}", flush=True)

    threads = [threading.Thread(target=work, args=(servant,)) for servant in servants]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for servant in servants:
        servant.end()
    _tell(found, "command")
    _tell(found, "damage")
    counts = Counter(finding.outcome for finding in found)
    print(f"\n{len(files)} files, {len(found)} commands, {time.monotonic() - began:.0f} s")
    sys.exit(any(counts[outcome] for outcome in (TRACEBACK, HANG, SILENT)))


def _tell(found: list[Finding], by: str) -> None:
    print(f"\n| {by} | {' | '.join(OUTCOMES)} |\n|{'---|' * (len(OUTCOMES) + 1)}")
    for name in dict.fromkeys(getattr(finding, by) for finding in found):
        counts = Counter(finding.outcome for finding in found if getattr(finding, by) == name)
        print(f"| {name} | {' | '.join(str(counts[outcome]) for outcome in OUTCOMES)} |")


if __name__ == "__main__":
    main()
