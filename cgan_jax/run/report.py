"""The report of one run or several: one HTML page that needs no network.

`collect` reads only the files of a run, so it also works while the run trains or after a crash. `page` puts the
collected data into report_page.html, whose script draws them.
"""

import base64
import datetime
import io
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from cgan_jax import __version__
from cgan_jax import recipe as recipes
from cgan_jax.data.pictures import Unreadable, facts, in_mode, opened
from cgan_jax.files import storage
from cgan_jax.run import recovery, workdir

_POINTS = 500  # per curve; a screen cannot show more
_PICTURES = 40  # per run
_PICTURE_BYTES = 3_000_000  # all runs together
_PLACE = "@REPORT@"
_PIXELS = 1 << 25  # of a picture; a larger one is not a grid that training drew
_KIMG = re.compile(r"kimg_([0-9]+(?:\.[0-9]+)?)\.png")


def page(workdirs: Sequence[Path]) -> str:
    """The HTML report of the runs in `workdirs`. Raises UsageError if one holds no run."""
    share = _PICTURE_BYTES // len(workdirs)
    report = {
        "version": __version__,
        "written": datetime.datetime.now().astimezone().isoformat(timespec="minutes"),
        "runs": [collect(path, name, share) for path, name in zip(workdirs, _names(workdirs), strict=True)],
    }
    # JSON inside <script> must not contain "</script>", so escape every "<".
    text = json.dumps(_finite(report), allow_nan=False).replace("<", "\\u003c")
    shell = resources.files("cgan_jax.run").joinpath("report_page.html").read_text(encoding="utf-8")
    return shell.replace(_PLACE, text)


def collect(path: Path, name: str, picture_bytes: int) -> dict[str, Any]:
    """The data of one run for the page, as JSON without NaN. Raises UsageError if `path` holds no run."""
    info = workdir.read_info(path)
    history, evaluations = workdir.read_metrics(path), workdir.read_metrics(path, workdir.EVALUATIONS)
    last = (history or [{"step": 0, "kimg": 0.0, "seconds": 0.0}])[-1]
    total_kimg = info.recipe["train"]["total_kimg"]
    protocol = (evaluations or [{}])[-1].get("protocol", {})
    return {
        "name": name,
        "status": _status(path, last, info.recipe["train"]),
        "step": last["step"],
        "kimg": last["kimg"],
        "total_kimg": total_kimg,
        "seconds": last["seconds"],
        "num_images": info.num_images,
        "class_names": info.class_names,
        "curves": {
            **curves(history, "train/"),
            **curves(history, "time/"),
            **curves(comparable(evaluations), "eval/"),
        },
        "protocol": {key: _leaf(value) for key, value in protocol.items()},
        "recipe": {key: _leaf(value) for key, value in recipes.flattened(info.recipe)},
        "environment": workdir.read_environments(path)[-1:],
        "rollbacks": recovery.rollbacks(path),
        "real": _encoded(path / "samples" / "real.png"),
        "pictures": pictures(path / "samples", picture_bytes),
    }


def curves(lines: Sequence[Mapping[str, Any]], prefix: str) -> dict[str, list[list[float]]]:
    """{scalar: [[kimg, value], ...]} of the scalars whose names begin with `prefix`, at most 500 points each.

    A longer curve is averaged over groups of neighbours. The last of several values at one kimg counts. Values that
    are not finite are dropped.
    """
    found: dict[str, dict[float, float]] = {}
    for line in lines:
        for name, value in line.items():
            if name.startswith(prefix) and isinstance(value, int | float) and np.isfinite(value):
                found.setdefault(name, {})[line["kimg"]] = value
    return {name: _thinned([list(point) for point in sorted(points.items())]) for name, points in found.items()}


def comparable(evaluations: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The evaluations made with the last one's feature network, or with none.

    Numbers of two networks cannot be compared in one curve.
    """
    networks = [line.get("protocol", {}).get("weights_sha256") for line in evaluations]
    last = [network for network in networks if network][-1:]
    return [line for line, its in zip(evaluations, networks, strict=True) if its is None or [its] == last]


def _thinned(points: list[list[float]]) -> list[list[float]]:
    if len(points) <= _POINTS:
        return points
    parts = np.array_split(np.asarray(points), _POINTS)
    return [[float(f"{number:.6g}") for number in part.mean(axis=0)] for part in parts]


def grids_in(folder: Path) -> list[tuple[float, Path]]:
    """(kimg, path) of the grids drawn during training, in their order. The names alone do not sort: 13, 13.312, 60."""
    found = ((_KIMG.fullmatch(path.name), path) for path in folder.glob("*.png"))
    return sorted((float(match[1]), path) for match, path in found if match)


def pictures(folder: Path, most_bytes: int) -> list[dict[str, Any]]:
    """[{kimg, src}] of the grids drawn during training, evenly spaced, with the first and the last.

    Returns fewer if they have more than `most_bytes` together.
    """
    found = grids_in(folder)
    number = min(len(found), _PICTURES)
    while number:
        places = np.unique(np.linspace(0, len(found) - 1, number).round().astype(int))
        chosen = [{"kimg": found[i][0], "src": _encoded(found[i][1])} for i in places]
        if number == 1 or sum(len(picture["src"]) for picture in chosen) <= most_bytes:
            return [picture for picture in chosen if picture["src"]]
        number = max(1, number // 2)
    return []


def _encoded(path: Path) -> str:
    """A picture as a data URL, or "" if it cannot be read (after a kill, or while it is being written)."""
    buffer = io.BytesIO()
    try:
        content = storage.read_bytes(path)
        seen = facts(content)
        if seen.width * seen.height > _PIXELS:
            return ""
        in_mode(opened(content), channels=3).save(buffer, format="WEBP", quality=80)
    except (OSError, Unreadable):
        return ""
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _status(path: Path, last: Mapping[str, float], section: Mapping[str, Any]) -> str:
    if workdir.is_locked(path):
        return "training"
    return "finished" if workdir.is_at_end(last, section) else "stopped"


def _finite(value: Any) -> Any:
    """The value with None for every number in it that is not finite, for which JSON has no word."""
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _leaf(value: Any) -> Any:
    return value if isinstance(value, str | bool | int | float) else json.dumps(value)


def _names(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    parts = [storage.resolved(path).parts for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]
