"""Measure how fast a recipe trains and draws images on this machine, and which parts take the time.

    cgan benchmark --config=cifar10_dcgan
    cgan benchmark --config=digits --calls=50 --config.train.batch_size=128 --json

Times the call that training makes, after a warm-up: medians and quartiles. It takes the recipe's data, or says that it
takes made-up images of the same size because the data are not prepared. It writes no files. Operations are counted
twice: those of the layers, and those that XLA counts in the compiled program (loops once, no calls of libraries). The
ceiling is a large matrix product in the same run, of the type that most layers compute in. Compilation does not use the
cache. Images that the recipe streams are replicated. The parts of a step are compiled separately, so they need not sum
to the whole.
"""

import json
from typing import Any

from absl import flags as absl_flags

from cgan_jax.commands import _recipe_flags
from cgan_jax.errors import UsageError

_PARTS = {
    "data": "data alone",
    "discriminator": "discriminator alone",
    "generator": "generator alone",
    "optimizers": "optimizers, average",
}


def define_flags(flags: absl_flags.FlagValues, argv: list[str]) -> None:
    _recipe_flags.define(flags, argv)
    absl_flags.DEFINE_integer("calls", 20, "Calls of which the median is taken.", lower_bound=1, flag_values=flags)
    absl_flags.DEFINE_bool("parts", True, "Time the parts of a step, each compiled alone.", flag_values=flags)
    absl_flags.DEFINE_bool("json", False, "Print one JSON object and nothing else.", flag_values=flags)


def main(flags: absl_flags.FlagValues) -> None:
    if flags.config is None:
        raise UsageError("--config=FILE is needed (see cgan benchmark --help)")
    recipe = _recipe_flags.given(flags)
    from cgan_jax.evaluation import speed

    numbers = {"recipe": _recipe_flags.name(flags), **speed.measure(recipe, flags.calls, flags.parts)}
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


def _milliseconds(spread: dict[str, float]) -> tuple[str, str]:
    low, median, high = (f"{1000 * spread[name]:.4g}" for name in ("low", "median", "high"))
    return f"{median} ms", f"{low} to {high}"


def _speed(spread: dict[str, float]) -> tuple[str, str]:
    low, median, high = (f"{spread[name]:.4g}" for name in ("low", "median", "high"))
    return f"{median} images/s", f"{low} to {high}"
