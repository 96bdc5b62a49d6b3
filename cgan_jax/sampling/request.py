"""What a user may ask of a model: classes, a number of images, a checkpoint, a truncation."""

from collections.abc import Sequence

import numpy as np

from cgan_jax.errors import UsageError


def spread(num_images: int, labels: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """`num_images` shared evenly, the first labels get the remainder: (labels [N], index within the class [N])."""
    share, rest = divmod(num_images, len(labels))
    counts = [share + (place < rest) for place in range(len(labels))]
    return (
        np.repeat(np.asarray(labels, np.int32), counts),
        np.concatenate([np.arange(count, dtype=np.int32) for count in counts]),
    )


def parse_step(text: str | None) -> int | str | None:
    """ "1500" -> 1500; "best" and None, the latest, stay. Raises UsageError for anything else."""
    if text is None or text == "best":
        return text
    if not text.isdecimal():
        raise UsageError(f"--step must be a generator step or best, given {text!r}")
    return int(text)


def parse_truncation(number: float | None) -> float | None:
    """The number, or None for no truncation. Raises UsageError for a number that is not above 0."""
    if number is not None and not 0 < number < float("inf"):
        raise UsageError(f"--truncation must be a number above 0, such as 0.7, given {number}")
    return number


def parse_labels(text: str, class_names: Sequence[str]) -> list[int]:
    """ "3,7", "cat,Dog" or "all" -> class ids in this order. Raises UsageError for an unknown or a repeated class."""
    if text.strip().lower() == "all":
        return list(range(len(class_names)))
    names = [name.lower() for name in class_names]
    labels = []
    for word in (word.strip().lower() for word in text.split(",")):
        # int() raises another error for thousands of digits.
        if word.isdecimal() and len(word) < 20 and int(word) < len(class_names):
            label = int(word)
            if word in names and names.index(word) != label:
                raise UsageError(
                    f"{word} is the number of class {class_names[label]!r} and the name of class {names.index(word)};"
                    f" rename the classes, or take all"
                )
        elif names.count(word) > 1:
            bearers = ", ".join(str(label) for label, name in enumerate(names) if name == word)
            raise UsageError(f"several classes are named {word!r}; give a number: {bearers}")
        elif word in names:
            label = names.index(word)
        else:
            known = ", ".join(f"{label} {name}" for label, name in enumerate(class_names[:20]))
            more = f" and {len(class_names) - 20} more" if len(class_names) > 20 else ""
            raise UsageError(f"unknown class {word!r}; there are: {known}{more}")
        if label in labels:
            raise UsageError(f"class {word!r} is asked for twice")
        labels.append(label)
    return labels
