"""The trained models that come with the package, a packed folder for each, and how a person names a model.

May import files and lookup.
"""

from pathlib import Path

from cgan_jax.errors import UsageError
from cgan_jax.files import storage
from cgan_jax.lookup import unknown

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """The packaged models."""
    return sorted(path.parent.name for path in FOLDER.glob("*/config.json"))


def find(given: str) -> Path:
    """Where a model is kept: the packaged one of that name, else a file of cgan export or the folder of a run.

    A name wins over a path and says so. Raises UsageError if there is neither.
    """
    path = storage.place(given, "--model")
    if given in names():
        if path.exists():
            print(f"note: {given} is the packaged model; ./{given} is the folder of that name here", flush=True)
        return FOLDER / given
    if storage.is_remote(path) or path.exists():
        return path
    raise UsageError(f"{unknown('model', given, names())}; a file of cgan export or the folder of a run will do too")


def is_packaged(place: Path) -> bool:
    """Whether the model at that place comes with the package."""
    return storage.resolved(place).parent == FOLDER


def shown(place: Path) -> str:
    """What a person calls the model at that place: the name of a packaged one, else the path."""
    return place.name if is_packaged(place) else str(place)
