"""Checkpoints of a run. orbax writes `checkpoints/<step>/state` and, apart, the averaged generator in `ema`.

A further average of the name 25 (averages.py) is in `ema_25`.

After the files of a step, the first process writes its manifest (integrity.py). Only then may older steps be deleted.
"""

import contextlib
import dataclasses
import functools
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import Sharding

from cgan_jax.errors import UsageError
from cgan_jax.files import storage
from cgan_jax.run import integrity
from cgan_jax.run.processes import is_first, meet, of_first
from cgan_jax.run.progress import say
from cgan_jax.train_state import TrainState, Tree, parted

FOLDER, ASIDE = "checkpoints", "set_aside"
_ITEMS = ("state", "ema")
_FURTHER = "ema_"
_CUT_OFF = ".orbax-checkpoint-tmp"  # the end of a name while orbax writes below it


class DamagedCheckpoint(UsageError):
    """The files of a checkpoint are not what was saved, or cannot be read."""


class Checkpoints:
    """The checkpoints of one workdir. Saving is asynchronous; `close` waits for it."""

    def __init__(self, workdir: Path, max_to_keep: int | None = None, read_only: bool = False):
        """With `read_only` nothing is written, and a missing folder counts as empty.

        `max_to_keep` is the number of newest checkpoints to keep; None keeps all.
        """
        self._workdir, self._max_to_keep = storage.resolved(workdir), max_to_keep
        self._folder = self._workdir / FOLDER
        self._saving: _Thread | None = None
        self._damage: dict[int, str] = {}
        self._manager = None
        self.good_until: int | None = None
        """The newest checkpoint up to this step is kept too: a guard may find that later ones are bad."""
        _silence_orbax()
        try:
            storage.check_regular_below(self._folder)  # orbax reads the folders of all steps
        except OSError as error:
            raise UsageError(f"{error.filename} is {error.strerror}; move it away") from error
        if not read_only or self._folder.is_dir():
            options = ocp.CheckpointManagerOptions(
                read_only=read_only, create=not read_only, cleanup_tmp_directories=not read_only
            )
            self._manager = ocp.CheckpointManager(self._folder, options=options)
        if not read_only and is_first():
            storage.finish_discarding(self._folder)

    def steps(self) -> list[int]:
        """The steps of the checkpoints that have all their items, ascending."""
        return [step for step in self._committed() if not self._lacking(step)]

    def save(self, state: TrainState) -> None:
        """Saves the state and, as separate items, the averaged generators. Returns once all are copied to the host.

        Does nothing if the step is saved already. Raises UsageError if this save, or the one before, cannot be written.
        """
        self.wait()
        step = int(state.step)
        if step in self.steps():
            return
        args = ocp.args.Composite(**{name: ocp.args.StandardSave(item) for name, item in split(state).items()})
        with self._writing(step):
            if is_first():  # a manifest that a kill left of an earlier save would call this one damaged
                integrity.path_of(self._workdir, step).unlink(missing_ok=True)
            if not self._manager.save(step, args=args):
                raise RuntimeError(f"orbax refused to save step {step}; there are {self.steps()}")
        self._saving = _Thread(step, lambda: self._seal(step))
        self._saving.start()

    def rate(self, step: int, cost: float, cost_of: str) -> None:
        """Writes the cost of the checkpoint at `step` to its manifest; the checkpoint of least cost is kept too.

        `cost_of` is the name of the metric.
        """
        self.wait()
        if is_first():
            # A kill between a checkpoint and its manifest leaves a checkpoint without one.
            manifest = integrity.read(self._workdir, step) or self._measured(step)
            integrity.write(self._workdir, step, manifest._replace(cost=float(cost), cost_of=cost_of))
        self._discard_older()

    def restore(self, step: int, shapes: TrainState, sharding: Sharding) -> TrainState:
        """The whole state at `step`, placed by `sharding`. `shapes` comes from `jax.eval_shape(create, ...)`.

        Raises DamagedCheckpoint if the files are not what was saved, UsageError if they hold another kind of state.
        """
        return join(self._read(step, **split(_laid_out(shapes, sharding))))

    def restore_newest(self, shapes: TrainState, sharding: Sharding) -> TrainState | None:
        """The state of the newest checkpoint that is not damaged, or None if there is no checkpoint.

        Reports the damaged checkpoints that are newer, and sets them aside. Raises UsageError if all are damaged. The
        first process chooses the step for all, because the others may see late what it sets aside.
        """
        skipped: dict[int, DamagedCheckpoint] = {}
        steps = self._committed()
        while (step := of_first(steps.pop() if steps else None)) is not None:
            step = int(step)
            try:
                state = self.restore(step, shapes, sharding)
            except DamagedCheckpoint as error:
                skipped[step] = error
                continue
            for error in skipped.values():
                say(f"warning: {error}; it is set aside in {self._workdir / ASIDE}")
            self.set_aside(list(skipped))
            return state
        if skipped:
            reasons = "; ".join(str(error) for error in skipped.values())
            raise UsageError(f"no checkpoint can be restored: {reasons}; move {self._workdir} away to start again")
        return None

    def restore_average(self, step: int, shapes: Tree, sharding: Sharding, further: str = "") -> Tree:
        """The variables of the averaged generator alone, or of the `further` one of that name.

        `shapes` comes from `jax.eval_shape(init_generator, ...)`.
        """
        item = _FURTHER + further if further else "ema"
        return self._read(step, **{item: _laid_out(shapes, sharding)})[item]

    def set_aside(self, steps: list[int]) -> None:
        """Moves steps and their manifests to `set_aside/`.

        orbax refuses to save at or below the newest step that it sees. All processes must call this; the first one's
        `steps` count.
        """
        if is_first() and steps:
            storage.make_folder(self._workdir / ASIDE)
            for step in steps:
                target = self._workdir / ASIDE / str(step)
                while target.exists():
                    target = target.with_name(f"{target.name}.again")
                storage.move(self._folder / str(step), target)
                with contextlib.suppress(FileNotFoundError):
                    storage.move(integrity.path_of(self._workdir, step), target.with_name(f"{target.name}.json"))
        self._damage.clear()
        meet()
        self._manager.reload()

    def best(self) -> int | None:
        """The step of least cost by the newest step's metric, or None if no checkpoint has a cost."""
        manifests = [(integrity.read(self._workdir, step), step) for step in self.steps()]
        costs = [(step, each.cost, each.cost_of) for each, step in manifests if each and each.cost is not None]
        alike = {step: cost for step, cost, cost_of in costs if cost_of == costs[-1][2]}
        return min(alike, key=alike.__getitem__, default=None)

    def chosen(self, step: int | str | None) -> int:
        """The step of a checkpoint: a number, "best", or for None the newest that is whole.

        Raises UsageError, listing the available steps, if there is none.
        """
        steps = self.steps()
        if not steps:
            raise UsageError(f"{self._folder} holds no checkpoint yet")
        if step == "best":
            unknown = [str(step) for step in steps if integrity.read(self._workdir, step) is None]
            if unknown:
                say(f"warning: no manifest says how good step {', '.join(unknown)} is; taking the best of the others")
            step = self.best()
            if step is None:
                raise UsageError(
                    f"{self._folder} has no best checkpoint: the recipe's evaluate.keep_best names no metric"
                )
        if step is not None and step not in steps:
            raise UsageError(f"no checkpoint at step {step}; there are: {', '.join(map(str, steps))}")
        return self._newest_whole(steps) if step is None else step

    def wait(self) -> None:
        """Waits until the last save is on disk, then deletes the checkpoints that are no longer needed.

        Raises UsageError if the save could not be written.
        """
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.join()
            with self._writing(saving.step):
                if saving.error is not None:
                    raise saving.error
            self._discard_older()

    def check(self) -> None:
        """Calls `wait` if the last save has ended; returns at once if it has not."""
        if self._saving is not None and not self._saving.is_alive():
            self.wait()

    def close(self) -> None:
        """Waits for the last save and closes the folder."""
        if self._manager is not None:
            try:
                self.wait()
            finally:
                with contextlib.suppress(Exception):  # orbax raises again what `wait` has raised
                    self._manager.close()

    def _committed(self) -> list[int]:
        """The steps that orbax has committed, whole or not, ascending."""
        return sorted(self._manager.all_steps()) if self._manager is not None else []

    def _lacking(self, step: int) -> list[str]:
        """The items that a step does not have."""
        return [item for item in _ITEMS if not (self._folder / str(step) / item).is_dir()]

    def _seal(self, step: int) -> None:
        """Writes the manifest of a step once its files are on disk. Runs in a thread."""
        self._manager.wait_until_finished()
        if is_first():
            integrity.write(self._workdir, step, self._measured(step))

    def _measured(self, step: int) -> integrity.Manifest:
        return integrity.Manifest(integrity.measure(self._folder / str(step)))

    def _discard_older(self) -> None:
        """Deletes the steps before the newest `max_to_keep` with a manifest, except the best and the last good one.

        Step 0, where a run began from another model, is kept too: it may have to go back there.
        """
        if self._max_to_keep is None:
            return
        steps, best = self._committed(), self.best()
        sealed = [step for step in steps if integrity.path_of(self._workdir, step).exists()]
        if len(sealed) < self._max_to_keep:
            return
        good = max((step for step in steps if self.good_until is not None and step <= self.good_until), default=None)
        gone = [step for step in steps if step < sealed[-self._max_to_keep] and step not in (best, good, 0)]
        if gone and is_first():
            for step in gone:
                storage.discard(self._folder / str(step))
            integrity.prune(self._workdir, set(steps) - set(gone))
        if gone:
            self._manager.reload()

    def _damage_of(self, step: int) -> str:
        """What is wrong with the files of a step, "" if nothing. Each step is read once."""
        if step not in self._damage:
            manifest, folder = integrity.read(self._workdir, step), self._folder / str(step)
            damage = integrity.damage(folder, manifest) if manifest else ""
            self._damage[step] = damage or "".join(f"{item} is missing" for item in self._lacking(step)[:1])
        return self._damage[step]

    def _newest_whole(self, steps: list[int]) -> int:
        for step in reversed(steps):
            if damage := self._damage_of(step):
                say(f"warning: {self._folder / str(step)} is damaged ({damage}); looking for an older one")
            else:
                return step
        raise UsageError(f"every checkpoint in {self._folder} is damaged: {', '.join(map(str, steps))}")

    def _read(self, step: int, **items: Any) -> dict[str, Any]:
        """The items of a step, after a comparison of its files with its manifest."""
        folder = self._folder / str(step)
        if damage := self._damage_of(step):
            raise DamagedCheckpoint(f"{folder} is damaged: {damage}")
        sealed = integrity.read(self._workdir, step) is not None
        try:
            args = {name: ocp.args.StandardRestore(target) for name, target in items.items()}
            restored = self._manager.restore(step, args=ocp.args.Composite(**args))
        except Exception as error:  # orbax and tensorstore do not document what they raise
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200] if str(error).strip() else ''}"
            if sealed:
                raise UsageError(f"{folder} is whole, but this version cannot read it: {reason}") from error
            raise DamagedCheckpoint(f"{folder} cannot be read, and it has no manifest: {reason}") from error
        if not sealed:
            say(f"warning: {folder} has no manifest to compare it with; it is restored unchecked")
        return restored

    @contextlib.contextmanager
    def _writing(self, step: int) -> Iterator[None]:
        """Turns errors of writing into a UsageError that names the checkpoint."""
        try:
            yield
        except (OSError, ValueError) as error:  # tensorstore raises ValueError on a full disk
            reason = " ".join(str(error).split())[:300]
            kept = ", ".join(str(kept) for kept in self.steps() if kept != step) or "none"
            raise UsageError(
                f"the checkpoint at step {step} could not be written to {self._folder} ({reason});"
                f" older checkpoints are unchanged: {kept}"
            ) from error


class _Thread(threading.Thread):
    """A thread that runs `work` and keeps the exception in `error`."""

    def __init__(self, step: int, work: Callable[[], None]):
        super().__init__(name=f"seal-{step}")
        self.step, self.error, self._work = step, None, work

    def run(self) -> None:
        try:
            self._work()
        except Exception as error:
            self.error = error


def exist(workdir: Path) -> bool:
    """Whether a run has any checkpoint, one that was set aside included, and not one whose save was cut off."""
    folders = [workdir / name for name in (FOLDER, ASIDE) if (workdir / name).is_dir()]
    return any(not path.name.endswith(_CUT_OFF) for folder in folders for path in folder.iterdir())


def split(state: TrainState) -> dict[str, Any]:
    """The items of a checkpoint: the averaged generators' variables, and as "state" the fields without them."""
    rest = {field.name: getattr(state, field.name) for field in dataclasses.fields(state) if field.name != "further"}
    averages = {"ema": state.average, **{_FURTHER + name: average for name, average in state.further.items()}}
    return {"state": {**rest, "ema_params": {}, "ema_stats": {}}, **averages}


def join(items: Mapping[str, Any]) -> TrainState:
    """The whole state: the inverse of `split`."""
    further = {name.removeprefix(_FURTHER): item for name, item in items.items() if name.startswith(_FURTHER)}
    params, stats = parted(items["ema"])
    return TrainState(**{**items["state"], "ema_params": params, "ema_stats": stats, "further": further})


def _laid_out(shapes: Any, sharding: Sharding) -> Any:
    """`shapes` with a sharding, from which orbax restores."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)


@functools.cache
def _silence_orbax() -> None:
    """Keeps orbax's log lines, and its copies of errors that are raised anyway, off the terminal."""
    logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)
    previous = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        # After an error, tensorstore reports its other reads to an event loop that orbax has closed, and orbax drops
        # its own tasks.
        code = getattr(unraisable.object, "cr_code", None)
        is_orbax = code is not None and "orbax" in code.co_filename
        if str(unraisable.exc_value) != "Event loop is closed" and not is_orbax:
            previous(unraisable)

    sys.unraisablehook = hook
