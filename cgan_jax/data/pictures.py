"""Picture files: which files of a folder are pictures, and how one is opened. All readers follow these rules."""

import collections
import contextlib
import functools
import io
import os
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from cgan_jax.errors import UsageError
from cgan_jax.files.storage import reason
from cgan_jax.names import printable

# Pillow runs another program for EPS, and knows no more than the name of the others.
_NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
_OF_ANY_NAME = {"PNG", "JPEG", "GIF", "WEBP", "TIFF", "AVIF"}
"""Formats that their first bytes tell, whatever the file is called."""
_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
_PNG = b"\x89PNG\r\n\x1a\n"
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image upright, by its EXIF orientation."""


class Unreadable(Exception):
    """Bytes that are not a whole picture, in the words of Pillow, on one line."""


@functools.cache
def _formats() -> list[str]:
    """The formats that Pillow decodes, the usual ones first."""
    Image.init()
    return [name for name in Image.ID if name not in _NOT_DECODED]


@functools.cache
def _suffixes() -> set[str]:
    decoded = {*_formats(), "MPO"}  # MPO, of some cameras, is read as JPEG
    return {suffix for suffix, name in Image.registered_extensions().items() if name in decoded}


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none of the person's: .x, and what macOS puts into archives."""
    return name.startswith(".") or name == "__MACOSX"


def is_named_as_picture(name: str) -> bool:
    """Whether Pillow reads files of that suffix."""
    return PurePath(name).suffix.lower() in _suffixes()


def is_picture(path: Path) -> bool:
    """Whether Pillow reads files of that name or, for a name that it does not know, this file."""
    if is_named_as_picture(path.name):
        return True
    formats = [name for name in _formats() if name in _OF_ANY_NAME]
    with contextlib.suppress(Unreadable), _refusing(), Image.open(path, formats=formats):
        return True
    return False


def below(folder: Path) -> Iterator[Path]:
    """The regular files below a folder, sorted; hidden files and folders are left out, links are followed once."""
    seen, found = set(), []
    for parent, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        real = os.path.realpath(parent)
        folders[:] = [] if real in seen else [name for name in folders if not is_hidden(name)]
        found += [] if real in seen else [Path(parent, name) for name in files if not is_hidden(name)]
        seen.add(real)
    return (path for path in sorted(found) if path.is_file())


def directly_in(folder: Path) -> list[Path]:
    """The regular files in a folder itself, sorted, without hidden ones; none if the folder does not exist."""
    if not folder.is_dir():
        return []
    return sorted(Path(entry) for entry in os.scandir(folder) if entry.is_file() and not is_hidden(entry.name))


def _refuse(error: OSError) -> None:
    raise UsageError(f"{printable(str(error.filename))}: {error.strerror}") from error


def in_folder(folder: Path, skipped: collections.Counter[str]) -> list[Path]:
    """The pictures below a folder, sorted; counts the other files in `skipped` by their suffix."""
    pictures = []
    for path in below(folder):
        if is_picture(path):
            pictures.append(path)
        else:
            skipped[path.suffix.lower() or path.name] += 1
    return pictures


def told(skipped: collections.Counter[str]) -> str:
    """ "; passed over: 3 .heic, 1 .txt", the commonest first, or "" for none."""
    named = [f"{count} {what}" for what, count in skipped.most_common(6)]
    return f"; passed over: {printable(', '.join(named))}" if named else ""


class Facts(NamedTuple):
    """What a picture file says of itself."""

    width: int
    height: int
    mode: str
    """Pillow's word for its channels: L is grey."""
    is_transparent: bool
    is_animated: bool
    """Whether it has more images than the first."""

    @property
    def is_grey(self) -> bool:
        return self.mode in ("1", "L", "LA", "La") or self.mode.startswith("I")


def facts(content: bytes) -> Facts:
    """What the header of a picture file says. Raises Unreadable."""
    with _refusing():
        image = _opened(content, decodes=False)
        return Facts(*image.size, image.mode, image.has_transparency_data, getattr(image, "is_animated", False))


def opened(content: bytes, upright: bool = True) -> Image.Image:
    """The first image of a picture file, decoded; `upright` turns it as its EXIF tag says. Raises Unreadable."""
    with _refusing():
        image = _opened(content, decodes=True)
        turn = _TURNS.get(_orientation(image)) if upright else None
        return image if turn is None else image.transpose(turn)


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """Turns what Pillow raises into Unreadable. Its decoders raise any type for bytes that are no whole image."""
    try:
        yield
    except (MemoryError, Unreadable):
        raise
    except UnidentifiedImageError as error:
        raise Unreadable("no format that Pillow reads") from error
    except Exception as error:
        raise Unreadable(reason(error)) from error


def _orientation(image: Image.Image) -> int | None:
    """The EXIF tag of that name. Pixels may be whole where the tags are not."""
    with contextlib.suppress(Exception):
        return image.getexif().get(ExifTags.Base.Orientation)
    return None


def _opened(content: bytes, decodes: bool) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(content), formats=_formats())
        if decodes:
            image.load()
        return image
    except ValueError:  # Pillow refuses texts of more than 1 MB, which programs that draw put into a PNG
        bare = _without_texts(content) if content.startswith(_PNG) else content
        if bare == content:
            raise
        return _opened(bare, decodes)


def _without_texts(png: bytes) -> bytes:
    """The PNG without what is no pixel. A chunk is its length, its name, its content and a checksum of 4 bytes."""
    kept, start = [png[:8]], 8
    while start + 8 <= len(png):
        end = start + 12 + int.from_bytes(png[start : start + 4], "big")
        if png[start + 4 : start + 8] not in _TEXTS:
            kept.append(png[start:end])
        start = end
    return b"".join(kept)


@_refusing()
def in_mode(image: Image.Image, channels: int, background: str = "black") -> Image.Image:
    """The image with 1 (grey), 3 (RGB) or 4 (RGB and opacity) channels; with fewer than 4, nothing is transparent.

    Transparency is composed on `background`; of 16-bit grey the upper 8 bits stay. Raises Unreadable for floats,
    for whole numbers beyond 16 bits, and for colours that Pillow cannot convert.
    """
    if image.mode == "F":
        raise Unreadable("its pixels are floats, whose range no rule tells")
    if image.mode.startswith("I"):  # Pillow's own conversion from 16 bits clips at 255
        levels = np.asarray(image)  # of 16 or 32 bits
        if levels.min() < 0 or levels.max() >= 2**16:
            raise Unreadable("its pixels are whole numbers beyond 0 to 65535, whose range no rule tells")
        image = Image.fromarray((levels.astype(np.uint16) >> 8).astype(np.uint8))
    if channels == 4:
        return image.convert("RGBA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
    return image.convert("L" if channels == 1 else "RGB")
