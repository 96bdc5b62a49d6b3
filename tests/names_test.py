"""Names of others: equal if they look equal, harmless in a terminal, and found again as they were printed."""

import unicodedata

import pytest

from cgan_jax.names import listed, on_disk, printable
from cgan_jax.sampling.request import parse_labels


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("big dog, salt", "big dog, salt"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\u202egnp", r"\u202egnp"),
        ("zero\u2028line", r"zero\u2028line"),
        ("\udce9t\udce9", r"\udce9t\udce9"),  # a file name that is no UTF-8
        ("犬 é ß", "犬 é ß"),
    ],
)
def test_what_a_terminal_obeys_is_escaped(name, shown):
    assert printable(name) == shown == printable(shown)
    assert shown.encode() and (shown.isprintable() or name == shown)


def test_composed_and_decomposed_names_are_one():
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert composed != decomposed and printable(composed) == printable(decomposed)
    assert parse_labels(decomposed, ["tea", printable(decomposed)]) == parse_labels(composed, ["tea", composed]) == [1]


def test_a_path_is_found_however_it_is_composed(tmp_path):
    composed, decomposed = (tmp_path / unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert on_disk(composed) == composed, "there is neither"
    decomposed.mkdir()
    assert on_disk(composed) == on_disk(decomposed) == decomposed
    composed.mkdir()
    assert on_disk(composed) == composed


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cat,dog", ["cat", "dog"]),
        ("salt, pepper", ["salt, pepper"]),
        ("cat, Salt, Pepper ,dog", ["cat", "Salt, Pepper", "dog"]),
        ("salt,cat", ["salt", "cat"]),
        ("a\nb", [r"a\nb"]),
        (r"a\nb", [r"a\nb"]),
        ("", [""]),
        ("x,,y", ["x", "", "y"]),
    ],
)
def test_a_comma_inside_of_a_name_separates_nothing(text, words):
    assert listed(text, ["cat", "dog", "salt, pepper", r"a\nb"]) == words
