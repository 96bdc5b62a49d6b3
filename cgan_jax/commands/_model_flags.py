"""The flags --model and --workdir, for every command that draws from a trained model."""

from pathlib import Path

from absl import flags as absl_flags

from cgan_jax import models
from cgan_jax.commands import _flags
from cgan_jax.errors import UsageError
from cgan_jax.files import storage

WORDS = "--model=NAME or --workdir=FOLDER"
_MODEL = "A model of the package (cgan models), a file of cgan export or the folder of a run; a name wins over a path."


def define(flags: absl_flags.FlagValues) -> None:
    """Adds them to a command's flags."""
    _flags.define(flags, "workdir")
    absl_flags.DEFINE_string("model", None, _MODEL, flag_values=flags)


def given(flags: absl_flags.FlagValues) -> Path | None:
    """The place of the model, None if neither flag is given. Raises UsageError for both, and for an unknown model."""
    if flags.model and flags.workdir:
        raise UsageError("either --model=NAME or --workdir=FOLDER names the model, given both")
    if flags.model:
        return models.find(flags.model)
    return storage.place(flags.workdir) if flags.workdir else None
