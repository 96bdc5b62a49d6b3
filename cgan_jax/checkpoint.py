"""Checkpoints of a run through orbax: `checkpoints/<step>/state` and, on its own, the averaged generator in `ema`."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import Sharding
from orbax.checkpoint.checkpoint_managers import preservation_policy as policies

from cgan_jax.errors import UsageError
from cgan_jax.train_state import TrainState, Tree

FOLDER = "checkpoints"
_COST = "cost"


class Checkpoints:
    """The checkpoints of one workdir; saving is asynchronous, `close` waits for it."""

    def __init__(self, workdir: Path, max_to_keep: int | None = None, read_only: bool = False):
        """With `read_only` nothing is written, and a folder that is not there has no checkpoints."""
        self._folder = (workdir / FOLDER).absolute()
        with _quiet():
            options = ocp.CheckpointManagerOptions(
                preservation_policy=_latest_and_best(max_to_keep) if max_to_keep else None,
                best_fn=_cost_of,  # without it orbax does not write what a checkpoint costs
                best_mode="min",
                read_only=read_only,
                create=not read_only,
                cleanup_tmp_directories=not read_only,
            )
            self._manager = ocp.CheckpointManager(self._folder, options=options) if self._may_read(read_only) else None

    def _may_read(self, read_only: bool) -> bool:
        return not read_only or self._folder.is_dir()

    def steps(self) -> list[int]:
        """The generator updates at which there is a whole checkpoint, ascending."""
        if self._manager is None:
            return []
        return sorted(
            step
            for step in self._manager.all_steps()
            if all((self._folder / str(step) / item).is_dir() for item in ("state", "ema"))
        )

    def save(self, state: TrainState, cost: float | None = None) -> None:
        """Saves the state and, as its own item, the averaged generator; returns once they are copied to the host.

        The checkpoint of the least `cost` is kept besides the latest.
        """
        step = int(state.step)
        if step in self.steps():
            return
        # The average is saved once, in its own item.
        ema, rest = split(state)
        with _quiet():
            args = ocp.args.Composite(state=ocp.args.StandardSave(rest), ema=ocp.args.StandardSave(ema))
            metrics = None if cost is None else {_COST: cost}
            if not self._manager.save(step, args=args, metrics=metrics):
                raise RuntimeError(f"orbax refused to save step {step}; there are {self.steps()}")

    def restore(self, step: int, shapes: TrainState, sharding: Sharding) -> TrainState:
        """The whole state at `step`, laid out as `sharding`; `shapes` as from `jax.eval_shape(create, ...)`."""
        ema, rest = split(_laid_out(shapes, sharding))
        with _quiet():
            args = ocp.args.Composite(state=ocp.args.StandardRestore(rest), ema=ocp.args.StandardRestore(ema))
            restored = self._manager.restore(step, args=args)
        return join(restored["ema"], restored["state"])

    def restore_average(self, step: int, shapes: Tree, sharding: Sharding) -> Tree:
        """The variables of the averaged generator alone; `shapes` as from `jax.eval_shape(init_generator, ...)`."""
        with _quiet():
            args = ocp.args.Composite(ema=ocp.args.StandardRestore(_laid_out(shapes, sharding)))
            return self._manager.restore(step, args=args)["ema"]

    def best(self) -> int | None:
        """The step of least cost, None where no checkpoint has any."""
        costs = {step: self._manager.metrics(step) for step in self.steps()}
        costs = {step: metrics[_COST] for step, metrics in costs.items() if metrics}
        return min(costs, key=costs.__getitem__, default=None)

    def chosen(self, step: int | str | None) -> int:
        """`step`, "best", or the latest. Raises UsageError, listing what there is, where that does not exist."""
        steps = self.steps()
        if not steps:
            raise UsageError(f"{self._folder} holds no checkpoint yet")
        if step == "best":
            step = self.best()
            if step is None:
                raise UsageError(
                    f"{self._folder} has no best checkpoint: the recipe's evaluate.keep_best names no metric"
                )
        if step is not None and step not in steps:
            raise UsageError(f"no checkpoint at step {step}; there are: {', '.join(map(str, steps))}")
        return steps[-1] if step is None else step

    def wait(self) -> None:
        """Returns once everything saved so far is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for what is being saved and lets go of the folder."""
        if self._manager is not None:
            with _quiet():
                self._manager.wait_until_finished()
                self._manager.close()


def _cost_of(metrics: dict[str, float]) -> float:
    return metrics[_COST]


def _latest_and_best(max_to_keep: int) -> policies.PreservationPolicy:
    return policies.AnyPreservationPolicy(
        [
            policies.LatestN(max_to_keep),
            policies.BestN(get_metric_fn=_cost_of, reverse=True, n=1, keep_checkpoints_without_metrics=False),
        ]
    )


def split(state: TrainState) -> tuple[dict[str, Tree], TrainState]:
    """(the variables of the averaged generator, the state without them)."""
    return state.average, state.replace(ema_params={}, ema_stats={})


def join(average: dict[str, Tree], rest: TrainState) -> TrainState:
    """The inverse of `split`."""
    return rest.replace(ema_params=average["params"], ema_stats={k: v for k, v in average.items() if k != "params"})


def _laid_out(shapes: Any, sharding: Sharding) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without orbax's remarks about its own workings."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
