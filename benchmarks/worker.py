"""The parts that all contestants of benchmarks.training share: the step to make, and the protocol of a worker.

A worker builds the networks, makes a step or two, and prints a line of JSON about itself. Then it reads lines "WHAT
TIMES" from standard input, does that, and prints the seconds: wall-clock and processor time.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

LATENT_DIM, B1, B2, EPSILON, DROPOUT = 100, 0.5, 0.999, 1e-7, 0.4
SAMPLING_BATCH = 64
_SLOW = 100  # seconds


class Plan(NamedTuple):
    """A step: discriminator updates on real and generated images, apart or together, then a generator update."""

    batch_size: int
    g_batch_size: int
    learning_rate: float
    together: bool
    num_classes: int
    """0 if the networks take no labels."""
    family: str = "dcgan"
    """The name that a contestant's module begins with, if it has one for each family."""


PLANS = {
    "cifar10_dcgan": Plan(64, 128, 2e-4, together=False, num_classes=0),
    "cifar10_cgan_deep": Plan(128, 128, 1e-4, together=True, num_classes=10),
    "cifar10_cpu": Plan(32, 32, 1e-3, together=True, num_classes=10, family="projected"),
}


def parser(*variants: str, recipes: Iterable[str] = PLANS) -> argparse.ArgumentParser:
    """A parser with the flags --recipe, one of those that the worker knows, and --variant."""
    made = argparse.ArgumentParser()
    made.add_argument("--recipe", default="cifar10_dcgan", choices=list(recipes))
    made.add_argument("--variant", default=variants[0], choices=variants)
    return made


def made_up(plan: Plan, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A random batch: images float32 [N, 32, 32, 3] in [-1, 1], labels int32 [N]."""
    rng = np.random.default_rng(seed)
    images = rng.uniform(-1, 1, (plan.batch_size, 32, 32, 3)).astype(np.float32)
    return images, rng.integers(max(1, plan.num_classes), size=plan.batch_size).astype(np.int32)


def check_movement(updates: list[tuple[str, Callable[[], None]]], weights: Callable[[], Mapping[str, list]]) -> None:
    """Asserts that each update changes all weights of the network that it names, and none of the other's."""
    for name, update in updates:
        before = weights()
        update()
        for network, arrays in weights().items():
            moved = [bool(np.any(a != b)) for a, b in zip(before[network], arrays, strict=True)]
            right = all(moved) if network == name else not any(moved)
            assert right, f"an update of {name} moved {sum(moved)} of the {len(moved)} weights of {network}"


def serve(versions: Mapping[str, str], tasks: Mapping[str, Callable[[int], None]], steps_per_call: int = 1) -> None:
    """Warms up with two steps, or one if it is slow, prints a line about itself, and answers until standard input ends.

    The worker makes only multiples of `steps_per_call` steps.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a framework prints must not mix with the answers
    warm_up = [_seconds(tasks["step"], 1)[0]]
    if warm_up[0] < _SLOW:
        warm_up.append(_seconds(tasks["step"], 1)[0])
    print(
        json.dumps({"versions": versions, "warm_up_seconds": warm_up, "steps_per_call": steps_per_call}),
        file=answers,
        flush=True,
    )
    for line in sys.stdin:
        what, times = line.split()
        print(*_seconds(tasks[what], int(times)), file=answers, flush=True)


def _seconds(task: Callable[[int], None], times: int) -> tuple[float, float]:
    began, began_working = time.perf_counter(), time.process_time()
    task(times)
    return time.perf_counter() - began, time.process_time() - began_working
