"""Several processes of one run: they find each other and agree on numbers. All write checkpoints, the first the rest.

Every process runs the same command. With a single process, nothing here communicates.
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
_PATIENCE = 300  # seconds; then jax ends a process whose peers have not come
_SIGN = ".shared"
_DELAY = 30  # seconds that a network drive may take to show a file of another host


@contextlib.contextmanager
def joined(address: str | None, count: int | None, number: int | None) -> Iterator[None]:
    """A context in which the processes of a run are connected. Enter it before any use of devices.

    `count` processes meet at `address`, and this one is `number`, from 0. If all three are None, jax asks Slurm, the
    TPU slice, Open MPI or Kubernetes. Without these this process runs alone. Raises UsageError if the numbers cannot
    be, or if the other processes cannot be found.
    """
    # jax's preemption service would swallow every SIGTERM from here on, also before `StopRequest` listens.
    jax.config.update("jax_enable_preemption_service", False)
    asked = {"coordinator_address": address, "num_processes": count, "process_id": number}
    if any(value is not None for value in asked.values()):
        _join(**checked(asked))
    elif peers := detected_peers(os.environ):
        _join_detected(peers)
    if jax.process_count() == 1:
        yield
        return
    _say(f"process {jax.process_index()} has {jax.local_device_count()} of {jax.device_count()} devices")
    if not is_first():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (until the process ends)
    try:
        yield
    except (GuardError, Interrupted) as error:
        # If the other processes do not know of the end, shutdown would wait minutes for them. So would interpreter
        # shutdown, so the console script ends with os._exit.
        if getattr(error, "together", True):
            jax.distributed.shutdown()
        raise
    jax.distributed.shutdown()


def checked(asked: Mapping[str, str | int | None]) -> dict[str, str | int]:
    """The arguments of `_join` from the flags. Raises UsageError if a flag is missing or out of range."""
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


def detected_peers(environment: Mapping[str, str]) -> str:
    """The processes that jax would detect and wait for, in words; "" if there is only this one."""
    # Do not ask jax about a single Slurm task: it would use one of the task's GPUs.
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


def _join_detected(peers: str) -> None:
    _say(f"waiting for {peers}")
    try:
        jax.distributed.initialize(initialization_timeout=_PATIENCE)
    except ValueError as error:
        # jax raises this if it detects no other processes.
        if "should be defined" not in str(error) and "must be defined" not in str(error):
            raise
    except RuntimeError as error:
        raise UsageError(
            f"cannot find {peers}: {error}; give --coordinator_address, --num_processes and --process_id,"
            " or --num_processes=1 for this process alone"
        ) from error


def _say(text: str) -> None:
    """Prints a line to stderr, where every process may write. A line about waiting gets the time limit."""
    if "waits" in text or "waiting" in text:
        text += f" ({_PATIENCE // 60} minutes at most)"
    print(text, file=sys.stderr, flush=True)


def is_first() -> bool:
    """Whether this process writes logs and pictures."""
    return jax.process_index() == 0


@contextlib.contextmanager
def together() -> Iterator[None]:
    """If one process raises UsageError inside, all raise UsageError, so that none waits for the one that ended."""
    problem = None
    try:
        yield
    except UsageError as error:
        problem = error
    meet()
    failed = _gathered(problem is not None)
    if failed.any() and len(failed) > 1:
        jax.distributed.shutdown()  # while all processes are still running
    if problem is not None:
        raise problem
    if failed.any():
        raise UsageError(f"process {int(np.argmax(failed))} cannot go on; its error message says why")


def meet() -> None:
    """Waits up to an hour for all processes.

    The first collective between CPUs does not wait: it fails if a process comes 30 s after another.
    """
    if jax.process_count() > 1:
        from orbax.checkpoint import multihost

        everyone = set(range(jax.process_count()))
        multihost.sync_global_processes(f"meeting {next(_MEETINGS)}", timeout=3600, processes=everyone)


def check_shared(folder: Path) -> None:
    """Raises UsageError if this process does not see a file that the first process has just written to `folder`."""
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
    """The first process's `number`, in all processes. All must call it."""
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
    """Tells all processes, at the same call, whether any of them has said True.

    The answer is that of the call before, so that no process waits.
    """

    def __init__(self, mesh: Mesh):
        self._mesh, self._asked = mesh, None
        self._largest = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))
        # Connect all devices now, while all processes are here: they take different times to compile the first step.
        meet()
        self(False)
        jax.block_until_ready(self._asked)

    def __call__(self, says: bool) -> bool:
        """Every process must call this equally often. A single process gets its answer at once."""
        if jax.process_count() == 1:
            return says
        share = NamedSharding(self._mesh, PartitionSpec(AXIS))
        mine = jax.make_array_from_callback((self._mesh.size,), share, lambda _: np.full(1, says, np.int32))
        before, self._asked = self._asked, self._largest(mine)
        return before is not None and bool(jax.device_get(before))
