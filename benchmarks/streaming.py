"""Decode more images than memory holds, and stream them: `python -m benchmarks.streaming --folder=FOLDER`.

Writes made-up JPEGs, decodes them as `cgan train --config.dataset.placement=stream` does, and draws batches of random
rows from the file, with the loop's thread and without a network. It prints seconds, images a second, and the most
memory that the process held. Then it sleeps between calls as long as devices of some speed would compute, and prints
how long each call waited for its images. Run it where the memory is limited, with the page cache in it:

    systemd-run --scope -p MemoryMax=1G python -m benchmarks.streaming --folder=FOLDER --gigabytes=3
"""

import argparse
import io
import itertools
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
from PIL import Image

from cgan_jax.data import placement, sources
from cgan_jax.data.batches import Data, order_key, rows
from cgan_jax.parallel import PRNG, make_mesh

_KINDS, _CLASSES = 500, 10


def make(folder: Path, count: int, side: int) -> None:
    """`count` JPEGs in class folders: noise over gradients, 500 different ones."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 200, side)[:, None, None]
    contents = []
    for kind in range(_KINDS):
        pixels = (np.roll(ramp, kind, axis=kind % 2) + rng.integers(0, 40, (side, side, 3))).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=80)
        contents.append(file.getvalue())
    for label in range(_CLASSES):
        (folder / f"class{label}").mkdir(parents=True, exist_ok=True)
    for i in range(count):
        (folder / f"class{i % _CLASSES}" / f"{i:07d}.jpg").write_bytes(contents[i % _KINDS])


def waits(feed: Iterator[Any], calls: int, images: int, images_per_sec: float) -> None:
    """Draws from the feed behind pauses, as a loop does whose devices train that many images a second."""
    waited = []
    for _ in range(calls):
        time.sleep(images / images_per_sec)
        began = time.perf_counter()
        next(feed).images.block_until_ready()
        waited.append(time.perf_counter() - began)
    share = sum(waited) / (sum(waited) + calls * images / images_per_sec)
    middle, most = 1000 * float(np.median(waited)), 1000 * max(waited)
    print(
        f"devices of {images_per_sec:,.0f} images/s: a call waits {middle:.1f} ms (median), {most:.1f} ms (most),"
        f" {100 * share:.1f} % of the time",
        flush=True,
    )


def told(what: str, began: float, images: int) -> None:
    seconds, most = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{what}: {seconds:.1f} s, {images / seconds:,.0f} images/s; most memory so far {most:.2f} GiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--gigabytes", type=float, default=3.0, help="of decoded images")
    parser.add_argument("--side", type=int, default=128, help="of an image, in pixels")
    parser.add_argument("--speeds", type=float, nargs="*", default=[1000, 2000], help="of devices, in images/s")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--batches", type=int, default=500)
    options = parser.parse_args()
    os.environ["CGAN_CACHE_DIR"] = str(options.folder / "cache")
    count = int(options.gigabytes * 1e9 / (options.side**2 * 3))
    began = time.perf_counter()
    if not (options.folder / "pictures").exists():
        make(options.folder / "pictures", count, options.side)
        told("written", began, count)
    section = {"source": "images", "name": "", "split": "train", "image_size": options.side, "placement": "stream"}
    for start in ("first", "second"):
        began = time.perf_counter()
        dataset = sources.load_section(section | {"data_dir": str(options.folder / "pictures")})
        told(f"{start} start", began, len(dataset.labels))
    mesh, size, key = make_mesh(jax.devices()[:1]), options.batch_size, jax.random.key(0, impl=PRNG)

    def draws(epoch, key, step):
        drawn = jax.vmap(lambda index: rows(order_key(key), index, size, epoch))(step + np.arange(2, dtype=np.int32))
        return drawn[:1], drawn[1:]

    feed = placement.feed("stream", Data(dataset.images, dataset.labels), mesh, draws, key, 1, 0)
    next(feed)
    began = time.perf_counter()
    for window in itertools.islice(feed, options.batches):
        window.images.block_until_ready()
    told(f"{options.batches} calls of two batches of {size}", began, 2 * size * options.batches)
    for speed in options.speeds:
        waits(feed, options.batches, 2 * size, speed)
    feed.close()


if __name__ == "__main__":
    main()
