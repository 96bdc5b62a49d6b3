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
    compiled: jax.stages.Compiled, call: Callable[[], Any], turns: int, count: int
) -> tuple[Any, dict[str, Any]]:
    """Runs call(), which runs the program once. Returns (its result, the time by operation).

    The program makes `turns` turns. Times are those of one turn, as the mean over devices: `busy_milliseconds` while
    any operation ran, the number of operations `started`, and of the `count` costliest the milliseconds, how often they
    ran, and the line of our code.
    """
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            result = jax.block_until_ready(call())
        (file,) = Path(folder).rglob("*.xplane.pb")
        profile = ProfileData.from_file(str(file))
    program = Program(compiled.as_text())
    named = {name: one for computation in program.computations.values() for name, one in computation.items()}
    spent, started, spans = collections.Counter(), collections.Counter(), []
    for name, began, nanoseconds in _events(profile, named):
        spent[name] += nanoseconds
        started[name] += 1
        spans.append((began, began + nanoseconds))
    devices = turns * max(1, len(_device_planes(profile)))
    return result, {
        "busy_milliseconds": _covered(spans) / devices / 1e6,
        "started": sum(started.values()) / devices,
        "costly": [
            {
                "milliseconds": spent[name] / devices / 1e6,
                "times": started[name] / devices,
                "operation": named[name].target or named[name].op,
                "line": program.line_of(named[name]),
            }
            for name, _ in spent.most_common(count)
        ],
    }


def _device_planes(profile: ProfileData) -> list[Any]:
    return [plane for plane in profile.planes if plane.name.startswith("/device:")]


def _events(profile: ProfileData, named: dict[str, Instruction]) -> Iterator[tuple[str, float, float]]:
    """(instruction, start, nanoseconds) of each operation that ran."""
    on_devices = _device_planes(profile)
    for number, plane in enumerate(on_devices or profile.planes):
        for line in plane.lines:
            if on_devices and not line.name.startswith(("Stream", "XLA Ops")):
                continue  # sums over steps and modules, which cover the same time
            for event in line.events:
                with warnings.catch_warnings(action="ignore"):  # of jaxlib, about its own type
                    stats = dict(event.stats)
                name = stats.get("hlo_op", event.name)
                # Processors also note loops, whose time is that of the operations inside.
                if name in named and (on_devices or named[name].op not in _CONTAINERS):
                    # Each device has its own time, so that they do not cover each other.
                    yield name, event.start_ns + number * 1e15, event.duration_ns


def _covered(spans: list[tuple[float, float]]) -> float:
    """The length of the union of the spans."""
    total, end = 0.0, 0.0
    for began, ended in sorted(spans):
        total += max(0.0, ended - max(began, end))
        end = max(end, ended)
    return total
