"""List the recipes, or show one with all its values.

    cgan recipes
    cgan recipes cifar10_biggan
    cgan recipes my_recipe.py --json

A recipe is named, or given as a file, and is checked as training checks it. Its values are printed as flags: each can
be given to cgan train with another value.
"""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from absl import flags as absl_flags

from cgan_jax import recipe_files
from cgan_jax.recipe import check, flattened

ARGUMENT = "name"
_WIDTH = 100
_ORDER = ("dataset", "generator", "discriminator", "loss", "g_optimizer", "d_optimizer", "ema", "augment", "anneal")


def define_flags(flags: absl_flags.FlagValues, argv: list[str]) -> None:
    absl_flags.DEFINE_string("name", None, "The recipe to show; cgan recipes NAME is the same.", flag_values=flags)
    absl_flags.DEFINE_bool("json", False, "Print JSON and nothing else.", flag_values=flags)


def main(flags: absl_flags.FlagValues) -> None:
    if flags.name is None:
        found = [_summary(name) for name in recipe_files.names()]
        print(json.dumps(found, indent=2) if flags.json else listing(found))
        return
    recipe = recipe_files.load(flags.name).to_dict()
    check(recipe)
    about = recipe_files.about(recipe_files.parted(flags.name)[0])
    if flags.json:
        print(json.dumps({"name": flags.name, "about": about, "recipe": recipe}, indent=2))
    else:
        print("\n\n".join([*([about] if about else []), "Every value, as flags of cgan train:", as_flags(recipe)]))


def listing(recipes: list[dict[str, str]]) -> str:
    """A line for each recipe, under the name of its dataset."""
    column = 4 + max(len(recipe["name"]) for recipe in recipes)
    lines: list[str] = []
    for dataset in sorted({recipe["dataset"] for recipe in recipes}):
        lines.append(dataset)
        for recipe in recipes:
            if recipe["dataset"] == dataset:
                lines.append(f"  {recipe['name']}".ljust(column) + recipe["summary"])
        lines.append("")
    shortened = [line if len(line) <= _WIDTH else line[: _WIDTH - 3] + "..." for line in lines]
    return "\n".join(
        [
            *shortened,
            "cgan recipes NAME shows a recipe's source, expected result and values.",
            "cgan train --config=NAME --workdir=FOLDER trains it.",
        ]
    )


def as_flags(recipe: Mapping[str, Any]) -> str:
    """--config.section.field=value, one a line, a blank line between sections."""
    top = {name: value for name, value in recipe.items() if not isinstance(value, Mapping)}
    sections = [name for name in recipe if name not in top]
    sections.sort(key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))
    groups = [top, *({name: recipe[name]} for name in sections)]
    return "\n\n".join("\n".join(_flag(*leaf) for leaf in flattened(group)) for group in groups)


def _flag(key: str, value: Any) -> str:
    return f"--config.{key}={shlex.quote(str(value))}"


def _summary(name: str) -> dict[str, str]:
    about = recipe_files.about(recipe_files.find(name))
    first = " ".join(about.split("\n\n")[0].split())
    dataset = recipe_files.load(name).dataset.name
    return {"name": name, "dataset": dataset, "summary": first.split(". ")[0].removesuffix(".")}
