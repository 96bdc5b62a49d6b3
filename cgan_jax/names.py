"""Names that others chose, of classes and files: comparable, and safe to print, to draw and to ask for."""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

# Controls, lone surrogates, and what changes the line or the direction of the text around it.
_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def printable(name: str) -> str:
    r"""The name, composed (NFC), with an escape such as \n or \u202e for each character that a terminal obeys.

    Names that differ in composition alone become equal. A second pass changes nothing.
    """
    return _OBEYED.sub(lambda match: ascii(match[0])[1:-1], unicodedata.normalize("NFC", name))


def on_disk(path: Path) -> Path:
    """The path, or the one that exists and differs in composition alone: macOS decomposes names, keyboards do not."""
    spelled = (Path(unicodedata.normalize(form, str(path))) for form in ("NFD", "NFC"))
    return path if path.exists() else next((other for other in spelled if other.exists()), path)


def listed(text: str, names: Iterable[str]) -> list[str]:
    """The words of "cat, dog", printable. A comma inside one of `names`, in any case, separates nothing."""
    known = {name.lower() for name in names}
    most = 1 + max((name.count(",") for name in known), default=0)
    parts, words = printable(text).split(","), []
    while parts:
        joined = [",".join(parts[:count]).strip() for count in range(1, min(most, len(parts)) + 1)]
        count = max((i for i, word in enumerate(joined, 1) if word.lower() in known), default=1)
        words.append(joined[count - 1])
        del parts[:count]
    return words
