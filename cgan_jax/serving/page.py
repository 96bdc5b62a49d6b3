"""The page of `cgan serve`: three files that lie beside this one, the first with what is served written into it.

It asks for nothing but this server: pictures travel as data, and fonts are the reader's own.
"""

import html
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

_SHOWN = 12  # scores


class File(NamedTuple):
    """What is sent for a path."""

    content: bytes
    kind: str


def build(title: str, about: Mapping[str, Any], class_names: Sequence[str], **told: Any) -> dict[str, File]:
    """{path: file} of the page of a model.

    `about` is shown at the top; `told` goes to the page's script: `conditional`, `has_report`, `most_images`.
    """
    data = json.dumps({"class_names": list(class_names), **told}, allow_nan=False)
    places = {
        "@TITLE@": html.escape(title),
        "@FACTS@": _facts(about),
        "@DATA@": data.replace("<", "\\u003c"),  # "<" begins tags: as an escape it is the same JSON and ends no script
    }
    # In one pass, so that a title which names another place is only text.
    text = re.sub("@[A-Z]+@", lambda place: places[place[0]], _read("page.html"))
    return {
        "/": File(text.encode(errors="backslashreplace"), "text/html"),
        "/page.js": File(_read("page.js").encode(), "text/javascript"),
        "/page.css": File(_read("page.css").encode(), "text/css"),
    }


def _facts(about: Mapping[str, Any]) -> str:
    """Which model and which step as a line, its scores as a list."""
    words = {"step": "step {}", "generator_weights": "{}", "architecture": "{}", "image_size": "{0} by {0} pixels"}
    line = " · ".join(html.escape(text.format(about[name])) for name, text in words.items() if name in about)
    scores = list(about.get("scores", {}).items())[:_SHOWN]
    if not scores:
        return f'<p class="faint">{line} · not scored at this step</p>'
    items = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(f'{value:.4g}')}</dd></div>" for name, value in scores
    )
    return f'<p class="faint">{line}</p><dl class="scores" aria-label="Scores at this step">{items}</dl>'


def _read(name: str) -> str:
    return resources.files("cgan_jax.serving").joinpath(name).read_text(encoding="utf-8")
