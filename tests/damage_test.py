"""The judgement of benchmarks.damage: it finds what must not be, and does not blame what is right."""

import os

import pytest

from benchmarks import damage
from benchmarks.damage import HANG, REFUSED, SILENT, SURVIVED, TRACEBACK, Result

WHOLE = {"images": "abc", "curves": {"train/d_loss": [[0.1, 1.0], [0.2, 2.0]]}}
SHORTER = {"images": "abc", "curves": {"train/d_loss": [[0.2, 2.0]]}}
ANOTHER = {"images": "abd", "curves": {}}


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        (Result(0, "done", WHOLE), SURVIVED),
        (Result(0, "", SHORTER), SURVIVED),
        (Result(0, "", ANOTHER), SILENT),
        (Result(0, "", {**WHOLE, "curves": {"train/d_loss": [[0.2, 2.5]]}}), SILENT),
        (Result(0, "warning: 20 is damaged; looking for an older one", ANOTHER), SURVIVED),
        (Result(2, "cgan: error: config.json cannot be read", None), REFUSED),
        (Result(2, "cgan: error: one\ncgan: error: two", None), TRACEBACK),
        (Result(2, "", None), TRACEBACK),
        (Result(None, "Traceback (most recent call last):", None), TRACEBACK),
        (Result(0, "Traceback (most recent call last):", WHOLE), TRACEBACK),
        (Result(3, "cgan: error: a guard", None), TRACEBACK),
        (None, HANG),
    ],
)
def test_outcomes(result, outcome):
    assert damage.judged(result, WHOLE) == outcome


def test_each_damage_changes_the_file(tmp_path):
    for name, harm in damage.DAMAGES.items():
        path = tmp_path / name
        path.write_bytes(b"content")
        harm(path)
        is_regular = path.is_file() and not path.is_symlink()
        assert not is_regular or path.read_bytes() != b"content", name
    assert sorted(os.listdir(tmp_path)) == sorted({*damage.DAMAGES} - {"deleted"})
