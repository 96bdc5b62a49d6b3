"""Encoded pictures with their classes: looked at, decoded once to a file in the cache folder, and told of."""

import collections
import contextlib
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL

from cgan_jax.data import pictures, stored
from cgan_jax.data.sources import Dataset, _pixels
from cgan_jax.data.stored import StoredImages
from cgan_jax.errors import UsageError
from cgan_jax.files import json_text, storage
from cgan_jax.files.cache import cache_folder, cache_path
from cgan_jax.names import printable

CHANNELS = {"grey": 1, "rgb": 3, "rgba": 4}
_VERSION = 2
"""Of how pictures are decoded; another one decodes them anew."""
_NAMED = 5


class Pictures(NamedTuple):
    """N encoded pictures."""

    names: Sequence[str]
    """For messages."""
    labels: Sequence[int]
    class_names: tuple[str, ...]
    read: Callable[[int], bytes]
    """The content of a picture. It may raise OSError."""
    sizes: Sequence[int]
    """In bytes."""
    stamp: str
    """Another one if any picture may have changed."""
    skipped: collections.Counter[str]
    """How many files were passed over, by reason."""


def of_files(
    paths: Sequence[Path], labels: Sequence[int], class_names: tuple[str, ...], skipped: collections.Counter[str]
) -> Pictures:
    """Pictures that are files."""
    stats = [path.stat() for path in paths]
    stamp = digest(*(f"{path.absolute()} {s.st_size} {s.st_mtime_ns}" for path, s in zip(paths, stats, strict=True)))
    names, sizes = [printable(str(path)) for path in paths], [s.st_size for s in stats]
    return Pictures(names, labels, class_names, lambda i: storage.read_bytes(paths[i]), sizes, stamp, skipped)


def digest(*parts: Any) -> str:
    """A name for files that depend on these parts."""
    return hashlib.sha256("\0".join(map(str, parts)).encode(errors="surrogateescape")).hexdigest()[:32]


def decoded(
    found: Pictures, image_size: int, fit: str, channels: str, background: str, in_file: bool, usual: str = ""
) -> Dataset:
    """The pictures in one form; `in_file` leaves them in the cache folder. Channels "auto" are `usual`, or as found.

    Raises UsageError, which names the first ones, if pictures cannot be read.
    """
    if image_size < 1:
        raise UsageError(f"image_size {image_size} is not a size: it must be at least 1")
    if not found.names:
        raise UsageError(f"there are no pictures{pictures.told(found.skipped)}")
    looked = _looked(found)
    if channels == "auto":
        channels = usual or ("grey" if looked["grey"] == len(found.names) else "rgb")
    form = _pixels.Form(image_size, CHANNELS[channels], fit, background)
    key = digest(looked["content"], form, f"Pillow {PIL.__version__}", _VERSION)
    images = _images(found, form, cache_path() / "images" / f"{key}.array_record", in_file)
    about = _about(found, looked, form)
    return Dataset(images, np.array(found.labels, np.int32), found.class_names, tuple(about))


def _looked(found: Pictures) -> dict[str, Any]:
    """What the pictures are, and a digest of their content; read again only if a file may have changed."""
    path = cache_path() / "images" / f"{found.stamp}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = json_text.parsed(storage.read_text(path))
        if sum(kept["modes"].values()) == len(found.names) and kept["version"] == _VERSION:
            return kept
    broken = {}
    seen = list(_in_order(found, lambda content: (_hash(content), pictures.facts(content)), broken, "looking at"))
    _refuse(broken, found)
    facts = [of_one for _, of_one in seen]
    sizes = collections.Counter(f"{one.width}x{one.height}" for one in facts)
    looked = {
        "version": _VERSION,
        "content": _hash(b"".join(hashed for hashed, _ in seen)).hex(),
        "sizes": dict(sizes.most_common(_NAMED)),
        "other_sizes": max(0, len(sizes) - _NAMED),
        "sides": sorted(collections.Counter(min(one.width, one.height) for one in facts).items()),
        "modes": dict(collections.Counter(one.mode for one in facts).most_common()),
        "several": sum(one.is_animated for one in facts),
        "transparent": sum(one.is_transparent for one in facts),
        "grey": sum(one.is_grey for one in facts),
    }
    with contextlib.suppress(OSError):
        cache_folder()
        path.parent.mkdir(exist_ok=True)
        storage.write_whole(path, json.dumps(looked))
    return looked


def _hash(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _images(found: Pictures, form: _pixels.Form, path: Path, in_file: bool) -> np.ndarray | StoredImages:
    """The images of that form, from the file at `path` or, if there is none, decoded and kept there."""
    shape = (len(found.names), form.size, form.size, form.channels)
    try:
        kept = stored.opened(path, shape)
        if kept is not None:
            with contextlib.suppress(UsageError):  # damaged inside: it is decoded anew
                return kept if in_file else kept[:]
        cache_folder()
        with stored.storing(path) as store:
            images = _filled(found, form, None if in_file else np.empty(shape, np.uint8), store)
        return stored.opened(path, shape) if in_file else images
    except (OSError, ImportError) as error:  # no space, no permission, no ArrayRecord for this system
        if in_file:
            raise UsageError(
                f"dataset.placement=stream reads decoded images from {path.parent}: {storage.reason(error)};"
                " choose another folder by CGAN_CACHE_DIR"
            ) from error
    return _filled(found, form, np.empty(shape, np.uint8), lambda image: None)


def _filled(
    found: Pictures, form: _pixels.Form, images: np.ndarray | None, store: Callable[[np.ndarray], None]
) -> np.ndarray | None:
    """Decodes all pictures into `images`, unless it is None, and into `store`."""
    broken = {}
    for i, image in enumerate(_in_order(found, functools.partial(_pixels.decode, form=form), broken, "decoding")):
        if image is not None and not broken:
            store(image)
            if images is not None:
                images[i] = image
    _refuse(broken, found)
    return images


def _in_order(found: Pictures, make: Callable[[bytes], Any], broken: dict[int, str], what: str) -> Iterator[Any]:
    """make(content) of each picture; None for those that cannot be read, with the reason in `broken`."""

    def made(i: int) -> Any:
        try:
            return make(found.read(i))
        except (pictures.Unreadable, OSError) as error:
            broken[i] = storage.reason(error)

    return _pixels.in_order(made, len(found.names), sum(found.sizes) / len(found.names), what)


def _refuse(broken: dict[int, str], found: Pictures) -> None:
    if broken:
        first, *others = sorted(broken)
        more = f"; nor can {len(others)} more: {', '.join(found.names[i] for i in others[:_NAMED])}" if others else ""
        why = f"not a picture that can be read ({broken[first]}){more}; repair it or move it away"
        raise UsageError(f"{found.names[first]}: {why}")


def _about(found: Pictures, looked: dict[str, Any], form: _pixels.Form) -> list[str]:
    """Lines on what the pictures are, and what each becomes."""
    modes = ", ".join(f"{mode} {count}" for mode, count in looked["modes"].items())
    sizes = ", ".join(f"{size} {count}" for size, count in looked["sizes"].items())
    others = f" and {looked['other_sizes']} other sizes" if looked["other_sizes"] else ""
    lines = [f"sizes: {sizes}{others}; modes: {modes}{pictures.told(found.skipped)}"]
    if looked["several"]:
        lines.append(f"{looked['several']} files hold several images; the first is taken")
    word = {count: name for name, count in CHANNELS.items()}[form.channels]
    fit = {"crop": "cut to the centred square", "pad": f"padded in {form.background}", "stretch": "stretched"}[form.fit]
    small = sum(count for side, count in looked["sides"] if side < form.size)
    enlarged = f"; {small} are smaller and are enlarged" if small else ""
    behind = f"; {looked['transparent']} are transparent, on {form.background}" if looked["transparent"] else ""
    if form.channels == 4:
        behind = ""
    return [*lines, f"each becomes {form.size}x{form.size} {word}, {fit} and resized{enlarged}{behind}"]
