"""The flags --config and --config.section.field, for every command that takes a recipe."""

from pathlib import Path
from typing import Any

from absl import flags as absl_flags
from ml_collections import ConfigDict, config_flags

from cgan_jax.errors import UsageError


def define(flags: absl_flags.FlagValues, argv: list[str]) -> None:
    """Adds them to a command's flags; `argv` is its command line, which says which recipe's fields there are."""
    config_flags.DEFINE_config_file(
        "config",
        help_string="The recipe, a file of configs/; override a value by --config.section.field=value.",
        flag_values=flags,
        lock_config=False,
        accept_new_attributes=True,
        sys_argv=["cgan", *argv],
    )


def given(flags: absl_flags.FlagValues) -> dict[str, Any]:
    """The recipe with its overrides. Raises UsageError for a file that is not there or holds none."""
    path = flags["config"].config_filename
    if not isinstance(flags.config, ConfigDict):
        known = "get_config() must return an ml_collections.ConfigDict" if Path(path).is_file() else "no such file"
        raise UsageError(f"--config={path} cannot be used: {known}")
    return flags.config.to_dict()


def name(flags: absl_flags.FlagValues) -> str:
    """The name of the recipe's file."""
    return Path(flags["config"].config_filename).stem
