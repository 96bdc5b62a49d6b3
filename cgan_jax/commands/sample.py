"""Draw images of the classes you ask for from a trained model.

    cgan sample --model=digits --labels=3,7 --num_images=20 --out=digits.png
    cgan sample --workdir=runs/cifar --labels=cat,dog --num_images=1000 --truncation=0.7 --out=pets.npz
    cgan sample --workdir=runs/cifar --labels=all --num_images=500 --out=pictures/
    cgan sample --workdir=runs/digits --labels=3,7 --interpolate=labels --out=from_3_to_7.gif
    cgan sample --workdir=runs/digits --labels=all --num_images=20 --nearest=3 --out=copies.png

The images come from the averaged generator. --out ending in .png is a grid with a row per class, in .npz arrays (images
uint8 [N,H,W,C], labels, class_names), anything else a folder with one PNG per image in a sub-folder per class. The same
seed and class give the same images, however many are asked for.

--interpolate goes from the latents of --seed to those of --to_seed, or from the first of two --labels to the second, in
--frames steps: --out ending in .png has a row for each way, .gif and .webp show it there and back. --nearest puts the
closest training images, by the features of the dataset's classifier, behind each drawn one; a generator that memorises
shows there. --sort_by=confidence begins each class with the images that the classifier is surest of.
"""

import functools
import select
import sys
from pathlib import Path
from typing import Any

from absl import flags as absl_flags
from absl.flags import DEFINE_enum, DEFINE_integer, DEFINE_string

from cgan_jax.commands import _flags, _model_flags
from cgan_jax.errors import UsageError

_KINDS = (DEFINE_string, DEFINE_integer, DEFINE_enum)
_MOST_IN_MEMORY = 10_000
_MOST_WAYS = 200
_MOVING = (".gif", ".webp")
_OTHER_KINDS = (".bmp", ".jpeg", ".jpg", ".npy", ".pdf", ".tar", ".tif", ".tiff", ".zip")


def define_flags(flags: absl_flags.FlagValues, argv: list[str]) -> None:
    _model_flags.define(flags)
    _flags.define(flags, "seed", "step", "truncation", "ema", "batch_stats", "cache", "force")
    text, integer, enum = (functools.partial(kind, flag_values=flags) for kind in _KINDS)
    text("out", None, "FILE.png, FILE.npz or a folder; with --interpolate also FILE.gif, FILE.webp.")
    text("labels", None, "Classes by number or name, such as 3,cat, or all; left out: asks on a terminal, else all.")
    images = "Images, spread evenly over the classes; left out: 64. With --interpolate ways; left out: one a class."
    integer("num_images", None, images, lower_bound=1)
    enum("interpolate", None, ["latents", "labels"], "Go from one seed or class to another.")
    integer("to_seed", None, "The seed to go to; left out: --seed + 1.", lower_bound=0, upper_bound=2**32 - 1)
    integer("frames", None, "Steps of a way; left out: 10, or 40 if it moves.", lower_bound=2, upper_bound=500)
    integer("nearest", 0, "Training images beside each image; .png only.", lower_bound=0, upper_bound=20)
    integer("columns", None, "Images in a row of a .png; left out: 10, or 50 of many.", lower_bound=1, upper_bound=200)
    integer("scale", None, "How many times larger a .png shows a pixel.", lower_bound=1, upper_bound=32)
    enum("sort_by", "index", ["index", "confidence"], "The order within a class; .png and .npz.")


def main(flags: absl_flags.FlagValues) -> None:
    place = _model_flags.given(flags)
    _flags.need("sample", {_model_flags.WORDS: place, "--out=FILE": flags.out})
    out = Path(flags.out)
    kind = out.suffix.lower()
    _check_number(flags, kind)
    _check_together(flags, kind)

    from cgan_jax.run import progress
    from cgan_jax.sampling import image_writers, interpolation, request, sampling, trained

    truncation, step = request.parse_truncation(flags.truncation), request.parse_step(flags.step)
    info = trained.info_at(place)
    chosen = _chosen_labels(flags.labels, info.classes, info.recipe["dataset"]["conditional"])
    if kind in _OTHER_KINDS:
        raise UsageError(f"--out={out}: this command writes .png, .npz or a folder, not {kind}")
    is_folder = kind not in (".png", ".npz", *_MOVING)
    if is_folder and out.is_file():
        raise UsageError(f"{out} is a file; give a name ending in .png or .npz, or a folder")
    spread = request.spread(flags.num_images or 64, chosen)
    labels, indices, others = _ways(flags, chosen) if flags.interpolate else (*spread, None)
    paths = list(image_writers.image_paths(out, labels, indices, info.classes)) if is_folder else [out]
    image_writers.check_free(paths, flags.force)
    network = _classifier(flags, info)

    _flags.keep_programs(flags)
    sampler = sampling.Sampler(place, step, 64, truncation, flags.batch_stats, flags.ema)
    if note := request.uncovered(len(labels), chosen, len(info.classes)) if not flags.interpolate else "":
        print(f"{note}; --num_images={len(chosen)} draws one of each")
    speed = progress.Speed()
    if others is not None:
        to_seed = (flags.seed + 1) % 2**32 if flags.to_seed is None else flags.to_seed
        seeds = (flags.seed, flags.seed if flags.interpolate == "labels" else to_seed)
        steps, told = flags.frames or (40 if kind in _MOVING else 10), ""
        drawn = interpolation.write(out, sampler, seeds, (labels, others), indices, steps)
    else:
        drawn = len(labels)
        told = _draw(flags, out, sampler, labels, indices, paths if is_folder else None, network, speed)
    print(f"wrote {drawn} images of step {sampler.step} to {out}{speed}{told}")


def _check_number(flags: absl_flags.FlagValues, kind: str) -> None:
    """Raises UsageError for more images than the kind of file can have."""
    most = _MOST_WAYS if flags.interpolate else _MOST_IN_MEMORY if kind in (".png", ".npz") else 2**31 - 1
    if flags.num_images is not None and flags.num_images > most:
        given = "with --interpolate" if flags.interpolate else "for this kind of --out"
        raise UsageError(f"--num_images must be 1 to {most} {given}, given {flags.num_images}")


def _check_together(flags: absl_flags.FlagValues, kind: str) -> None:
    """Raises UsageError for options that cannot go together."""
    if not flags.interpolate:
        given = [name for name in ("to_seed", "frames") if getattr(flags, name) is not None]
        if given:
            raise UsageError(f"--{given[0]} belongs to --interpolate=latents or labels")
        if kind in _MOVING:
            raise UsageError(f"--out={flags.out}: {kind} moves, which needs --interpolate=latents or labels")
    else:
        if kind not in (".png", *_MOVING):
            raise UsageError(f"--interpolate writes .png, .gif or .webp, given --out={flags.out}")
        if flags.nearest or flags.sort_by != "index":
            raise UsageError("--nearest and --sort_by are for images by themselves, not for --interpolate")
        if flags.interpolate == "labels" and flags.to_seed is not None:
            raise UsageError("--to_seed belongs to --interpolate=latents; between labels the latents stay")
    for name in ("columns", "scale"):
        if getattr(flags, name) is not None and (kind != ".png" or flags.interpolate or flags.nearest):
            raise UsageError(f"--{name} is for a .png without --interpolate and --nearest")
    if flags.nearest and kind != ".png":
        raise UsageError(f"--nearest writes .png, given --out={flags.out}")
    if flags.sort_by != "index" and kind not in (".png", ".npz"):
        raise UsageError(f"--sort_by={flags.sort_by} writes .png or .npz; files in a folder go by their number")


def _ways(flags: absl_flags.FlagValues, chosen: list[int]) -> tuple[Any, Any, Any]:
    """(labels at the start, indices, labels at the end) of the ways."""
    import numpy as np

    from cgan_jax.sampling.request import spread

    labels_go = flags.interpolate == "labels"
    if labels_go and len(chosen) != 2:
        raise UsageError(f"--interpolate=labels goes between two classes, such as --labels=3,7; given {len(chosen)}")
    ways = flags.num_images or (4 if labels_go else min(len(chosen), _MOST_WAYS))
    labels, indices = spread(ways, chosen[:1] if labels_go else chosen)
    return labels, indices, np.full_like(labels, chosen[1]) if labels_go else labels


def _classifier(flags: absl_flags.FlagValues, info: Any) -> Any:
    """The network that --nearest and --sort_by need, if either is given."""
    from cgan_jax.evaluation import likeness

    if flags.sort_by != "index" and not info.recipe["dataset"]["conditional"]:
        raise UsageError("--sort_by=confidence: this run is unconditional, there is no class to be sure of")
    return likeness.classifier_for(info) if flags.nearest or flags.sort_by != "index" else None


def _draw(
    flags: absl_flags.FlagValues,
    out: Path,
    sampler: Any,
    labels: Any,
    indices: Any,
    paths: Any,
    network: Any,
    speed: Any,
) -> str:
    """Draws and writes images; returns the rest of the line that the command prints."""
    from cgan_jax.evaluation import likeness
    from cgan_jax.run import progress
    from cgan_jax.sampling import image_writers, sampling

    conditional = sampler.info.recipe["dataset"]["conditional"]
    batches = speed.of(progress.counted(sampler.images(flags.seed, labels, indices), len(labels), "drawing"))
    if paths is not None:
        image_writers.write_folder(out, batches, paths)
        return ""
    images = sampling.gathered(batches)
    if flags.sort_by == "confidence":
        order = likeness.most_confident_first(labels, likeness.confidences(network, images, labels))
        images, labels = images[order], labels[order]
    if flags.nearest:
        drawn, typical = likeness.write_nearest(out, flags.nearest, sampler.info, network, images, labels)
        return (
            f", each before its {flags.nearest} nearest training images\n"
            f"median distance to the nearest: {drawn:.3g}; of training images to the nearest other: {typical:.3g}"
        )
    if out.suffix.lower() == ".png":
        names = sampler.info.classes
        image_writers.write_grid(out, images, labels, names, conditional, flags.columns, flags.scale)
    else:
        image_writers.write_npz(out, images, labels, sampler.info.classes)
    return ""


def _chosen_labels(text: str | None, class_names: list[str], conditional: bool) -> list[int]:
    from cgan_jax.sampling.request import parse_labels

    if not conditional:
        if text is not None:
            raise UsageError("this run is unconditional: it has no classes to ask for, leave --labels out")
        return [0]
    if text is not None:
        return parse_labels(text, class_names)
    if not sys.stdin.isatty():
        return list(range(len(class_names)))
    print("\n".join(f"{label:>5}  {name}" for label, name in enumerate(class_names)))
    while True:
        try:
            answer = _answer("classes, by number or name (Enter for all): ")
            return parse_labels(answer.strip() or "all", class_names)
        except UsageError as error:
            print(error)
        except EOFError:
            print()
            raise UsageError("no class was asked for") from None


def _answer(question: str) -> str:
    """The line that the user types. Raises EOFError, and KeyboardInterrupt at once.

    input() handles a signal that comes between its prompt and its reading only after the next key.
    """
    print(question, end="", flush=True)
    while not select.select([sys.stdin], [], [], 0.2)[0]:
        pass
    return input()
