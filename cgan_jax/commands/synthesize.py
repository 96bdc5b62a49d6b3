"""Draw a labelled synthetic dataset that other tools load at once.

    cgan synthesize --workdir=runs/cifar --num_images=50000 --out=synthetic/
    cgan synthesize --workdir=runs/cifar --balance=cat=5000,dog=1000 --format=tar --out=pets/
    cgan synthesize --workdir=runs/cifar --num_images=1000000 --balance=dataset --format=tfds --out=tfds/

--out is a folder: with --format=image_folder a PNG per image in a folder per class (torchvision's ImageFolder), with
npz one archive (images, labels, class_names), with tar files for WebDataset, with tfds a set for tfds.load and
tfds.data_source. README.md and card.json in it name the run, the step, the seed, the classes, and the metrics of that
step if the run was evaluated. Images go to disk as they are drawn, so a million take little more memory than a
thousand.

After Ctrl-C or a kill the same command goes on. The same run, step and seed give the same bytes on the same machine.
The folder appears when it is complete; until then its name is .NAME.partial.
"""

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from cgan_jax.commands import _flags, _model_flags
from cgan_jax.errors import UsageError

_BATCH_SIZE = 256


def define_flags(flags: absl_flags.FlagValues, argv: list[str]) -> None:
    _model_flags.define(flags)
    _flags.define(flags, "seed", "step", "truncation", "ema", "batch_stats", "cache", "force")
    text = functools.partial(absl_flags.DEFINE_string, flag_values=flags)
    text("out", None, "The folder to write.")
    text("format", "image_folder", "image_folder, npz, tar or tfds.")
    text("name", None, "The dataset's name, in [a-z0-9_]; left out: what the run learned from, _synthetic.")
    counts = "counts instead of --num_images, such as 'cat=5000,dog=1000'"
    text("balance", "uniform", f"Images of each class: uniform; dataset, in proportion to real ones; or {counts}.")
    absl_flags.DEFINE_integer("num_images", 50_000, "Images in all.", lower_bound=1, flag_values=flags)


def main(flags: absl_flags.FlagValues) -> None:
    model = _model_flags.given(flags)
    _flags.need("synthesize", {_model_flags.WORDS: model, "--out=FOLDER": flags.out})
    if flags.name is not None and not re.fullmatch("[a-z][a-z0-9_]*", flags.name):
        raise UsageError(f"--name must be of a-z, 0-9 and _, and begin with a letter, given {flags.name!r}")

    if flags["num_images"].present and flags.balance not in ("uniform", "dataset"):
        raise UsageError(f"--balance={flags.balance} says how many images, given --num_images too")

    from cgan_jax import lookup
    from cgan_jax.run import progress
    from cgan_jax.run.workdir import locked
    from cgan_jax.sampling import card, image_writers, request, sampling, synthesis, trained

    truncation = request.parse_truncation(flags.truncation)
    out = Path(flags.out).absolute()
    lookup.module_named(synthesis.FORMATS, flags.format, "format")
    plan = synthesis.plan_for(trained.info_at(model), flags.balance, flags.num_images, flags.name)
    _flags.keep_programs(flags)
    step = request.parse_step(flags.step)
    sampler = sampling.Sampler(model, step, _BATCH_SIZE, truncation, flags.batch_stats, flags.ema)
    unfinished = synthesis.Unfinished(out, card.origin(model, sampler), plan, flags.format, flags.seed, truncation)
    if not unfinished.whole:
        files = synthesis.files_of(flags.format, plan) if out.exists() else [Path(synthesis.README)]
        image_writers.check_free((out / file for file in files), flags.force)
        synthesis.check_unmixed(out, synthesis.files_of(flags.format, plan))
    total = len(plan.labels)
    left, speed = total - unfinished.images, progress.Speed()
    if 0 < left < total:
        print(f"going on after {total - left} of {total} images", flush=True)
    with locked(unfinished.folder), progress.counting(left, "drawing") as bar:

        def draw(places: slice) -> Iterator[Any]:
            for images in speed.of(sampler.images(flags.seed, plan.labels[places], plan.indices[places])):
                yield images
                bar.update(len(images))

        unfinished.write(draw)
        unfinished.move()
    print(f"wrote {total} images of step {sampler.step} to {flags.out}{speed}")
