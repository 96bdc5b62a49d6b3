"""Draw images of the classes you ask for from a trained run.

    cgan sample --workdir=runs/digits --labels=3,7 --num_images=64 --out=digits.png
    cgan sample --workdir=runs/cifar --labels=cat,dog --num_images=1000 --out=pets.npz
    cgan sample --workdir=runs/cifar --labels=all --num_images=500 --out=pictures/

The images come from the averaged generator. --out ending in .png is a grid with a row per class, in .npz arrays (images
uint8 [N,H,W,C], labels, class_names), anything else a folder with one PNG per image in a sub-folder per class. The same
seed and class give the same images, however many are asked for.
"""

import sys
from pathlib import Path

from absl import flags as absl_flags

from cgan_jax.errors import UsageError

_MOST_IN_MEMORY = 10_000
_OTHER_KINDS = (".bmp", ".gif", ".jpeg", ".jpg", ".npy", ".pdf", ".tar", ".tif", ".tiff", ".webp", ".zip")


def define_flags(flags: absl_flags.FlagValues, argv: list[str]) -> None:
    absl_flags.DEFINE_string("workdir", None, "The folder of a run.", flag_values=flags)
    absl_flags.DEFINE_string("out", None, "FILE.png, FILE.npz or a folder.", flag_values=flags)
    absl_flags.DEFINE_string(
        "labels",
        None,
        "Classes by number or name, separated by commas, or all. Left out: asks on a terminal, elsewhere all.",
        flag_values=flags,
    )
    absl_flags.DEFINE_integer("num_images", 64, "Images in all, spread evenly over the classes.", flag_values=flags)
    absl_flags.DEFINE_integer("seed", 0, "Which images; 0 to 4294967295.", flag_values=flags)
    absl_flags.DEFINE_string(
        "step", None, "The checkpoint's generator step, or best; the latest if left out.", flag_values=flags
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
    most = _MOST_IN_MEMORY if kind in (".png", ".npz") else 2**31 - 1
    if not 1 <= flags.num_images <= most:
        raise UsageError(f"--num_images must be 1 to {most} for this kind of --out, given {flags.num_images}")
    if not 0 <= flags.seed < 2**32:
        raise UsageError(f"--seed must be 0 to {2**32 - 1}, given {flags.seed}")

    from cgan_jax import compilation_cache, image_writers, sampling
    from cgan_jax.workdir import read_info

    step = sampling.parse_step(flags.step)
    info = read_info(Path(flags.workdir))
    conditional = info.recipe["dataset"]["conditional"]
    class_names = info.class_names if conditional else ["image"]
    chosen = _chosen_labels(flags.labels, class_names, conditional)
    labels, indices = sampling.spread(flags.num_images, chosen)
    is_folder = kind not in (".png", ".npz")
    if kind in _OTHER_KINDS:
        raise UsageError(f"--out={out}: this command writes .png, .npz or a folder, not {kind}")
    if is_folder and out.is_file():
        raise UsageError(f"{out} is a file; give a name ending in .png or .npz, or a folder")
    paths = list(image_writers.image_paths(out, labels, indices, class_names)) if is_folder else [out]
    image_writers.check_free(paths, flags.force)

    if flags.cache:
        compilation_cache.enable()
    sampler = sampling.Sampler(Path(flags.workdir), step)
    batches = sampler.images(flags.seed, labels, indices)
    if is_folder:
        image_writers.write_folder(out, batches, paths)
    else:
        images = sampling.gathered(batches)
        if kind == ".png":
            image_writers.write_grid(out, images, labels, class_names, conditional)
        else:
            image_writers.write_npz(out, images, labels, class_names)
    print(f"wrote {flags.num_images} images of step {sampler.step} to {out}")


def _chosen_labels(text: str | None, class_names: list[str], conditional: bool) -> list[int]:
    from cgan_jax.sampling import parse_labels

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
            return parse_labels(input("classes, by number or name (all for every one): "), class_names)
        except UsageError as error:
            print(error)
        except EOFError:
            print()
            raise UsageError("no class was asked for") from None
