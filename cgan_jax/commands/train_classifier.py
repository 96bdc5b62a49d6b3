"""Train the small classifier whose features the metrics compare, for a labelled dataset.

    cgan train-classifier --dataset=cifar10
    cgan train-classifier --dataset=digits
    cgan train-classifier --dataset= --source=image_folder --data_dir=pictures
    cgan train-classifier --config=images --config.dataset.data_dir=pictures --config.dataset.fit=pad

A recipe's --config and its overrides say how the images are made, as in cgan train; without --test_split a tenth of the
images is then kept from the training to measure the accuracy on.
The result goes to the cache folder ($CGAN_CACHE_DIR, else ~/.cache/cgan_jax), in which training and cgan evaluate find
it. CIFAR-10's weights come with the package and stay in use, so that numbers can be compared; only cgan evaluate
--classifier=FILE takes another one for CIFAR-10. Ctrl-C keeps the state, and the same command goes on from there.
"""

import functools
from pathlib import Path
from typing import Any

from absl import flags as absl_flags
from absl.flags import DEFINE_integer, DEFINE_string

from cgan_jax.commands import _flags, _recipe_flags
from cgan_jax.errors import UsageError


def define_flags(flags: absl_flags.FlagValues, argv: list[str]) -> None:
    _recipe_flags.define(flags, argv)
    _flags.define(flags, "source", "data_dir", "image_size", "cache", force="Replace a classifier that exists.")
    text, integer = (functools.partial(kind, flag_values=flags) for kind in (DEFINE_string, DEFINE_integer))
    text("dataset", None, "A prepared set of TensorFlow Datasets, as in a recipe; or digits; empty for image_folder.")
    text("split", None, "The images to learn from; left out: train, or the recipe's.")
    text("test_split", None, "The images to measure the accuracy on; left out: test, or a tenth of the recipe's.")
    absl_flags.DEFINE_bool("flip", True, "Mirror images are of other classes.", flag_values=flags)
    integer("epochs", None, "Times to see every image; left out: 14, or as many as show 30,000.", lower_bound=1)
    integer("seed", 0, "Another seed gives another classifier.", lower_bound=0)
    text("out", None, "A file in .npz; left out: its place in the cache.")


def main(flags: absl_flags.FlagValues) -> None:
    section = _section(flags)
    if section["image_size"] < 8:
        raise UsageError(f"image_size must be at least 8, given {section['image_size']}")
    if flags.out and not flags.out.endswith(".npz"):
        raise UsageError(f"--out={flags.out}: the name of a classifier ends in .npz")

    import PIL

    from cgan_jax.data import sources
    from cgan_jax.evaluation import classifier_training as training
    from cgan_jax.evaluation.features import classifier
    from cgan_jax.files import cache

    source, name = section["source"], section["name"]
    train, tested_on = sources.load_section(section), flags.test_split or ("held-out" if flags.config else "test")
    if tested_on == "held-out":
        train, test = training.held_out(train)
    else:
        test = sources.load_section({**section, "split": tested_on})
    if test.class_names != train.class_names:
        raise UsageError(f"the splits {section['split']} and {tested_on} have other classes")
    shape = (section["image_size"], train.images.shape[-1], train.class_names)
    place = classifier.place(source, name, section["data_dir"], *shape)
    out = Path(flags.out) if flags.out else cache.cache_folder() / place
    if out.exists() and not flags.force:
        raise UsageError(f"{out} exists; --force trains a new one in its place")
    out.parent.mkdir(parents=True, exist_ok=True)
    if classifier.is_packaged(*shape):
        print(
            f"for these classes the packaged classifier stays in use; cgan evaluate --classifier={out} takes this one"
        )
    _flags.keep_programs(flags)
    plan = training.plan_for(train, flags.epochs, flags.flip and section["flip"], flags.seed)
    description = training.describe(plan, train, f"{name or source} {section['split']}")
    if source != "digits":
        description = description._replace(dataset=f"{description.dataset}, decoded by Pillow {PIL.__version__}")
    kept = out.with_name(f".{out.name}.training")
    state, seconds = training.train(plan, description, train, kept)
    description, variables = training.finished(description, state, test, tested_on, seconds)
    classifier.save(out, description, variables)
    kept.unlink(missing_ok=True)
    print(f"wrote {out}: {100 * description.accuracy:.2f}% of {len(test.labels)} {tested_on} images are right")


def _section(flags: absl_flags.FlagValues) -> dict[str, Any]:
    """The section `dataset` of the recipe, or what the flags say of one."""
    if flags.config:
        for name in ("dataset", "source", "data_dir", "image_size"):
            if flags[name].present:
                field = "name" if name == "dataset" else name
                raise UsageError(
                    f"with --config the images are the recipe's: --config.dataset.{field} in place of --{name}"
                )
        section = _recipe_flags.given(flags)["dataset"]
        return {**section, "split": flags.split or section["split"], "placement": "replicated"}
    if not flags.dataset and not (flags.source and flags.data_dir and flags.dataset == ""):
        raise UsageError("--dataset=NAME or --config=RECIPE is needed, such as --dataset=cifar10")
    source = flags.source or ("digits" if flags.dataset == "digits" else "tfds")
    return {
        "source": source,
        "name": flags.dataset,
        "split": flags.split or "train",
        "data_dir": flags.data_dir,
        "image_size": flags.image_size,
        "flip": source != "digits",
    }
