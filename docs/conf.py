"""How Sphinx builds these pages: sphinx-build -W -b html docs docs/_build."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # this checkout, not an installed version

import cgan_jax

project = "cgan_jax"
author = "the cgan_jax authors"
version = release = cgan_jax.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"cgan_jax {release}"

nb_execution_mode = "force"  # of the pages that are notebooks: those with a kernelspec
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 600  # seconds a cell
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # an included page may begin below the first level

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # signatures show the names; docstrings say shapes and types


def as_restructured_text(app, what, name, obj, options, lines: list[str]) -> None:
    """Docstrings here are plain text with `code`: indented blocks become literal, no other sign is markup."""
    if not lines or lines[0].startswith("Alias for field number"):  # of a NamedTuple
        lines.clear()
        return
    result = []
    for block in "\n".join(lines).strip("\n").split("\n\n"):
        first, *rest = block.split("\n")
        if first.startswith("    "):
            result += ["::", "", *block.split("\n"), ""]
            continue
        indented = next((number for number, line in enumerate(rest) if line.startswith("    ")), len(rest))
        result += [*_inline("\n".join([first, *rest[:indented]])).split("\n"), ""]
        if rest[indented:]:
            result += ["::", "", *_deeper(rest[indented:]), ""]
    lines[:] = result


def _deeper(lines: list[str]) -> list[str]:
    """A literal block whose every line is indented."""
    return lines if all(line.startswith("    ") for line in lines) else ["    " + line for line in lines]


def _inline(text: str) -> str:
    """`code` -> ``code``, whatever stands beside it; every other sign stands for itself."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        raise ValueError(f"a docstring has an odd number of backticks: {text}")
    for number in range(0, len(parts), 2):
        for sign in ("\\", "*", "|", "_"):
            parts[number] = parts[number].replace(sign, "\\" + sign)
    joined = parts[0]
    for code, after in zip(parts[1::2], parts[2::2], strict=False):
        before = "\\ " if joined[-1:].isalnum() else ""
        joined += f"{before}``{code}``" + ("\\ " if after[:1].isalnum() else "") + after
    return joined


def setup(app) -> None:
    app.connect("autodoc-process-docstring", as_restructured_text)
