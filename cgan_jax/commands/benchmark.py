"""Measure how fast a recipe trains and draws images on this machine, and which parts take the time.

    cgan benchmark --config=cifar10_dcgan
    cgan benchmark --config=digits --calls=50 --config.train.batch_size=128 --json
    cgan benchmark --config=cifar10_sngan --topology=v5e:2x4

Times the call that training makes, after a warm-up: medians and quartiles. It takes the recipe's data, or says that it
takes made-up images of the same size because the data are not prepared. It writes no files. Operations are counted
twice: those of the layers, and those that XLA counts in the compiled program (loops once, no calls of libraries). The
ceiling is a large matrix product in the same run, of the type that most layers compute in. Compilation does not use the
cache. Images that the recipe streams are replicated. The parts of a step are compiled separately, so they need not sum
to the whole.

--operations=10 traces a call too, and names the operations that take most of a step, with their lines in the code.

With --topology it runs nothing. It compiles the same call for devices that need not be here, and predicts: whether it
fits, how many images/s memory and arithmetic allow in training, in drawing and in the features that scores compare, and
which lines of the code cost most. Devices are v4, v5e, v5p and v6e with a shape of the slice, and h100, h200, a100, l4
and rtx4090 with a number (h100:8). --memory_gigabytes=15 finds settings with which training takes no more of a device,
as cgan train does.
"""

import json
import sys
from typing import Any

from absl import flags as absl_flags

from cgan_jax.commands import _flags, _recipe_flags
from cgan_jax.errors import UsageError

_PARTS = {
    "data": "data alone",
    "discriminator": "discriminator alone",
    "generator": "generator alone",
    "optimizers": "optimizers, average",
}

_BOUNDS = {
    "arithmetic": "at most, by arithmetic",
    "bytes": "at most, by bytes",
    "compiler": "by compiler's cycles",
}


def define_flags(flags: absl_flags.FlagValues, argv: list[str]) -> None:
    _recipe_flags.define(flags, argv)
    absl_flags.DEFINE_integer("calls", 20, "Calls of which the median is taken.", lower_bound=1, flag_values=flags)
    absl_flags.DEFINE_bool("parts", True, "Time the parts of a step, each compiled alone.", flag_values=flags)
    absl_flags.DEFINE_integer(
        "operations", 0, "Trace a call, and name so many of its costliest operations.", lower_bound=0, flag_values=flags
    )
    absl_flags.DEFINE_string("topology", "", "Devices to compile for, such as v5e:2x4 or h100:8.", flag_values=flags)
    _flags.define(flags, "memory_gigabytes")
    absl_flags.DEFINE_bool("json", False, "Print one JSON object and nothing else.", flag_values=flags)


def main(flags: absl_flags.FlagValues) -> None:
    _flags.need("benchmark", {"--config=NAME": flags.config})
    recipe = _recipe_flags.given(flags)
    if flags.memory_gigabytes is not None and not flags.topology:
        raise UsageError("--memory_gigabytes needs --topology, the devices to compile for")
    if flags.topology:
        from cgan_jax.evaluation import topology

        say = (lambda line: print(line, file=sys.stderr, flush=True)) if flags.json else print
        numbers = topology.predict(recipe, topology.open_topology(flags.topology), flags.memory_gigabytes, say)
        numbers = {"recipe": _recipe_flags.name(flags), **numbers}
        print(json.dumps(numbers) if flags.json else prediction(numbers))
        return
    from cgan_jax.evaluation import speed

    numbers = {"recipe": _recipe_flags.name(flags), **speed.measure(recipe, flags.calls, flags.parts, flags.operations)}
    print(json.dumps(numbers) if flags.json else table(numbers))


def table(numbers: dict[str, Any]) -> str:
    """The numbers of `speed.measure` as lines of a name, a number with its unit, and the quartiles."""
    of_step = {name: _milliseconds(spread) for name, spread in numbers["part_seconds"].items()}
    compiled = numbers["gflop_per_image_compiled"]
    rows = [
        ("step", *_milliseconds(numbers["seconds_per_step"])),
        ("real images", *_speed(numbers["images_per_sec"])),
        ("an image's layers", f"{numbers['gflop_per_image_layers']:.4g} GFLOP", ""),
        ("an image as compiled", "-" if compiled is None else f"{compiled:.4g} GFLOP", ""),
        ("layers' speed", f"{numbers['gflop_per_sec']:.4g} GFLOP/s", ""),
        (f"ceiling, {numbers['ceiling_dtype']}", f"{numbers['ceiling_gflop_per_sec']:.4g} GFLOP/s", ""),
        ("share of the ceiling", f"{100 * numbers['share_of_ceiling']:.1f} %", ""),
        ("compilation", f"{numbers['compile_seconds']:.1f} s", ""),
        ("command to first step", f"{numbers['first_step_seconds']:.1f} s", ""),
        (f"peak memory, {numbers['peak_of']}", f"{numbers['peak_gigabytes']:.2f} GB", ""),
        ("images drawn", *_speed(numbers["sampled_images_per_sec"])),
        *((_PARTS[name], *times) for name, times in of_step.items()),
        *_operations(numbers.get("operations")),
    ]
    calls = f"{numbers['calls']} calls of {numbers['steps_per_call']} step(s)"
    head = [
        f"{numbers['recipe']}: {calls}, {numbers['parallelism']} over {numbers['devices']} x {numbers['device']},"
        f" {numbers['cores']} cores",
        f"Python {numbers['python']}, jax {numbers['jax']}, jaxlib {numbers['jaxlib']}, {numbers['date']}",
        f"{numbers['data']}, {numbers['placement']}",
        "",
        f"{'':<24}{'median':>16}   quartiles",
    ]
    return "\n".join([*head, *(f"{name:<24}{value:>16}   {quartiles}".rstrip() for name, value, quartiles in rows)])


def _operations(traced: dict[str, Any] | None) -> list[tuple[str, str, str]]:
    """The operations of `trace.operations` as rows: how often one runs in a step, its milliseconds, and its line."""
    if not traced:
        return []
    if not traced["costly"]:
        return [("operations of a step", "", "the profiler of this device names none")]
    costly = [(f"{one['times']:.4g} times", one) for one in traced["costly"]]
    return [
        ("operations of a step", f"{traced['started']:.0f}", f"traced: {traced['busy_milliseconds']:.4g} ms busy"),
        *((times, f"{one['milliseconds']:.4g} ms", f"{one['operation']} {one['line']}") for times, one in costly),
    ]


def prediction(numbers: dict[str, Any]) -> str:
    """The numbers of `topology.predict` as lines."""
    memory = numbers["memory_gigabytes"]
    peak = "more" if memory["peak"] is None else f"{memory['peak']:.3g} GB"
    verdict = "fits" if numbers["fits"] else "does not fit"
    rows = [(verdict, f"{peak} beside the {memory['device'] * memory['share']:.3g} GB that jax takes of a device")]
    if "temporaries" in memory:
        rows.append(("", f"arguments {memory['arguments']:.3g} GB, temporaries {memory['temporaries']:.3g} GB"))
    rows += [("take less by", line) for line in numbers.get("advice", [])]
    if "compile_seconds" in numbers:
        rows.append(("compilation", f"{numbers['compile_seconds']:.1f} s here"))
        rows.append(("state in place", f"{numbers['donated_leaves']} of {numbers['state_leaves']} arrays"))
    rows.append(("arithmetic of a step", f"{numbers['gflop_per_step']:.4g} GFLOP a device, {numbers['dtype']}"))
    if "bound" in numbers:
        rows += _prediction_of_time(numbers)
    head = [
        f"{numbers['recipe']} on {numbers['topology']}: {numbers['steps_per_call']} step(s) a call,"
        f" {numbers['devices']} x {numbers['device']}, {numbers['batch_per_device']} images each",
        f"A prediction, nothing ran: {numbers['compiler']}, jax {numbers['jax']}, {numbers['date']}",
        f"{numbers['images']} images, {numbers['placement']}",
        "",
    ]
    return "\n".join([*head, *(f"{name:<24}{value}".rstrip() for name, value in rows)])


def _prediction_of_time(numbers: dict[str, Any]) -> list[tuple[str, str]]:
    """What `topology.predict` says of a program's time, as (name, text)."""
    speeds, bound = numbers["images_per_sec"], numbers["bound"]
    rows = [
        ("bytes of a step", f"{numbers['gigabytes_per_step']:.4g} GB a device"),
        ("operations of a step", f"{numbers['operations_per_step']:.0f}"),
    ]
    for kind, entry in numbers["collectives_per_step"].items():
        rows.append((kind, f"{entry['count']:.3g} a step, {entry['megabytes']:.4g} MB"))
    for name, speed in speeds.items():
        rows.append((_BOUNDS[name], f"{speed:.4g} images/s" + (", the least" if name == bound else "")))
    rows.append(("then of the peak", f"{100 * numbers['share_of_peak']:.1f} %"))
    for name, call in (("images drawn", numbers["drawing"]), ("features of images", numbers["features"])):
        most = min(call["images_per_sec"].values())
        rows.append((name, f"{most:.4g} images/s at most, {call['peak_gigabytes']:.3g} GB"))
    rows += [("", ""), ("ms a step", f"{'MB':>9}  operation")]
    for one in numbers["costly"]:
        line = f"  {one['line']}" if one["line"] else ""
        rows.append((f"{one['milliseconds']:.4g}", f"{one['megabytes']:>9.4g}  {one['operation']}{line}"))
    return rows


def _milliseconds(spread: dict[str, float]) -> tuple[str, str]:
    low, median, high = (f"{1000 * spread[name]:.4g}" for name in ("low", "median", "high"))
    return f"{median} ms", f"{low} to {high}"


def _speed(spread: dict[str, float]) -> tuple[str, str]:
    low, median, high = (f"{spread[name]:.4g}" for name in ("low", "median", "high"))
    return f"{median} images/s", f"{low} to {high}"
