"""Draw a labelled synthetic dataset that other tools load at once.

    cgan synthesize --workdir=runs/cifar --num_images=50000 --out=synthetic/
    cgan synthesize --workdir=runs/cifar --balance=cat=5000,dog=1000 --format=tar --out=pets/
    cgan synthesize --workdir=runs/cifar --num_images=1000000 --balance=dataset --format=tfds --out=tfds/

--out is a folder: with --format=image_folder a PNG per image in a folder per class (torchvision's ImageFolder), with
npz one archive (images, labels, class_names), with tar files for WebDataset, with tfds a set for tfds.load and
tfds.data_source. README.md and card.json in it say what it is: run, step, seed, classes, and the metrics of that step
where the run was evaluated. Images go to disk as they are drawn, so a million need hardly more memory than a thousand.

Ctrl-C, or even a kill, loses little: the same command goes on. The same run, step and seed give the same bytes on the
same machine. The folder appears when it is complete; until then it is called .NAME.partial.
"""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from cgan_jax.errors import UsageError
from cgan_jax.files import storage

_BATCH_SIZE = 256


def define_flags(flags: absl_flags.FlagValues, argv: list[str]) -> None:
    absl_flags.DEFINE_string("workdir", None, "The folder of a run.", flag_values=flags)
    absl_flags.DEFINE_string("out", None, "The folder to write.", flag_values=flags)
    absl_flags.DEFINE_string("format", "image_folder", "image_folder, npz, tar or tfds.", flag_values=flags)
    absl_flags.DEFINE_integer("num_images", 50_000, "Images in all.", flag_values=flags)
    absl_flags.DEFINE_string(
        "balance",
        "uniform",
        "How many of each class: uniform; dataset, as frequent as among the real images, which must be there; or"
        " counts in place of --num_images, such as 'cat=5000,dog=1000'.",
        flag_values=flags,
    )
    absl_flags.DEFINE_integer("seed", 0, "Which images; 0 to 4294967295.", flag_values=flags)
    absl_flags.DEFINE_string(
        "step", None, "The checkpoint's generator step, or best; the latest if left out.", flag_values=flags
    )
    absl_flags.DEFINE_float(
        "truncation", None, "Draw latents again until all are in ±truncation: clearer, more alike.", flag_values=flags
    )
    absl_flags.DEFINE_enum(
        "batch_stats", "ema", ["ema", "standing"], "Statistics that the generator normalises by.", flag_values=flags
    )
    absl_flags.DEFINE_string(
        "name",
        None,
        "Of the dataset, in [a-z0-9_]; left out: what the run learned from, _synthetic.",
        flag_values=flags,
    )
    absl_flags.DEFINE_bool(
        "cache", True, "Do not keep compiled programs in $CGAN_CACHE_DIR (~/.cache/cgan_jax).", flag_values=flags
    )
    absl_flags.DEFINE_bool(
        "force", False, "Replace files that exist and that this command would write.", flag_values=flags
    )


def main(flags: absl_flags.FlagValues) -> None:
    if not flags.workdir or not flags.out:
        raise UsageError("both --workdir=FOLDER and --out=FOLDER are needed (see cgan synthesize --help)")
    if not 0 <= flags.seed < 2**32:
        raise UsageError(f"--seed must be 0 to {2**32 - 1}, given {flags.seed}")
    if flags.name is not None and not re.fullmatch("[a-z][a-z0-9_]*", flags.name):
        raise UsageError(f"--name must be of a-z, 0-9 and _, and begin with a letter, given {flags.name!r}")

    from cgan_jax import lookup
    from cgan_jax.files import compilation_cache
    from cgan_jax.run import progress
    from cgan_jax.run.workdir import locked, read_info
    from cgan_jax.sampling import image_writers, request, sampling, synthesis

    if not 1 <= flags.num_images <= synthesis.MOST:
        raise UsageError(f"--num_images must be 1 to {synthesis.MOST}, given {flags.num_images}")
    truncation = request.parse_truncation(flags.truncation)
    run, out = storage.place(flags.workdir), Path(flags.out).absolute()
    lookup.module_named(synthesis.FORMATS, flags.format, "format")
    plan = _plan(flags, read_info(run))
    if flags.cache:
        compilation_cache.enable()
    step = request.parse_step(flags.step)
    sampler = sampling.Sampler(run, step, _BATCH_SIZE, truncation, flags.batch_stats)
    source = synthesis.Source(run, sampler.info, sampler.step, flags.seed, truncation, flags.batch_stats)
    unfinished = synthesis.Unfinished(out, source, plan, flags.format)
    if not unfinished.whole:
        files = synthesis.files_of(flags.format, plan) if out.exists() else [Path(synthesis.README)]
        image_writers.check_free((out / file for file in files), flags.force)
    total = len(plan.labels)
    left, began = total - unfinished.images, time.perf_counter()
    if 0 < left < total:
        print(f"going on after {total - left} of {total} images", flush=True)
    with locked(unfinished.folder), progress.counting(left, "drawing") as bar:

        def draw(places: slice) -> Iterator[Any]:
            for images in sampler.images(flags.seed, plan.labels[places], plan.indices[places]):
                yield images
                bar.update(len(images))

        unfinished.write(draw)
        unfinished.move()
    speed = f" ({left / (time.perf_counter() - began):.3g} images/s)" if left else ""
    print(f"wrote {total} images of step {sampler.step} to {flags.out}{speed}")


def _plan(flags: absl_flags.FlagValues, info: Any) -> Any:
    """Which images to draw, in which order."""
    from cgan_jax.data import sources
    from cgan_jax.sampling import synthesis
    from cgan_jax.sampling.formats import Plan

    section = info.recipe["dataset"]
    if not section["conditional"] and flags.balance != "uniform":
        raise UsageError("this run is unconditional: it has no classes to balance, leave --balance out")

    def real_labels() -> Any:
        return sources.load_section(section).labels

    counts = synthesis.counts_for(flags.balance, flags.num_images, info.classes, real_labels)
    labels, indices = synthesis.interleaved(counts)
    learned_from = re.sub("[^a-z0-9]+", "_", section["name"].lower()).strip("_")
    name = flags.name or f"{learned_from or section['source']}_synthetic"
    return Plan(
        name=name if name[0].isalpha() else f"set_{name}",
        class_names=tuple(info.classes),
        labels=labels,
        indices=indices,
        image_shape=(section["image_size"], section["image_size"], info.channels),
    )
