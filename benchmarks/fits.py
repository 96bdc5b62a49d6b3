"""Which recipes fit which devices, with what, and how fast they train there at most: the tables of docs/fits.md.

    python -m benchmarks.fits [--recipes=digits,cifar10_sngan] [--devices=v5e:1x1,h100] [--folder=fits] [--minutes=30]
    python -m benchmarks.fits --arithmetic

Nothing runs on a device: `cgan benchmark --topology` compiles each pair in a separate process. A pair that does not
fit is tried again with rematerialisation, then with the batch in parts, as the command advises. Results stay in the
folder as JSON, so that a run that is cut off goes on. A compilation of more than `--minutes` is left out until its file
is deleted. With --arithmetic nothing is compiled: the table has the hours of one device at its datasheet's peak.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from cgan_jax import recipe_files
from cgan_jax.evaluation import topology
from cgan_jax.run.devices import DEVICES as DATASHEETS

DEVICES = ("v5e:1x1", "v5e:2x4", "v5p:1x1x1", "v6e:1x1", "h100", "a100", "rtx4090", "l4")
_MOST_PARTS = 16


def predicted(recipe: str, device: str, folder: Path, minutes: float) -> dict:
    """What the command says of the first variant that fits, or of the last one; {} if it took too long."""
    flags: list[str] = []
    while True:
        numbers = _of_variant(recipe, device, flags, folder, minutes)
        nearer = [line for line in numbers.get("advice", []) if "remat=" in line or "accumulate=" in line]
        if not nearer or f"accumulate={2 * _MOST_PARTS}" in nearer[0]:
            return {**numbers, "flags": flags}
        flags = [flag for flag in flags if "accumulate=" not in flag] + nearer[0].split()


def _of_variant(recipe: str, device: str, flags: list[str], folder: Path, minutes: float) -> dict:
    name = "_".join([recipe, device.replace(":", "-"), *(flag.removeprefix("--config.") for flag in flags)])
    path = folder / f"{name}.json"
    if not path.exists():
        command = [
            sys.executable,
            "-m",
            "cgan_jax",
            "benchmark",
            f"--config={recipe}",
            f"--topology={device}",
            "--json",
        ]
        try:
            done = subprocess.run([*command, *flags], capture_output=True, text=True, timeout=60 * minutes)
        except subprocess.TimeoutExpired:
            path.write_text(json.dumps({"left_out": f"longer than {minutes:g} minutes to compile"}))
            return json.loads(path.read_text())
        if done.returncode:
            print(f"{name}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            return {}
        path.write_text(done.stdout)
    return json.loads(path.read_text())


def row(recipe: str, device: str, numbers: dict) -> str:
    """A line of the table. The price of a device's hour is for the reader to fill in."""
    if "memory_gigabytes" not in numbers:
        return f"| `{recipe}` | {device} | not compiled: {numbers.get('left_out', 'see the error')} | | | | | |"
    memory, kimg = numbers["memory_gigabytes"], recipe_files.load(recipe).train.total_kimg
    peak = "" if memory["peak"] is None else f"{memory['peak']:.2g} of {memory['device'] * memory['share']:.0f} GB"
    how = " ".join(f"`{flag.removeprefix('--config.')}`" for flag in numbers["flags"]) or "as it is"
    if not numbers["fits"] or "bound" not in numbers:
        return f"| `{recipe}` | {device} | does not fit, tried {how} | {peak} | | | | |"
    speed = numbers["images_per_sec"][numbers["bound"]]
    hours = numbers["devices"] * 1000 * kimg / speed / 3600
    return f"| `{recipe}` | {device} | {how} | {peak} | {speed:,.0f} | {numbers['bound']} | {_rounded(hours)} | |"


def arithmetic_row(recipe: str) -> str:
    """A line of the table of hours at the peak."""
    train = recipe_files.load(recipe).train
    flop, dtype = topology.arithmetic(recipe_files.load(recipe).to_dict())
    hours = [1000 * train.total_kimg * flop / device.peak(dtype) / 3600 for device in DATASHEETS.values()]
    return f"| `{recipe}` | {train.total_kimg:,.0f} | {flop / 1e9:.3g} | {dtype} | {' | '.join(map(_rounded, hours))} |"


def _rounded(hours: float) -> str:
    return "< 0.001" if hours < 0.001 else f"{float(f'{hours:.2g}'):g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = sorted(path.stem for path in Path("configs").glob("*.py") if path.stem != "images")  # which needs a folder
    parser.add_argument("--recipes", default=",".join(names))
    parser.add_argument("--devices", default=",".join(DEVICES))
    parser.add_argument("--folder", type=Path, default=Path("fits"))
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--arithmetic", action="store_true")
    given = parser.parse_args()
    if given.arithmetic:
        print(f"| recipe | kimg | GFLOP an image | dtype | {' | '.join(DATASHEETS)} |")
        print(f"|---|---|---|---|{'---|' * len(DATASHEETS)}")
        for recipe in given.recipes.split(","):
            print(arithmetic_row(recipe), flush=True)
        return
    given.folder.mkdir(parents=True, exist_ok=True)
    print("| recipe | devices | fits | peak memory of a device | images/s at most | bound by | device hours | price |")
    print("|---|---|---|---|---|---|---|---|")
    for recipe in given.recipes.split(","):
        for device in given.devices.split(","):
            numbers = predicted(recipe, device, given.folder, given.minutes)
            print(row(recipe, device, numbers), flush=True)


if __name__ == "__main__":
    main()
