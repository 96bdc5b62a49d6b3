"""Train a recipe, or go on with a run from its latest checkpoint.

    cgan train --config=configs/digits.py --workdir=runs/digits
    cgan train --config=configs/digits.py --workdir=runs/digits2 --config.train.total_kimg=300.0 --config.seed=1

Every value of the recipe can be overridden by --config.section.field=value; a loss that it does not list is added
whole, as in --config.loss.g_terms.hinge="{'weight': 1.0}". The same command again resumes the run exactly. Ctrl-C
saves and ends with exit code 75.
"""

from pathlib import Path

from absl import flags as absl_flags
from ml_collections import ConfigDict, config_flags

from cgan_jax.errors import UsageError


def define_flags(flags: absl_flags.FlagValues, argv: list[str]) -> None:
    config_flags.DEFINE_config_file(
        "config",
        help_string="The recipe, a file of configs/; override a value by --config.section.field=value.",
        flag_values=flags,
        lock_config=False,
        accept_new_attributes=True,
        sys_argv=["cgan", *argv],
    )
    absl_flags.DEFINE_string("workdir", None, "The folder of the run; created where needed.", flag_values=flags)
    absl_flags.DEFINE_bool(
        "cache", True, "Do not keep compiled programs in $CGAN_CACHE_DIR (~/.cache/cgan_jax).", flag_values=flags
    )
    absl_flags.DEFINE_bool("profile", False, "Write a profile of a few steps for TensorBoard.", flag_values=flags)


def main(flags: absl_flags.FlagValues) -> None:
    if flags.config is None or not flags.workdir:
        raise UsageError("both --config=FILE and --workdir=FOLDER are needed (see cgan train --help)")
    path = flags["config"].config_filename
    if not isinstance(flags.config, ConfigDict):
        known = "get_config() must return an ml_collections.ConfigDict" if Path(path).is_file() else "no such file"
        raise UsageError(f"--config={path} cannot be used: {known}")
    from cgan_jax import compilation_cache
    from cgan_jax.train import train_and_evaluate

    if flags.cache:
        compilation_cache.enable()
    train_and_evaluate(flags.config.to_dict(), Path(flags.workdir), profile=flags.profile)
