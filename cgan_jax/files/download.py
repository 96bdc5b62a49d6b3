"""Files from the network, for the one command that fetches any: soon refused without one, whole or not there at all."""

import hashlib
import os
import threading
from pathlib import Path
from urllib.parse import urlsplit

from cgan_jax.errors import UsageError

_SECONDS_TO_REACH_A_HOST = 4.0  # of the 5 that a user is promised to wait at most
_SECONDS_OF_SILENCE = 60.0
_CHUNK = 1 << 20


def check_reachable(url: str, otherwise: str) -> None:
    """Asks for the head of a file. Raises UsageError, which ends with what to do `otherwise`, if no answer is in time.

    In a thread, since looking up a host's name knows no time limit. `requests`, since TFDS downloads with it: the same
    proxies and certificates apply.
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
    """Downloads the published file of that sum to `path`; until it is whole it has another name.

    Raises UsageError, which ends with what to do `otherwise`, and leaves `path` as it was, if anything goes wrong.
    """
    import requests

    check_reachable(url, otherwise)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        digest = _stream(url, partial)
        if digest != sha256:
            raise UsageError(f"{url} sent another file than the one published: its sha256 is {digest}; {otherwise}")
        partial.replace(path)
    except requests.RequestException as error:  # an OSError too, hence first
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"downloading {url} failed: {reason[:200]}; {otherwise}") from error
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


def _stream(url: str, path: Path) -> str:
    """Writes what the URL sends, with a bar on a terminal, and returns its sha256."""
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
