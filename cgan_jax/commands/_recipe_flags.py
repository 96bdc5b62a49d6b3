"""The flags --config and --config.section.field, for every command that takes a recipe."""

from pathlib import Path
from typing import Any

from absl import flags as absl_flags
from ml_collections import ConfigDict, config_flags

from cgan_jax import recipe_files
from cgan_jax.recipe import widened


class _Parser(absl_flags.ArgumentParser):
    """Loads --config: ml_collections knows no names, and does not say what is wrong with a file."""

    def parse(self, argument: str) -> ConfigDict:
        return recipe_files.load(argument)


def define(flags: absl_flags.FlagValues, argv: list[str]) -> None:
    """Adds them to a command's flags; `argv` is its command line, which says which recipe's fields there are."""
    config_flags.DEFINE_config_file(
        "config",
        help_string="The recipe: a name that cgan recipes lists, or a file; override by --config.section.field=value.",
        flag_values=flags,
        lock_config=False,
        accept_new_attributes=True,
        sys_argv=["cgan", *argv],
    )
    flags["config"].parser = _Parser()


def given(flags: absl_flags.FlagValues) -> dict[str, Any]:
    """The recipe with its overrides."""
    return widened(flags.config.to_dict())


def name(flags: absl_flags.FlagValues) -> str:
    """The name of the recipe's file."""
    return Path(flags["config"].config_filename).stem
