"""Train a recipe, or go on with a run from its latest checkpoint.

    cgan train --config=configs/digits.py --workdir=runs/digits
    cgan train --config=configs/digits.py --workdir=runs/digits2 --config.train.total_kimg=300.0 --config.seed=1

Every value of the recipe can be overridden by --config.section.field=value; a loss that it does not list is added
whole, as in --config.loss.g_terms.hinge="{'weight': 1.0}". The same command again resumes the run exactly. Ctrl-C
saves and ends with exit code 75.
"""

from pathlib import Path

from absl import flags as absl_flags

from cgan_jax import recipe_flag
from cgan_jax.errors import UsageError


def define_flags(flags: absl_flags.FlagValues, argv: list[str]) -> None:
    recipe_flag.define(flags, argv)
    absl_flags.DEFINE_string("workdir", None, "The folder of the run; created where needed.", flag_values=flags)
    absl_flags.DEFINE_bool(
        "cache", True, "Do not keep compiled programs in $CGAN_CACHE_DIR (~/.cache/cgan_jax).", flag_values=flags
    )
    absl_flags.DEFINE_bool("profile", False, "Write a profile of a few steps for TensorBoard.", flag_values=flags)


def main(flags: absl_flags.FlagValues) -> None:
    if flags.config is None or not flags.workdir:
        raise UsageError("both --config=FILE and --workdir=FOLDER are needed (see cgan train --help)")
    recipe = recipe_flag.given(flags)
    from cgan_jax import compilation_cache
    from cgan_jax.train import train_and_evaluate

    if flags.cache:
        compilation_cache.enable()
    train_and_evaluate(recipe, Path(flags.workdir), profile=flags.profile)
