"""Files from the network, for `cgan prepare-data`: without a network refused in 5 s, else whole or not at all."""

import hashlib
import threading
from pathlib import Path
from urllib.parse import urlsplit

from cgan_jax.errors import UsageError
from cgan_jax.files.storage import reason, replacing

_SECONDS_TO_REACH_A_HOST = 4.0  # of the 5 that a user is promised to wait at most
_SECONDS_OF_SILENCE = 60.0
_CHUNK = 1 << 20


def check_reachable(url: str, otherwise: str) -> None:
    """Asks for the head of a file. Raises UsageError, which ends with what to do `otherwise`, if no answer is in time.

    A daemon thread asks, because looking up a host's name has no time limit. TFDS downloads with `requests` too, so the
    same proxies and certificates apply.
    """
    import requests

    outcome: list[str] = []

    def ask() -> None:
        try:
            status = requests.head(url, timeout=_SECONDS_TO_REACH_A_HOST, allow_redirects=True).status_code
            outcome.append(f"it answered {status}" if status >= 500 else "")
        except requests.RequestException as error:
            outcome.append(type(error).__name__)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_SECONDS_TO_REACH_A_HOST)
    problem = outcome[0] if outcome else f"no answer in {_SECONDS_TO_REACH_A_HOST:.0f} seconds"
    if problem:
        raise UsageError(f"cannot reach {urlsplit(url).netloc} ({problem}); {otherwise}")


def fetch(url: str, path: Path, sha256: str, otherwise: str) -> None:
    """Downloads the published file with this sum; it gets the name `path` when it is whole.

    If anything goes wrong, leaves `path` as it was and raises UsageError, which ends with what to do `otherwise`.
    """
    import requests

    check_reachable(url, otherwise)
    try:
        with replacing(path) as partial:
            digest = _stream(url, partial)
            if digest != sha256:
                raise UsageError(f"{url} sent another file than the one published: its sha256 is {digest}; {otherwise}")
    except requests.RequestException as error:  # an OSError too, hence first
        raise UsageError(f"downloading {url} failed: {reason(error)}; {otherwise}") from error
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error


def _stream(url: str, path: Path) -> str:
    """Writes what the URL sends and returns its sha256; shows a bar on a terminal."""
    import requests
    from tqdm import tqdm

    digest = hashlib.sha256()
    with requests.get(url, stream=True, timeout=(_SECONDS_TO_REACH_A_HOST, _SECONDS_OF_SILENCE)) as response:
        response.raise_for_status()
        total = int(response.headers.get("Content-Length", 0)) or None
        with path.open("wb") as file, tqdm(total=total, unit="B", unit_scale=True, disable=None) as bar:
            for chunk in response.iter_content(_CHUNK):
                file.write(chunk)
                digest.update(chunk)
                bar.update(len(chunk))
    return digest.hexdigest()
