"""Put a dataset, or the network that FID needs, on this machine, once.

    cgan prepare-data --dataset=cifar10

downloads CIFAR-10 (170 MB) and writes it to ~/tensorflow_datasets/cifar10. The dataset may be any image
classification set of TensorFlow Datasets (https://www.tensorflow.org/datasets/catalog): cifar10, cifar100, mnist,
fashion_mnist, svhn_cropped, ... TensorFlow itself is not needed for these.

Where the download is not possible, fetch the file by hand on another machine (the command says which) and give it:

    cgan prepare-data --dataset=cifar10 --archive=cifar-10-binary.tar.gz

FID and its relatives compare images by a published network, Inception v3, whose weights (96 MB) are fetched by

    cgan prepare-data --inception

to $CGAN_CACHE_DIR, or ~/.cache/cgan_jax without it. Nothing else in cgan ever downloads anything.
"""

from absl import flags as absl_flags

from cgan_jax.commands import _flags
from cgan_jax.errors import UsageError


def define_flags(flags: absl_flags.FlagValues, argv: list[str]) -> None:
    set_name = "A TensorFlow Datasets image classification set, such as cifar10."
    absl_flags.DEFINE_string("dataset", None, set_name, flag_values=flags)
    _flags.define(flags, data_dir="The folder of the prepared sets; left out: $TFDS_DATA_DIR or ~/tensorflow_datasets.")
    by_hand = "The dataset's file, or a folder with all of its files under their own names; nothing is downloaded."
    absl_flags.DEFINE_string("archive", "", by_hand, flag_values=flags)
    absl_flags.DEFINE_bool("inception", False, "Prepare the Inception network, no dataset.", flag_values=flags)


def main(flags: absl_flags.FlagValues) -> None:
    if flags.inception and (flags.dataset or flags.data_dir or flags.archive):
        raise UsageError("--inception stands alone: --dataset, --data_dir and --archive are for a dataset")
    if not flags.inception and not flags.dataset:
        raise UsageError("--dataset is missing; for example: cgan prepare-data --dataset=cifar10")
    if flags.inception:
        from cgan_jax.evaluation.features import inception

        what, (place, was_there) = "the Inception network", inception.prepare()
    else:
        from cgan_jax.data import prepare

        what, (place, was_there) = flags.dataset, prepare.prepare(flags.dataset, flags.data_dir, flags.archive)
    print(f"{what} is {'already ' if was_there else ''}prepared in {place}")
