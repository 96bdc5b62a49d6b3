"""Which operations of a compiled program take the time on the devices that are here: a trace of one call."""

import collections
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from jax.profiler import ProfileData

from cgan_jax.evaluation.program import Instruction, Program

# Command buffers of a GPU run many operations as one, which hides their names.
SEPARATELY = {"gpu": {"xla_gpu_enable_command_buffer": ""}}
"""Options of a compilation after which each operation has its own event, by platform."""

_CONTAINERS = ("while", "call", "conditional")


def operations(
    compiled: jax.stages.Compiled, call: Callable[[], Any], turns: int, devices: int, count: int
) -> tuple[Any, dict[str, Any]]:
    """Runs call(), which runs the program once on all `devices`. Returns (its result, the time by operation).

    The program makes `turns` turns. Times are those of one turn, as the mean over devices: `busy_milliseconds` while
    any operation ran, the number of operations `started`, and of the `count` costliest the milliseconds, how often they
    ran, and the line of our code. Simulated devices share the processor, and are busy while one of them is.
    """
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            result = jax.block_until_ready(call())
        (file,) = Path(folder).rglob("*.xplane.pb")
        profile = ProfileData.from_file(str(file))
    program = Program(compiled.as_text())
    named = {name: one for computation in program.computations.values() for name, one in computation.items()}
    spent, started, spans = collections.Counter(), collections.Counter(), collections.defaultdict(list)
    for plane, name, began, nanoseconds in _events(profile, named):
        spent[name] += nanoseconds
        started[name] += 1
        spans[plane].append((began, began + nanoseconds))
    each = turns * devices
    return result, {
        "busy_milliseconds": sum(map(_covered, spans.values())) / turns / max(1, len(spans)) / 1e6,
        "started": sum(started.values()) / each,
        "costly": [
            {
                "milliseconds": spent[name] / each / 1e6,
                "times": started[name] / each,
                "operation": named[name].target or named[name].op,
                "line": program.line_of(named[name]),
            }
            for name, _ in spent.most_common(count)
        ],
    }


def _events(profile: ProfileData, named: dict[str, Instruction]) -> Iterator[tuple[str, str, float, float]]:
    """(plane, instruction, start, nanoseconds) of each operation that ran. A plane is a device, or the processor."""
    on_devices = [plane for plane in profile.planes if plane.name.startswith("/device:")]
    for plane in on_devices or profile.planes:
        for line in plane.lines:
            kernels = line.name.startswith("Stream")  # of a GPU
            if on_devices and not kernels and line.name != "XLA Ops":
                continue  # sums over steps and modules, which cover the same time
            for event in line.events:
                with warnings.catch_warnings(action="ignore"):  # of jaxlib, about one of its types
                    stats = dict(event.stats)
                name = stats.get("hlo_op", event.name)
                # Elsewhere than on GPUs a loop is an event, too, whose time is that of the operations inside.
                if name in named and (kernels or named[name].op not in _CONTAINERS):
                    yield plane.name, name, event.start_ns, event.duration_ns


def _covered(spans: list[tuple[float, float]]) -> float:
    """The length of the union of the spans."""
    total, end = 0.0, 0.0
    for began, ended in sorted(spans):
        total += max(0.0, ended - max(began, end))
        end = max(end, ended)
    return total
