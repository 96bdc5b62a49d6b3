"""Compares the same training step here, in Keras, in PyTorch and in plain Flax, on the same cores.

    python -m benchmarks.training [--recipe=cifar10_dcgan] [--rounds=5] [--steps=4] [--only=REGEX] [--json=FILE]
    python -m benchmarks.training --what=sample --steps=1000 --rounds=10

Each contestant is a process that waits while others run. Ours and one other run in alternation, and each pair of times
gives one ratio, so that other load on the machine slows both. The processor time of all threads is compared too, which
other load changes less. All use the same shapes and optimizers, and random images. A framework that is not installed is
reported and left out. docs/measurements.md has the results.
"""

import argparse
import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.worker import PLANS, SAMPLING_BATCH

OURS = "cgan_jax float32"
CONTESTANTS = {
    OURS: ("ours", "float32"),
    "cgan_jax bfloat16": ("ours", "bfloat16"),
    "Keras on TensorFlow, float32": ("dcgan_keras", "float32"),
    "Keras on TensorFlow, mixed_bfloat16": ("dcgan_keras", "bfloat16"),
    "PyTorch float32": ("{family}_torch", "float32"),
    "PyTorch bfloat16": ("{family}_torch", "bfloat16"),
    "PyTorch compiled, float32": ("{family}_torch", "compiled"),
    "PyTorch compiled, bfloat16": ("{family}_torch", "compiled_bfloat16"),
    "obvious Flax float32": ("dcgan_flax", "float32"),
}
_SLOW = 5.0  # seconds; a contestant with a longer step makes one step per turn, without a warm-up
_PAUSE = 0.3  # seconds, so that the threads of the last turn go to sleep


class Contestant:
    """A worker's process."""

    def __init__(self, module, variant, recipe):
        module = module.format(family=PLANS[recipe].family)
        command = [sys.executable, "-m", f"benchmarks.{module}", f"--variant={variant}", f"--recipe={recipe}"]
        began = time.perf_counter()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent.parent,
        )
        answer = self.process.stdout.readline()
        self.error = None if answer else self._last_words()
        about = json.loads(answer or "{}")
        self.versions, self.steps_per_call = about.get("versions", {}), about.get("steps_per_call", 1)
        *self.first_step_seconds, self.step_seconds = about.get("warm_up_seconds", [0])
        self.start_seconds = time.perf_counter() - began

    def _last_words(self):
        lines = self.process.communicate()[1].strip().splitlines()
        return lines[-1] if lines else f"ended with exit code {self.process.returncode}"

    def turn(self, what, times):
        """Returns [wall-clock seconds, processor seconds] of one of `times` steps or images."""
        time.sleep(_PAUSE)
        if what == "step" and self.step_seconds > _SLOW:
            return self._ask(what, 1)
        self._ask(what, 1 if what == "step" else SAMPLING_BATCH)
        return self._ask(what, times)

    def _ask(self, what, times):
        print(what, times, file=self.process.stdin, flush=True)
        return [float(seconds) / times for seconds in self.process.stdout.readline().split()]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def spread(values):
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def compare(flags):
    """Starts all contestants, one after the other, and runs the rounds."""
    names = [name for name in CONTESTANTS if name == OURS or re.search(flags.only, name)]
    running, absent = {}, {}
    for name in names:
        contestant = Contestant(*CONTESTANTS[name], flags.recipe)
        if contestant.error:
            absent[name] = contestant.error
            print(f"{name} is left out: {contestant.error}", flush=True)
        else:
            running[name] = contestant
            print(f"{name} is ready after {contestant.start_seconds:.0f} s", flush=True)
    if OURS not in running or len(running) == 1:
        sys.exit("there is nothing to compare with")
    peers = [name for name in running if name != OURS]
    pairs = {name: [] for name in peers}
    if flags.what == "step":  # round up to whole calls of ours
        flags.steps = -(-flags.steps // running[OURS].steps_per_call) * running[OURS].steps_per_call
    for _ in range(flags.rounds):
        for name in peers:
            pairs[name].append([running[who].turn(flags.what, flags.steps) for who in (OURS, name)])
    for contestant in running.values():
        contestant.close()
    return running, absent, pairs


def results(flags, running, absent, pairs):
    """All measurements, ready for JSON."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count())
    turns = {name: [theirs for _, theirs in listed] for name, listed in pairs.items()}
    turns = {OURS: [ours for listed in pairs.values() for ours, _ in listed], **turns}
    return {
        "recipe": flags.recipe,
        "what": flags.what,
        "rounds": flags.rounds,
        "times": flags.steps,
        "date": datetime.date.today().isoformat(),
        "cores": len(usable),
        "python": platform.python_version(),
        "versions": {name: contestant.versions for name, contestant in running.items()},
        "first_step_seconds": {name: contestant.first_step_seconds for name, contestant in running.items()},
        "left_out": absent,
        "pairs": pairs,
        "seconds": {name: spread([clock for clock, _ in listed]) for name, listed in turns.items()},
        "processor_seconds": {name: spread([used for _, used in listed]) for name, listed in turns.items()},
        "times_ours": {name: spread([b[0] / a[0] for a, b in listed]) for name, listed in pairs.items()},
        "processor_times_ours": {name: spread([b[1] / a[1] for a, b in listed]) for name, listed in pairs.items()},
    }


def table(found):
    """A Markdown table of wall-clock and processor time per step or image, and the ratios to ours."""
    unit, factor = ("s a step", 1) if found["what"] == "step" else ("ms an image", 1000)
    lines = [
        f"| {found['recipe']} | {unit}, median (range) | times ours | processor {unit} | times ours |",
        "|---|---|---|---|---|",
    ]
    for name in found["seconds"]:
        cells = []
        for kind in ("", "processor_"):
            cells.append(_cell(found[f"{kind}seconds"][name], factor))
            ratio = found[f"{kind}times_ours"].get(name)
            cells.append(_cell(ratio, 1) if ratio else "1")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(spread, factor):
    median, least, most = (f"{factor * spread[name]:.3g}" for name in ("median", "least", "most"))
    return f"{median} ({least} to {most})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="cifar10_dcgan", choices=PLANS)
    parser.add_argument("--what", default="step", choices=["step", "sample"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="steps or images per turn")
    parser.add_argument("--only", default="", help="a regular expression that the names of the others must match")
    parser.add_argument("--json", default="", help="a file for the numbers")
    flags = parser.parse_args()
    found = results(flags, *compare(flags))
    print(table(found))
    if flags.json:
        Path(flags.json).write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
