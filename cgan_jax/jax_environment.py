"""jax as the environment has set it up: variables that commands do not follow, and in one line why jax cannot start.

Imports nothing of jax, which reads most variables when it is imported.
"""

import difflib
import logging
import os
import re

from cgan_jax.errors import UsageError

# With these, numbers differ from those of the same seed elsewhere, or optax, flax and orbax raise errors.
_NOT_FOLLOWED = (
    "JAX_DEBUG_KEY_REUSE",  # a run's key is folded with many numbers
    "JAX_DISABLE_JIT",  # a step takes minutes
    "JAX_ENABLE_X64",  # all code here computes in float32
    "JAX_NUMPY_DTYPE_PROMOTION",  # optax's Adam raises a float to an integer's power
    "JAX_RANDOM_SEED_OFFSET",
    "JAX_THREEFRY_PARTITIONABLE",
    "JAX_TRANSFER_GUARD",  # compiled functions are called with NumPy arrays
    "JAX_TRANSFER_GUARD_DEVICE_TO_DEVICE",
    "JAX_TRANSFER_GUARD_DEVICE_TO_HOST",
    "JAX_TRANSFER_GUARD_HOST_TO_DEVICE",
)
_CHOOSE_DEVICES = ("JAX_PLATFORMS", "JAX_PLATFORM_NAME")
_EXTRAS = {"cuda": "an NVIDIA GPU", "tpu": "a TPU"}
_PLATFORMS = ("cpu", "cuda", "gpu", "rocm", "tpu")
_NO_DEVICE = ("Unable to initialize backend", "Unknown backend", "Could not initialize backend", "Backend '")
_WRONG_VALUE = re.compile(r"invalid truth value .* for environment '(JAX_\w+)'|Invalid value .* for JAX flag (jax_\w+)")
_BROKEN_PLUGIN = ("Jax plugin configuration error", "CUDA backend failed to initialize")


def settle() -> None:
    """Removes the variables that are not followed, and makes a broken driver an error: jax would take the processor."""
    for name in _NOT_FOLLOWED:
        os.environ.pop(name, None)
    logging.getLogger("jax._src.xla_bridge").addFilter(_refuse_broken_plugin)


def _refuse_broken_plugin(record: logging.LogRecord) -> bool:
    """Raises UsageError for jax's message that a driver does not work, unless JAX_PLATFORMS=cpu leaves it aside."""
    if not record.getMessage().startswith(_BROKEN_PLUGIN):
        return True
    if os.environ.get("JAX_PLATFORMS") != "cpu":
        why = record.exc_info[1] if record.exc_info else record.getMessage()
        raise UsageError(
            f"jax cannot use this machine's accelerator ({_short(why)}); mend its driver or pip install"
            " 'cgan_jax[cuda]', or set JAX_PLATFORMS=cpu to compute on the processor"
        )
    return False


def trouble(error: Exception) -> str | None:
    """What hinders jax from starting, and what mends it; None for an error of another kind."""
    text = str(error)
    if found := _WRONG_VALUE.search(text):
        name = (found[1] or found[2]).upper()
        return f"{name}={os.environ.get(name, '')}: jax knows no such value; unset it"
    # jax asserts, without a word, that there is a GPU where one is asked for.
    if not text.startswith(_NO_DEVICE) and not (isinstance(error, AssertionError) and not text and _asked_for()):
        return None
    return no_device(text)


def no_device(why: str) -> str:
    """What to install or unset if jax did not find the devices that the environment asks for."""
    name, asked = _asked_for() or ("", "")
    if not name:
        return f"jax cannot start its devices ({_short(why)}); JAX_PLATFORMS=cpu computes on the processor"
    unknown = [one for one in asked.split(",") if one not in _PLATFORMS]
    if unknown:
        close = difflib.get_close_matches(unknown[0], _PLATFORMS, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        return f"{name}={asked}: jax knows {', '.join(_PLATFORMS)}{hint}; unset it to take the devices that there are"
    extra = next((one for one in asked.replace("gpu", "cuda").split(",") if one in _EXTRAS), "")
    install = f" pip install 'cgan_jax[{extra}]' lets jax use {_EXTRAS[extra]};" if extra else ""
    reason = f" ({_short(why)})" if why else ""
    return f"{name}={asked}: jax finds no such device{reason};{install} unset {name} to take the devices that there are"


def _asked_for() -> tuple[str, str] | None:
    """The variable that chooses devices, and its value."""
    return next(((name, os.environ[name]) for name in _CHOOSE_DEVICES if os.environ.get(name)), None)


def _short(why: object) -> str:
    """The reason without jax's advice on variables."""
    return " ".join(str(why).partition(" (set JAX_PLATFORMS")[0].split())[:200]
