"""List the trained models of the package, or show the card of one.

    cgan models
    cgan models digits

A model is named wherever a command draws: cgan sample --model=digits --labels=3,7 --num_images=20 --out=digits.png. A
file of cgan export and the folder of a run can stand in the place of the name. The card says what a model draws, how
it was trained, and its scores with their protocol.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags as absl_flags

from cgan_jax import models
from cgan_jax.lookup import unknown

if TYPE_CHECKING:
    from cgan_jax.run import workdir

ARGUMENT = "name"
_SHOWN = ("fid", "cfd", "class_accuracy")


def define_flags(flags: absl_flags.FlagValues, argv: list[str]) -> None:
    absl_flags.DEFINE_string("name", None, "The model to show; cgan models NAME is the same.", flag_values=flags)


def main(flags: absl_flags.FlagValues) -> None:
    if flags.name is None:
        width = max(map(len, models.names())) + 2
        print("\n".join(f"{name:<{width}}{_line(models.FOLDER / name)}" for name in models.names()))
    elif flags.name in models.names():
        print(_card(models.FOLDER / flags.name))
    else:
        raise unknown("model", flags.name, models.names())


def _line(folder: Path) -> str:
    """What a model draws and how well, on one line."""
    from cgan_jax.run import workdir

    scores: dict[str, float] = {}
    for line in workdir.read_metrics(folder, workdir.EVALUATIONS):
        scores |= _scores(line)
    shown = [f"{name} {value:.3g}" for name, value in scores.items() if name.startswith(_SHOWN)]
    return "; ".join([_draws(workdir.read_info(folder)), *shown])


def _card(folder: Path) -> str:
    """All that is known of a model: facts, then the scores of each evaluation with their protocol."""
    from cgan_jax.commands.evaluate import table
    from cgan_jax.run import packed, workdir

    info, held = workdir.read_info(folder), packed.read_card(folder)
    last, trained_on = workdir.read_metrics(folder)[-1], info.recipe["dataset"]
    started = workdir.read_environments(folder)
    size = (folder / packed.WEIGHTS).stat().st_size
    facts = {
        "draws": _draws(info),
        "classes": ", ".join(info.classes),
        "architecture": info.recipe["architecture"],
        "trained on": f"{info.num_images:,} images, {trained_on['name']} {trained_on['split']}",
        "trained by": "; ".join(dict.fromkeys(start["command"] for start in started)),
        "for": f"{last['kimg']:.0f} kimg, {held.step} steps, {last['seconds'] / 60:.0f} min",
        "with": "; ".join(dict.fromkeys(f"{start['device_kind']}, jax {start['jax']}" for start in started)),
        "weights": f"{size / 1e6:.2f} MB; half precision changes images by at most {held.off_by} of 255 levels",
        "recipe": str(folder / workdir.CONFIG),
    }
    lines = [f"{name:<14}{fact}" for name, fact in facts.items()]
    for line in workdir.read_metrics(folder, workdir.EVALUATIONS):
        lines += ["", table({name: [value] for name, value in _scores(line).items()}, line["protocol"])]
    return "\n".join(lines)


def _draws(info: "workdir.RunInfo") -> str:
    from cgan_jax.data.sources import COLOURS

    size = info.recipe["dataset"]["image_size"]
    return f"{size}x{size} {COLOURS[info.channels]}, {len(info.classes)} classes of {info.recipe['dataset']['name']}"


def _scores(line: Mapping[str, float]) -> dict[str, float]:
    """The scores of all images together in a line of evaluations.jsonl."""
    return {
        name.removeprefix("eval/"): line[name] for name in line if name.startswith("eval/") and name.count("/") == 1
    }
