"""The board: image quality per minute of training. Trains a recipe for so many minutes, scores it and adds a row.

    python -m benchmarks.board --recipe=cifar10_cpu --minutes=10 --seeds=0,1,2 --folder=runs/board
    python -m benchmarks.board --images=keras.npz --recipe="Keras's classic" --minutes=10
    python -m benchmarks.board                # writes the table of benchmarks/board.md anew

Only training counts, not the start, the compilation or the scores. On a machine with other work the clock measures that
work too: --images_per_sec=145, measured by `cgan benchmark` while nothing else runs, trains the images that so many
minutes give. A run has the same bits at any speed. Each run is scored by 10,000 images of its averaged
generator against the training split, with the packaged classifier. All scores, per class too, go to board.jsonl. An
interrupted run resumes with the same command.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_ROWS, _PAGE = Path(__file__).with_name("board.jsonl"), Path(__file__).with_name("board.md")
_BEGIN, _END = "<!-- rows -->", "<!-- end of rows -->"
_SCORES = {
    "cfd10k_train": "cfd10k",
    "intra_cfd10k_train": "intra_cfd10k",
    "class_accuracy10k": "class accuracy",
    "cprecision10k_train": "precision",
    "crecall10k_train": "recall",
}
_NUM_IMAGES = 10_000
_FIRST_PAGE = f"""# The board: image quality per minute of training

CIFAR-10 after so many minutes of training, on two processor cores or the device that the row names. `python -m
benchmarks.board --help` adds a row.

- Only training counts, not start-up, compilation, pictures or scores.
- Scores compare 10,000 images with the training split (the JPEG copy of CIFAR-10), by the packaged classifier. `cfd` is
  not FID. The classifier sees the requested class in 90.4 % of 5,000 real test images.
- A recipe whose discriminator has seen a classifier is scored by another one: another network, trained apart. Such
  scores flatter it all the same ([measured](../docs/measurements.md#what-synthetic-images-are-good-for)).
- `±` is the standard deviation over seeds. Other machines and other loads give other rows: compare rows of one machine.
- [board.jsonl](board.jsonl) has every score, per class too, with protocol and command.

{_BEGIN}
{_END}

## What made a row better
"""


def trained(given: argparse.Namespace, seed: int, changes: list[str]) -> Path:
    """Trains the recipe for so many minutes, and returns the folder of the run."""
    run = given.folder / f"{given.name or Path(given.recipe).stem}_{given.minutes:g}min_seed{seed}"
    by_clock = not given.images_per_sec
    overrides = {
        "seed": seed,
        "train.max_minutes": given.minutes if by_clock else 0.0,
        "train.total_kimg": 1e6 if by_clock else 0.06 * given.minutes * given.images_per_sec,
        "train.log_kimg": 5.0,
        "train.sample_kimg": 1e6,
        "evaluate.metrics": "",
        "evaluate.keep_best": "",
        "checkpoint.every_kimg": 50.0,
    }
    flags = [f"--config.{name}={value}" for name, value in overrides.items()]
    _cgan("train", f"--config={given.recipe}", f"--workdir={run}", *flags, *changes)
    return run


def scored(to_score: list[str], out: Path) -> dict[str, Any]:
    """The scores and the protocol of a run or of images, as `cgan evaluate --json` writes them."""
    if not out.exists():
        _cgan("evaluate", *to_score, f"--json={out}")
    return json.loads(out.read_text())


def _cgan(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "cgan_jax", *arguments], check=True)


def machine() -> dict[str, Any]:
    """What the row says of the machine; a matrix product in float32 is its speed."""
    import jax

    from cgan_jax import parallel
    from cgan_jax.run.throughput import ceiling

    device, here = jax.devices()[0], Path(__file__).parent
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True)
    return {
        "date": f"{datetime.date.today()}",
        "commit": commit.stdout.strip(),
        "machine": device.device_kind if device.platform != "cpu" else f"{os.cpu_count()} cores, {_processor()}",
        "gflop_per_sec": round(max(ceiling(parallel.make_mesh(), "float32") for _ in range(3)) / 1e9),
        "versions": f"Python {platform.python_version()}, jax {jax.__version__}",
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def row(given: argparse.Namespace, changes: list[str]) -> dict[str, Any]:
    """A row of the board: trains and scores a run for each seed, or scores the images."""
    results, kimg, speed = [], [], []
    if given.images:
        results.append(scored([f"--images={given.images}", "--dataset=cifar10"], Path(f"{given.images}.scores.json")))
    for seed in [] if given.images else given.seeds.split(","):
        run = trained(given, int(seed), changes)
        results.append(scored([f"--workdir={run}", f"--num_images={_NUM_IMAGES}"], run / "board.json"))
        last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
        kimg.append(last["kimg"])
        speed.append(given.images_per_sec or 1000 * last["kimg"] / last["seconds"])
    names = results[0]["scores"]
    return {
        **machine(),
        "recipe": given.name or given.recipe,
        "minutes": given.minutes,
        "seeds": "" if given.images else given.seeds,
        "kimg": kimg,
        "images_per_sec": speed,
        "command": " ".join(["python -m benchmarks.board", *sys.argv[1:]]),
        "scores": {name: [value for result in results for value in result["scores"][name]] for name in names},
        "protocol": results[0]["protocol"],
    }


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The lines of the table: by minutes, then by cfd, the best first."""
    heads = [
        "minutes",
        "recipe",
        "seeds",
        *_SCORES.values(),
        "kimg",
        "images/s",
        "machine",
        "GFLOP/s",
        "date",
        "commit",
    ]
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for r in sorted(rows, key=lambda r: (r["minutes"], _mean(r["scores"]["cfd10k_train"]))):
        scores = [_shown(r["scores"].get(name, [])) for name in _SCORES]
        cells = [f"{r['minutes']:g}", r["recipe"], r["seeds"], *scores, _shown(r["kimg"]), _shown(r["images_per_sec"])]
        cells += [r["machine"], str(r["gflop_per_sec"]), r["date"], r["commit"]]
        yield f"| {' | '.join(cells)} |"


def _mean(values: list[float]) -> float:
    return statistics.fmean(values) if values else float("inf")


def _shown(values: list[float]) -> str:
    """Mean and standard deviation over seeds."""
    if not values:
        return ""
    shown = f"{_mean(values):,.0f}" if _mean(values) >= 1000 else f"{_mean(values):.3g}"
    return shown + (f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else "")


def write_page() -> None:
    """Puts the table of all rows between the marks of board.md; the text around it stays."""
    rows = [json.loads(line) for line in _ROWS.read_text().splitlines()]
    page = _PAGE.read_text() if _PAGE.exists() else _FIRST_PAGE
    before, _, rest = page.partition(_BEGIN)
    _PAGE.write_text("\n".join([before + _BEGIN, "", *table(rows), "", _END]) + rest.partition(_END)[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", help="a recipe's name or file; with --images what made them")
    parser.add_argument("--name", help="what the row is called, if flags of the recipe follow")
    parser.add_argument("--minutes", type=float, default=10.0, help="of training")
    parser.add_argument("--images_per_sec", type=float, default=0.0, help="train by this speed instead of the clock")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--folder", type=Path, default=Path("runs/board"), help="folder of the runs")
    parser.add_argument("--images", help="images to score instead of a run: .npz or a folder by class")
    given, changes = parser.parse_known_args()
    if given.recipe:
        with open(_ROWS, "a") as file:
            file.write(json.dumps(row(given, changes)) + "\n")
    write_page()


if __name__ == "__main__":
    main()
