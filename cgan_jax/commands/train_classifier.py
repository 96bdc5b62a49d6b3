"""Train the small classifier whose features the metrics compare, for a labelled dataset.

    cgan train-classifier --dataset=cifar10
    cgan train-classifier --dataset=digits
    cgan train-classifier --dataset= --source=image_folder --data_dir=pictures

The result goes to the cache folder ($CGAN_CACHE_DIR, else ~/.cache/cgan_jax), where training and cgan evaluate find it.
CIFAR-10's weights come with the package, and these are the ones that are used, so that numbers can be compared; another
one for CIFAR-10 is used by cgan evaluate --classifier=FILE alone. Ctrl-C keeps what was learned, and the same command
goes on from there.
"""

import contextlib
import sys
import time
from pathlib import Path

from absl import flags as absl_flags
from tqdm import tqdm

from cgan_jax.errors import Interrupted, UsageError
from cgan_jax.files import storage
from cgan_jax.run.progress import duration


def define_flags(flags: absl_flags.FlagValues, argv: list[str]) -> None:
    absl_flags.DEFINE_string(
        "dataset",
        None,
        "A prepared set of TensorFlow Datasets, as in a recipe's dataset.name; or digits; empty for an image folder.",
        flag_values=flags,
    )
    absl_flags.DEFINE_string(
        "source", None, "A recipe's dataset.source; left out: digits for digits, else tfds.", flag_values=flags
    )
    absl_flags.DEFINE_string("data_dir", "", "A recipe's dataset.data_dir.", flag_values=flags)
    absl_flags.DEFINE_integer("image_size", 32, "A recipe's dataset.image_size.", flag_values=flags)
    absl_flags.DEFINE_string("split", "train", "The images to learn from.", flag_values=flags)
    absl_flags.DEFINE_string("test_split", "test", "The images to measure the accuracy on.", flag_values=flags)
    absl_flags.DEFINE_bool("flip", True, "Do not take mirror images for the same class.", flag_values=flags)
    absl_flags.DEFINE_integer(
        "epochs", None, "Times to see every image; left out: 14, or as many as show 30,000.", flag_values=flags
    )
    absl_flags.DEFINE_integer("seed", 0, "Another seed, another classifier.", flag_values=flags)
    absl_flags.DEFINE_string("out", None, "A file in .npz; left out: its place in the cache.", flag_values=flags)
    absl_flags.DEFINE_bool("force", False, "Replace a classifier that is there.", flag_values=flags)
    absl_flags.DEFINE_bool(
        "cache", True, "Do not keep compiled programs in $CGAN_CACHE_DIR (~/.cache/cgan_jax).", flag_values=flags
    )


def main(flags: absl_flags.FlagValues) -> None:
    if not flags.dataset and not (flags.source and flags.data_dir and flags.dataset == ""):
        raise UsageError("--dataset=NAME is needed, such as --dataset=cifar10 (see cgan train-classifier --help)")
    for name, least in (("image_size", 8), ("seed", 0), ("epochs", 1)):
        if getattr(flags, name) is not None and getattr(flags, name) < least:
            raise UsageError(f"--{name} must be at least {least}, given {getattr(flags, name)}")
    if flags.out and not flags.out.endswith(".npz"):
        raise UsageError(f"--out={flags.out}: the name of a classifier ends in .npz")

    import PIL

    from cgan_jax.data import sources
    from cgan_jax.evaluation import classifier_training as training
    from cgan_jax.evaluation.features import classifier
    from cgan_jax.files import cache, compilation_cache

    source = flags.source or ("digits" if flags.dataset == "digits" else "tfds")
    train, test = (
        sources.load(source, flags.dataset, split, flags.data_dir, flags.image_size)
        for split in (flags.split, flags.test_split)
    )
    if test.class_names != train.class_names:
        raise UsageError(f"the splits {flags.split} and {flags.test_split} have other classes")
    shape = (flags.image_size, train.images.shape[-1], train.class_names)
    place = classifier.place(source, flags.dataset, flags.data_dir, *shape)
    out = Path(flags.out) if flags.out else cache.cache_folder() / place
    if out.exists() and not flags.force:
        raise UsageError(f"{out} exists; --force trains a new one in its place")
    out.parent.mkdir(parents=True, exist_ok=True)
    if classifier.is_packaged(*shape):
        print(
            f"for these classes the packaged classifier stays in use; cgan evaluate --classifier={out} takes this one"
        )
    if flags.cache:
        compilation_cache.enable()
    plan = training.plan_for(train, flags.epochs, flags.flip and source != "digits", flags.seed)
    description = training.describe(plan, train, f"{flags.dataset} {flags.split}")
    if source != "digits":
        description = description._replace(dataset=f"{description.dataset}, decoded by Pillow {PIL.__version__}")
    kept = _Kept(out.with_name(f".{out.name}.training"), f"{plan} {description}")
    state, seconds = _train(plan, description, train, kept)
    description, variables = training.finished(description, state, test, flags.test_split, seconds)
    classifier.save(out, description, variables)
    kept.forget()
    print(f"wrote {out}: {100 * description.accuracy:.2f}% of {len(test.labels)} {flags.test_split} images are right")


def _train(plan, description, dataset, kept):
    """(the last state, the seconds it took); keeps the state and raises Interrupted where asked to stop."""
    from cgan_jax.evaluation import classifier_training as training
    from cgan_jax.run.signals import StopRequest

    start, before = kept.read(training.create(description, plan, dataset.images))
    state, began, step = start, time.monotonic() - before, int(start.step)
    per_epoch, total = plan.steps_per_epoch(len(dataset.labels)), plan.total_steps(len(dataset.labels))
    with StopRequest() as stop, tqdm(total=total, initial=step, unit="step", disable=not sys.stderr.isatty()) as bar:
        for state, loss in training.fit(plan, description.network, dataset, start):
            step += 1
            bar.update()
            if step % 10 == 0:
                bar.set_postfix_str(f"loss {float(loss):.3f}")
            if step % per_epoch == 0 and bar.disable:
                spent = duration(time.monotonic() - began)
                print(f"epoch {step // per_epoch} of {plan.epochs}  loss {float(loss):.3f}  {spent}", flush=True)
            if stop.requested and step < total:
                kept.write(state, time.monotonic() - began)
                raise Interrupted(f"stopped and kept step {step} of {total}; run the same command again to go on")
    return state, time.monotonic() - began


class _Kept:
    """The state of an interrupted training, beside its result."""

    def __init__(self, path: Path, whose: str):
        self._path, self._whose = path, whose

    def read(self, start):
        """(the state to go on from, the seconds it took), `start` where there is none of this very training."""
        from flax import serialization

        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            kept = serialization.msgpack_restore(self._path.read_bytes())
            if kept["whose"] == self._whose:
                return serialization.from_state_dict(start, kept["state"]), kept["seconds"]
        return start, 0.0

    def write(self, state, seconds: float) -> None:
        from flax import serialization

        kept = {"whose": self._whose, "seconds": seconds, "state": serialization.to_state_dict(state)}
        storage.write_whole(self._path, serialization.msgpack_serialize(kept))

    def forget(self) -> None:
        """Once there is a result."""
        self._path.unlink(missing_ok=True)
