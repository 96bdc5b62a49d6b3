"""What a user may ask of a model: classes, a number of images, a checkpoint, a truncation."""

import difflib
from collections.abc import Sequence

import numpy as np

from cgan_jax.errors import UsageError
from cgan_jax.names import listed

_MOST_DIGITS = 19  # for thousands of them int() raises another error


def spread(num_images: int, labels: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """`num_images` shared evenly, the first labels get the remainder: (labels [N], index within the class [N])."""
    share, rest = divmod(num_images, len(labels))
    counts = [share + (place < rest) for place in range(len(labels))]
    return (
        np.repeat(np.asarray(labels, np.int32), counts),
        np.concatenate([np.arange(count, dtype=np.int32) for count in counts]),
    )


def uncovered(num_images: int, labels: list[int], num_classes: int) -> str:
    """A note for more classes than images, of which the last get none; "" if every class gets an image."""
    if num_images >= len(labels):
        return ""
    whole = "all" if len(labels) == num_classes else "the"
    return f"note: {num_images} images cover the first {num_images} of {whole} {len(labels)} classes"


def parse_step(text: str | None) -> int | str | None:
    """ "1500" -> 1500; "best" and None, the latest, stay. Raises UsageError for anything else."""
    if text is None or text == "best":
        return text
    if not text.isdecimal() or len(text) > _MOST_DIGITS:
        raise UsageError(f"--step must be a generator step or best, given {text[:40]!r}")
    return int(text)


def parse_truncation(number: float | None) -> float | None:
    """The number, or None for no truncation. Raises UsageError for a number that is not above 0."""
    if number is not None and not 0 < number < float("inf"):
        raise UsageError(f"--truncation must be a number above 0, such as 0.7, given {number}")
    return number


def parse_labels(text: str, class_names: Sequence[str]) -> list[int]:
    """ "cat,Dog", "3,#7" or "all" -> class ids in this order. Raises UsageError for an unknown or a repeated class.

    A name wins over a number: "3" is the class called 3 if there is one, "#3" is always class number 3. A name may
    hold commas.
    """
    if text.strip().lower() == "all":
        return list(range(len(class_names)))
    labels: list[int] = []
    for word in listed(text, class_names):
        label = _label(word, class_names)
        if label in labels:
            raise UsageError(f"class {word.lower()!r} is asked for twice")
        labels.append(label)
    return labels


def _label(word: str, class_names: Sequence[str]) -> int:
    """The class id of a name, in any case, or of a number with or without "#"."""
    for name, names in ((word, list(class_names)), (word.lower(), [name.lower() for name in class_names])):
        if names.count(name) == 1:
            return names.index(name)
        if name in names:
            bearers = ", ".join(f"#{label}" for label, other in enumerate(names) if other == name)
            raise UsageError(f"several classes are named {name!r}; give a number: {bearers}")
    digits = word.removeprefix("#")
    if digits.isdecimal() and len(digits) <= _MOST_DIGITS and int(digits) < len(class_names):
        return int(digits)
    if list(class_names) == [str(label) for label in range(len(class_names))]:
        raise UsageError(f"unknown class {word!r}; there are {len(class_names)}: 0 to {len(class_names) - 1}")
    known = ", ".join(f"{label} {name}" for label, name in enumerate(class_names[:20]))
    more = f" and {len(class_names) - 20} more" if len(class_names) > 20 else ""
    close = difflib.get_close_matches(word.lower(), [name.lower() for name in class_names], n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    raise UsageError(f"unknown class {word.lower()!r}; there are {len(class_names)}: {known}{more}{hint}")
