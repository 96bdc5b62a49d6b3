"""How Sphinx builds these pages: sphinx-build -W -b html docs docs/_build."""

import cgan_jax

project = "cgan_jax"
author = "the authors of cgan_jax"
version = release = cgan_jax.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"cgan_jax {release}"

nb_execution_mode = "off"  # pages show commands and results; nothing trains while they are built
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # an included page may begin below the first level

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # signatures show the names; docstrings say shapes and types


def as_restructured_text(app, what, name, obj, options, lines: list[str]) -> None:
    """Docstrings here are plain text with `code`: indented lines become literal blocks, and no sign is markup."""
    result, literal = [], False
    for line in lines:
        indented = line.startswith("    ")
        if indented and not literal:
            result += ["", "::", ""]
        if not indented and line.strip():
            if literal:
                result.append("")
            line = "``".join(_escaped(part) if number % 2 == 0 else part for number, part in enumerate(line.split("`")))
        literal = indented or (literal and not line.strip())
        result.append(line)
    lines[:] = result


def _escaped(text: str) -> str:
    for sign in ("\\", "*", "|", "_"):
        text = text.replace(sign, "\\" + sign)
    return text


def setup(app) -> None:
    app.connect("autodoc-process-docstring", as_restructured_text)
