"""The flags that several commands take, each with one meaning."""

from collections.abc import Mapping
from functools import partial

from absl import flags as absl_flags
from absl.flags import DEFINE_bool, DEFINE_enum, DEFINE_float, DEFINE_integer, DEFINE_string

from cgan_jax.errors import UsageError

_NO_CACHE = "Do not keep compiled programs in $CGAN_CACHE_DIR (~/.cache/cgan_jax)."
_STATISTICS = "The generator normalises by: ema, averages of training; standing, 16 batches that it draws itself."
_AVERAGE = "The generator averaged with this half-life in kimg, or last: the last step's; left out: ema.halflife_kimg."
_MEMORY = "Choose remat and train.accumulate so that training takes no more of a device."
_TRUNCATION = (
    "Draw latents again until all are in ±truncation; stylegan2: keep this share of the way from the mean style."
)
_SHARED = {
    "workdir": partial(DEFINE_string, default=None, help="The folder of a run, or gs://BUCKET/FOLDER."),
    "step": partial(DEFINE_string, default=None, help="A checkpoint's generator step, or best; left out: the latest."),
    "seed": partial(DEFINE_integer, default=0, help="Which images.", lower_bound=0, upper_bound=2**32 - 1),
    "truncation": partial(DEFINE_float, default=None, help=_TRUNCATION),
    "batch_stats": partial(DEFINE_enum, default="ema", enum_values=["ema", "standing"], help=_STATISTICS),
    "ema": partial(DEFINE_string, default=None, help=_AVERAGE),
    "source": partial(DEFINE_string, default=None, help="A recipe's dataset.source; left out: digits or tfds."),
    "data_dir": partial(DEFINE_string, default="", help="A recipe's dataset.data_dir."),
    "image_size": partial(DEFINE_integer, default=32, help="A recipe's dataset.image_size.", lower_bound=1),
    "memory_gigabytes": partial(DEFINE_float, default=None, help=_MEMORY, lower_bound=0.0),
    "force": partial(DEFINE_bool, default=False, help="Replace files that this command would write."),
    "cache": partial(DEFINE_bool, default=True, help=_NO_CACHE),
}


def define(flags: absl_flags.FlagValues, *names: str, **helps: str) -> None:
    """Adds shared flags to a command's flags; a keyword gives the flag of this name another help."""
    for name in (*names, *helps):
        _SHARED[name](name=name, flag_values=flags, **({"help": helps[name]} if name in helps else {}))


def need(command: str, values: Mapping[str, object]) -> None:
    """Raises UsageError that names the flags without a value; `values` are by the flags' words, such as --out=FILE."""
    *others, last = [words for words, value in values.items() if not value] or [""]
    if last:
        missing = f"{', '.join(others)}, and {last}" if others else last
        raise UsageError(f"{missing} must be given (see cgan {command} --help)")


def keep_programs(flags: absl_flags.FlagValues) -> None:
    """Keeps compiled programs, unless --nocache. Imports jax."""
    if flags.cache:
        from cgan_jax.files import compilation_cache

        compilation_cache.enable()
