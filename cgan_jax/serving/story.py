"""The report of a run that is served: written anew where the run's files have changed, and not otherwise."""

import base64
import contextlib
import hashlib
import re
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import NamedTuple

from cgan_jax.files import storage
from cgan_jax.run import workdir

_LOGS = (workdir.METRICS, workdir.EVALUATIONS, workdir.ENVIRONMENTS, workdir.ROLLBACKS)


class Page(NamedTuple):
    """A page with a policy that lets its own script and style run, and no other."""

    content: bytes
    policy: str


class Story:
    """The report of a run, kept until its files change."""

    def __init__(self, run: Path, write: Callable[[], str]):
        """`write` makes the page from the files in `run`."""
        self._run, self._write = run, write
        self._key: Hashable = None
        self._page: Page | None = None

    def page(self) -> Page:
        """The page of today's files. Raises what `write` raises."""
        key = state_of(self._run)
        if self._page is None or key != self._key:
            text = self._write()
            self._page, self._key = Page(text.encode(), policy(text)), key
        return self._page


def state_of(run: Path) -> Hashable:
    """Differs where the names, sizes or times of a run's logs or pictures do, or whether it is being trained."""
    return tuple(_marks(run)), workdir.is_locked(run)


def _marks(run: Path) -> list[tuple[str, int, int]]:
    pictures = [run / "samples" / name for name in storage.files_below(run / "samples")]
    found = []
    for path in [*(run / name for name in (workdir.CONFIG, *_LOGS)), *pictures]:
        with contextlib.suppress(OSError):
            about = path.stat()
            # The words of a bucket's objects, and of files.
            marks = (about.length, about.mtime) if storage.is_remote(run) else (about.st_size, about.st_mtime_ns)
            found.append((path.name, *marks))
    return found


def policy(text: str) -> str:
    """The Content-Security-Policy of a report: its last script and its first style by their sums.

    What a run's files say stands before that script, as data. Were there a script among it, it would not be run.
    """
    script = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)[-1:]
    style = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)[:1]
    return "; ".join(
        [
            "default-src 'none'",
            "img-src data:",
            f"script-src {_sum(script)}",
            f"style-src {_sum(style)}",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'self'",
            "sandbox allow-scripts",
        ]
    )


def _sum(texts: list[str]) -> str:
    if not texts:
        return "'none'"
    return f"'sha256-{base64.b64encode(hashlib.sha256(texts[0].encode()).digest()).decode()}'"
