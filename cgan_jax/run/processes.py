"""Several processes as one run: how they find each other, agree, and leave all writing but checkpoints to the first.

Every process runs the same command. Under a single one, everything here is free and asks nobody.
"""

import contextlib
import importlib.util
import itertools
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cgan_jax.errors import GuardError, Interrupted, UsageError
from cgan_jax.files import storage
from cgan_jax.parallel import AXIS

_MEETINGS = itertools.count()
_PATIENCE = 300  # seconds, after which jax ends a process whose peers have not come
_SIGN, _DELAY = ".shared", 30  # seconds that a network drive may take to show what another host has written


@contextlib.contextmanager
def joined(address: str | None, count: int | None, number: int | None) -> Iterator[None]:
    """The processes of a run, from when they have found each other until all have finished. Before any use of devices.

    They are `count` processes that meet at `address`, this one being `number` from 0; or, where nothing is given, those
    that Slurm, a TPU slice, Open MPI or Kubernetes tells jax of, and without any of these this one alone. Raises
    UsageError for a place that is none.
    """
    # jax's own service would swallow every SIGTERM from here on, also before `StopRequest` listens.
    jax.config.update("jax_enable_preemption_service", False)
    asked = {"coordinator_address": address, "num_processes": count, "process_id": number}
    if any(value is not None for value in asked.values()):
        _join(**checked(asked))
    elif waited_for := surroundings(os.environ):
        _join_surroundings(waited_for)
    if jax.process_count() == 1:
        yield
        return
    _say(f"process {jax.process_index()} has {jax.local_device_count()} of {jax.device_count()} devices")
    if not is_first():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (until the process ends)
    try:
        yield
    except (GuardError, Interrupted) as error:
        # Where others know nothing of it, jax would wait minutes for them, then and at Python's own end; so the console
        # script has none.
        if getattr(error, "together", True):
            jax.distributed.shutdown()
        raise
    jax.distributed.shutdown()


def checked(asked: Mapping[str, str | int | None]) -> dict[str, str | int]:
    """An explicit place among the processes. Raises UsageError where something of it is missing or cannot be."""
    if asked == {"coordinator_address": None, "num_processes": 1, "process_id": None}:
        return {"coordinator_address": "", "num_processes": 1, "process_id": 0}
    missing = [f"--{name}" for name, value in asked.items() if value is None]
    if missing:
        given = ", ".join(f"--{name}={value}" for name, value in asked.items() if value is not None)
        raise UsageError(f"given {given}, {' and '.join(missing)} must be given too")
    host, _, port = str(asked["coordinator_address"]).rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UsageError(f"--coordinator_address must be HOST:PORT, given {asked['coordinator_address']!r}")
    if not 0 <= asked["process_id"] < asked["num_processes"]:
        raise UsageError(
            f"--process_id must be at least 0 and below --num_processes={asked['num_processes']},"
            f" given {asked['process_id']}"
        )
    return dict(asked)


def surroundings(environment: Mapping[str, str]) -> str:
    """Whom jax, asked to look around, would wait for, in words; "" where there is no reason to ask it."""
    # A single task may have all GPUs of its node, of which jax would take one.
    if {"SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID"} <= environment.keys():
        tasks = int(environment.get("SLURM_NTASKS", 1))
        return f"the {tasks} tasks of Slurm job {environment['SLURM_JOB_ID']}" if tasks > 1 else ""
    if int(environment.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
        return f"the {environment['OMPI_COMM_WORLD_SIZE']} processes of Open MPI"
    if importlib.util.find_spec("libtpu") and environment.get("JAX_PLATFORMS", "tpu") != "cpu":
        return "the hosts of this TPU slice"
    if "KUBERNETES_SERVICE_HOST" in environment and importlib.util.find_spec("kubernetes"):
        return "the pods of this Kubernetes job"
    return ""


def _join(coordinator_address: str, num_processes: int, process_id: int) -> None:
    if num_processes > 1:
        _say(f"process {process_id} of {num_processes} waits for the others at {coordinator_address}")
        jax.distributed.initialize(coordinator_address, num_processes, process_id, initialization_timeout=_PATIENCE)


def _join_surroundings(waited_for: str) -> None:
    _say(f"waiting for {waited_for}")
    try:
        jax.distributed.initialize(initialization_timeout=_PATIENCE)
    except ValueError as error:
        # jax's word for not being one of several after all.
        if "should be defined" not in str(error) and "must be defined" not in str(error):
            raise
    except RuntimeError as error:
        raise UsageError(
            f"cannot find {waited_for}: {error}; give --coordinator_address, --num_processes and --process_id,"
            " or --num_processes=1 for this process alone"
        ) from error


def _say(text: str) -> None:
    """A line that tells what a process is waiting for or has found: on stderr, where every process may write."""
    if "waits" in text or "waiting" in text:
        text += f" ({_PATIENCE // 60} minutes at most)"
    print(text, file=sys.stderr, flush=True)


def is_first() -> bool:
    """Whether this is the process that writes logs and pictures."""
    return jax.process_index() == 0


@contextlib.contextmanager
def together() -> Iterator[None]:
    """What a process finds wrong in here ends all of them, where the others would wait for it in vain."""
    problem = None
    try:
        yield
    except UsageError as error:
        problem = error
    meet()
    failed = _gathered(problem is not None)
    if failed.any() and len(failed) > 1:
        jax.distributed.shutdown()  # while everybody is here
    if problem is not None:
        raise problem
    if failed.any():
        raise UsageError(f"process {int(np.argmax(failed))} cannot go on; its own line says why")


def meet() -> None:
    """Waits for all processes as long as it takes (an hour), which the first collective of processors does not: between
    these the connection is given up where one of them comes 30 s after the other.
    """
    if jax.process_count() > 1:
        from orbax.checkpoint import multihost

        everybody = set(range(jax.process_count()))
        multihost.sync_global_processes(f"meeting {next(_MEETINGS)}", timeout=3600, processes=everybody)


def check_shared(folder: Path) -> None:
    """Raises UsageError where this process does not see in `folder` what the first one has just put there."""
    if jax.process_count() == 1:
        return
    sign, seen = folder / _SIGN, True
    if is_first():
        storage.write_whole(sign, text := str(time.time_ns() % 2**50))
    number = of_first(float(text) if is_first() else None)
    if not is_first():
        deadline = time.monotonic() + _DELAY
        while not (seen := _reads(sign, number)) and time.monotonic() < deadline:
            time.sleep(0.2)
    meet()
    if is_first():
        sign.unlink()
    if not seen:
        raise UsageError(f"{folder} is not the folder that process 0 writes to; all processes need the same one")


def _reads(sign: Path, number: float) -> bool:
    try:
        return float(sign.read_text()) == number
    except (OSError, ValueError):
        return False


def of_first(number: float | None) -> float | None:
    """The number that the first process gives, on all of them."""
    if jax.process_count() == 1:
        return number
    from jax.experimental import multihost_utils

    sent = np.array([np.nan if number is None else number], np.float64).view(np.uint32)
    found = float(np.asarray(multihost_utils.broadcast_one_to_all(sent)).view(np.float64)[0])
    return None if np.isnan(found) else found


def _gathered(flag: bool) -> np.ndarray:
    """The flags of all processes, bool [processes]."""
    if jax.process_count() == 1:
        return np.array([flag])
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(np.array(flag)))


class AnyProcess:
    """Whether any process says so, known to all of them at the same call: one later, so that nobody waits."""

    def __init__(self, mesh: Mesh):
        self._mesh, self._asked = mesh, None
        self._largest = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))
        # All devices are connected now, while everybody is here: each process compiles the first step in its own time.
        meet()
        self(False)
        jax.block_until_ready(self._asked)

    def __call__(self, says: bool) -> bool:
        """To be called by every process after each call; alone, a process is answered at once."""
        if jax.process_count() == 1:
            return says
        share = NamedSharding(self._mesh, PartitionSpec(AXIS))
        mine = jax.make_array_from_callback((self._mesh.size,), share, lambda _: np.full(1, says, np.int32))
        before, self._asked = self._asked, self._largest(mine)
        return before is not None and bool(jax.device_get(before))
