"""JSON that others may have written or damaged, and JSON objects that carry their own checksum."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SEAL = "sha256"
"""The name of an object's checksum."""


def parsed(text: str) -> Any:
    """The value of a JSON text. Raises ValueError, in one line, for any other text."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def sealed(fields: Mapping[str, Any], indent: int | None = None) -> str:
    """A JSON object of the fields and, last, the checksum of all of them."""
    return json.dumps({**fields, SEAL: _sha256(fields)}, indent=indent)


def unsealed(text: str) -> tuple[dict[str, Any], bool]:
    """(the fields of a JSON object, whether a checksum confirms them); version 0.1 wrote none.

    Raises ValueError if it is no JSON object, and SealBroken if the checksum is of other fields.
    """
    fields = parsed(text)
    if not isinstance(fields, dict):
        raise ValueError("it is no JSON object")
    if SEAL not in fields:
        return fields, False
    seal = fields.pop(SEAL)
    if seal != _sha256(fields):
        raise SealBroken(f"its {SEAL} is of other content")
    return fields, True


class SealBroken(ValueError):
    """The content is not that which was written."""


def _sha256(fields: Mapping[str, Any]) -> str:
    """The checksum of the values: spaces and line breaks do not count."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
