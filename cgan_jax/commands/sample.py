"""Draw images of the classes you ask for from a trained run.

    cgan sample --workdir=runs/digits --labels=3,7 --num_images=64 --out=digits.png
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

import select
import sys
import time
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from cgan_jax.errors import UsageError
from cgan_jax.files import storage

_MOST_IN_MEMORY = 10_000
_MOST_FRAMES, _MOST_WAYS, _MOST_NEAREST = 500, 200, 20
_MOVING = (".gif", ".webp")
_OTHER_KINDS = (".bmp", ".jpeg", ".jpg", ".npy", ".pdf", ".tar", ".tif", ".tiff", ".zip")
_SECONDS_WORTH_TELLING = 3.0
_SECONDS_THERE_AND_BACK = 4.0


def define_flags(flags: absl_flags.FlagValues, argv: list[str]) -> None:
    absl_flags.DEFINE_string("workdir", None, "The folder of a run.", flag_values=flags)
    absl_flags.DEFINE_string(
        "out", None, "FILE.png, FILE.npz or a folder; with --interpolate also FILE.gif, FILE.webp.", flag_values=flags
    )
    absl_flags.DEFINE_string(
        "labels",
        None,
        "Classes by number or name, separated by commas, or all. Left out: asks on a terminal, elsewhere all.",
        flag_values=flags,
    )
    absl_flags.DEFINE_integer(
        "num_images",
        None,
        "Images in all, spread evenly over the classes; left out: 64. With --interpolate ways; left out: one a class,"
        " or 4 between two classes.",
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
        "batch_stats",
        "ema",
        ["ema", "standing"],
        "What the generator normalises by: averages of training, or what 16 batches of its own show.",
        flag_values=flags,
    )
    absl_flags.DEFINE_enum(
        "interpolate", None, ["latents", "labels"], "Go from one seed or class to another.", flag_values=flags
    )
    absl_flags.DEFINE_integer("to_seed", None, "Where latents go; left out: --seed and 1.", flag_values=flags)
    absl_flags.DEFINE_integer("frames", None, "Steps of a way; left out: 10, or 40 if it moves.", flag_values=flags)
    absl_flags.DEFINE_integer("nearest", 0, "So many training images beside each; .png only.", flag_values=flags)
    absl_flags.DEFINE_enum(
        "sort_by", "index", ["index", "confidence"], "The order within a class; .png and .npz.", flag_values=flags
    )
    absl_flags.DEFINE_bool(
        "cache", True, "Do not keep compiled programs in $CGAN_CACHE_DIR (~/.cache/cgan_jax).", flag_values=flags
    )
    absl_flags.DEFINE_bool(
        "force", False, "Replace files that exist and that this command would write.", flag_values=flags
    )


def main(flags: absl_flags.FlagValues) -> None:
    if not flags.workdir or not flags.out:
        raise UsageError("both --workdir=FOLDER and --out=FILE are needed (see cgan sample --help)")
    out = Path(flags.out)
    kind = out.suffix.lower()
    _check_numbers(flags, kind)
    _check_together(flags, kind)

    from cgan_jax.files import compilation_cache
    from cgan_jax.run.workdir import read_info
    from cgan_jax.sampling import image_writers, request, sampling

    workdir = storage.place(flags.workdir)
    truncation, step = request.parse_truncation(flags.truncation), request.parse_step(flags.step)
    info = read_info(workdir)
    chosen = _chosen_labels(flags.labels, info.classes, info.recipe["dataset"]["conditional"])
    if kind in _OTHER_KINDS:
        raise UsageError(f"--out={out}: this command writes .png, .npz or a folder, not {kind}")
    is_folder = kind not in (".png", ".npz", *_MOVING)
    if is_folder and out.is_file():
        raise UsageError(f"{out} is a file; give a name ending in .png or .npz, or a folder")
    labels, indices, others = _ways(flags, chosen) if flags.interpolate else (*_images(flags, chosen), None)
    paths = list(image_writers.image_paths(out, labels, indices, info.classes)) if is_folder else [out]
    image_writers.check_free(paths, flags.force)
    network = _classifier(flags, info)

    if flags.cache:
        compilation_cache.enable()
    sampler = sampling.Sampler(workdir, step, 64, truncation, flags.batch_stats)
    began = time.perf_counter()
    if others is not None:
        drawn, told = _draw_ways(flags, out, sampler, (labels, others), indices), ""
    else:
        drawn, told = len(labels), _draw(flags, out, sampler, labels, indices, paths if is_folder else None, network)
    seconds = time.perf_counter() - began
    alone = network is None and seconds > _SECONDS_WORTH_TELLING
    speed = f" ({drawn / seconds:.3g} images/s)" if alone else ""
    print(f"wrote {drawn} images of step {sampler.step} to {out}{speed}{told}")


def _check_numbers(flags: absl_flags.FlagValues, kind: str) -> None:
    """Raises UsageError for numbers that are out of range."""
    in_memory = kind in (".png", ".npz")
    most = _MOST_WAYS if flags.interpolate else _MOST_IN_MEMORY if in_memory else 2**31 - 1
    allowed = {
        "seed": (0, 2**32 - 1, ""),
        "to_seed": (0, 2**32 - 1, ""),
        "num_images": (1, most, " with --interpolate" if flags.interpolate else " for this kind of --out"),
        "frames": (2, _MOST_FRAMES, ""),
        "nearest": (0, _MOST_NEAREST, ""),
    }
    for name, (least, most, where) in allowed.items():
        given = getattr(flags, name)
        if given is not None and not least <= given <= most:
            raise UsageError(f"--{name} must be {least} to {most}{where}, given {given}")


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
    if flags.nearest and kind != ".png":
        raise UsageError(f"--nearest writes .png, given --out={flags.out}")
    if flags.sort_by != "index" and kind not in (".png", ".npz"):
        raise UsageError(f"--sort_by={flags.sort_by} writes .png or .npz; files in a folder go by their number")


def _images(flags: absl_flags.FlagValues, chosen: list[int]) -> tuple[Any, Any]:
    """(labels, indices) of the images to draw."""
    from cgan_jax.sampling.request import spread

    return spread(64 if flags.num_images is None else flags.num_images, chosen)


def _ways(flags: absl_flags.FlagValues, chosen: list[int]) -> tuple[Any, Any, Any]:
    """(labels at the beginning, indices, labels at the end) of the ways to go."""
    import numpy as np

    from cgan_jax.sampling.request import spread

    labels_go = flags.interpolate == "labels"
    if labels_go and len(chosen) != 2:
        raise UsageError(f"--interpolate=labels goes between two classes, such as --labels=3,7; given {len(chosen)}")
    ways = flags.num_images or (4 if labels_go else min(len(chosen), _MOST_WAYS))
    labels, indices = spread(ways, chosen[:1] if labels_go else chosen)
    return labels, indices, np.full_like(labels, chosen[1]) if labels_go else labels


def _classifier(flags: absl_flags.FlagValues, info: Any) -> Any:
    """The network that --nearest and --sort_by ask, if either is given."""
    from cgan_jax.evaluation import likeness

    if flags.sort_by != "index" and not info.recipe["dataset"]["conditional"]:
        raise UsageError("--sort_by=confidence: this run is unconditional, there is no class to be sure of")
    return likeness.classifier_for(info) if flags.nearest or flags.sort_by != "index" else None


def _draw(
    flags: absl_flags.FlagValues, out: Path, sampler: Any, labels: Any, indices: Any, paths: Any, network: Any
) -> str:
    """Draws and writes images; returns what else there is to tell."""
    from cgan_jax.evaluation import likeness
    from cgan_jax.run import progress
    from cgan_jax.sampling import image_writers, sampling

    conditional = sampler.info.recipe["dataset"]["conditional"]
    batches = progress.counted(sampler.images(flags.seed, labels, indices), len(labels), "drawing")
    if paths is not None:
        image_writers.write_folder(out, batches, paths)
        return ""
    images = sampling.gathered(batches)
    if flags.sort_by == "confidence":
        order = likeness.most_confident_first(labels, likeness.confidences(network, images, labels))
        images, labels = images[order], labels[order]
    if flags.nearest:
        return _write_nearest(flags.nearest, out, sampler.info, network, images, labels)
    if out.suffix.lower() == ".png":
        image_writers.write_grid(out, images, labels, sampler.info.classes, conditional)
    else:
        image_writers.write_npz(out, images, labels, sampler.info.classes)
    return ""


def _write_nearest(k: int, out: Path, info: Any, network: Any, images: Any, labels: Any) -> str:
    """A grid of images with the nearest training images behind each."""
    import numpy as np

    from cgan_jax.evaluation import evaluation, likeness
    from cgan_jax.sampling import grids

    dataset = likeness.training_images(info)
    real, _ = evaluation.cached_features(network, dataset.images)
    features, _ = evaluation.features_of(network, images, "features")
    found = likeness.nearest(features, real, k)
    names = [info.classes[label] for label in labels]
    out.parent.mkdir(parents=True, exist_ok=True)
    grids.save(grids.grid(*grids.rows_beside(images, dataset.images[found.places], names)), out)
    drawn, typical = np.median(found.distances[:, 0]), likeness.typical_distance(real)
    return (
        f", each before its {k} nearest training images\n"
        f"median distance to the nearest: {drawn:.3g}; of training images to the nearest other: {typical:.3g}"
    )


def _draw_ways(flags: absl_flags.FlagValues, out: Path, sampler: Any, labels: tuple[Any, Any], indices: Any) -> int:
    """Draws and writes ways from one image to another; returns how many images they have."""
    import numpy as np

    from cgan_jax.run import progress
    from cgan_jax.sampling import grids, interpolation

    moves = out.suffix.lower() in _MOVING
    steps = flags.frames or (40 if moves else 10)
    to_seed = (flags.seed + 1) % 2**32 if flags.to_seed is None else flags.to_seed
    seeds = (flags.seed, flags.seed if flags.interpolate == "labels" else to_seed)
    batches = interpolation.frames(sampler, seeds, labels, indices, steps)
    frames = np.stack(list(progress.counted(batches, steps * len(indices), "drawing")))
    names, conditional = sampler.info.classes, sampler.info.recipe["dataset"]["conditional"]
    out.parent.mkdir(parents=True, exist_ok=True)
    if moves:
        by_class = conditional and flags.interpolate == "latents"
        pictures = [grids.grid(*grids.rows_by_class(frame, labels[0], names, by_class)) for frame in frames]
        grids.save_animation(pictures, out, _SECONDS_THERE_AND_BACK)
        return frames.shape[0] * frames.shape[1]
    pairs = zip(*(part.tolist() for part in labels), strict=True)
    of_row = [names[a] if a == b else f"{names[a]} to {names[b]}" for a, b in pairs] if conditional else ()
    rows, row_names = grids.rows_of_ways(frames, of_row)
    grids.save(grids.grid(rows, row_names), out)
    return frames.shape[0] * frames.shape[1]


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
            return parse_labels(_answer("classes, by number or name (all for every one): "), class_names)
        except UsageError as error:
            print(error)
        except EOFError:
            print()
            raise UsageError("no class was asked for") from None


def _answer(question: str) -> str:
    """What is typed in answer. Raises EOFError, and KeyboardInterrupt at once.

    Python looks at a signal that comes between its prompt and its reading only after the next key.
    """
    print(question, end="", flush=True)
    while not select.select([sys.stdin], [], [], 0.2)[0]:
        pass
    return input()
