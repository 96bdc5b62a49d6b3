"""cgan_jax: class-conditional image GANs in JAX. Imports nothing heavy, so that `cgan --help` answers at once.

    import cgan_jax as cgan

    model = cgan.load("digits")
    model.sample(["3", 7], num_images=20).save("digits.png")

The public names are those of api.py, which is imported when one of them is first used.
"""

import importlib
import sys
import time
from types import ModuleType

__version__ = "0.1.0"
STARTED = time.perf_counter()
"""When this program began, but for Python's own start: by time.perf_counter()."""

__all__ = [
    "GuardError",
    "Interrupted",
    "Model",
    "Run",
    "Samples",
    "UsageError",
    "Ways",
    "keep_programs",
    "load",
    "recipe",
    "recipes",
    "train",
]
_CALLED = ("recipe", "train")


def __getattr__(name: str) -> object:
    if name in _CALLED:
        return importlib.import_module(f"{__name__}.{name}")
    if name in __all__:
        return getattr(importlib.import_module(f"{__name__}.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Called(ModuleType):
    """A file of this package that can be called as the function of its name in api.py: `cgan.train(...)`.

    Importing a file sets the attribute of its name, here to the file, whatever it was before.
    """

    def __call__(self, *args, **kwargs):
        return self._function(*args, **kwargs)

    @property
    def _function(self):
        return getattr(importlib.import_module(f"{__package__}.api"), self.__name__.rpartition(".")[2])

    @property
    def __signature__(self):
        return importlib.import_module("inspect").signature(self._function)


class _Package(ModuleType):
    def __setattr__(self, name: str, value: object) -> None:
        if name in _CALLED and isinstance(value, ModuleType):
            value.__class__ = _Called
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
