"""Train a recipe, or go on with a run from its latest checkpoint.

    cgan train --config=digits --workdir=runs/digits
    cgan train --config=digits --workdir=runs/digits2 --config.train.total_kimg=300.0 --config.seed=1

Every value of the recipe can be overridden by --config.section.field=value; a loss that it does not list is added
whole, as in --config.loss.g_terms.hinge="{'weight': 1.0}". cgan recipes NAME prints all fields; the commonest are:

    seed                                     another seed trains another model
    dataset       data_dir, image_size       where the images are, and pixels a side
    generator     width, latent_dim, ...     those of the architecture, as for the discriminator
    loss          d_updates, g_terms         losses and regularizers with their weights
    g_optimizer   learning_rate, b1, b2      likewise d_optimizer
    ema           halflife_kimg              of the averaged generator; halflives_kimg=1,25 keeps more
    augment       policy                     what the discriminator's images go through
    anneal        kimg, to                   numbers that change during training
    train         total_kimg, max_minutes    the length, in thousands of real images or in minutes
    train         batch_size, g_batch_size   images in a step
    train         log_kimg, sample_kimg      how often to log and to draw
    train         freeze                     layers that stay as they are
    evaluate      metrics, every_kimg        what to measure and how often
    checkpoint    every_kimg, max_to_keep    how often to save, and how many to keep
    guard         action                     raise, or rollback: what happens when training fails

The same command again resumes the run exactly. Ctrl-C saves and ends with exit code 75. On several hosts every one runs
the same command, in a workdir that all of them see; on TPU slices and under Slurm they find each other, elsewhere
--coordinator_address=HOST:PORT (of process 0), --num_processes and --process_id say how. --workdir=gs://BUCKET/FOLDER
keeps the run in a bucket. --writers names trackers of runs that get the numbers and pictures too.

--memory_gigabytes=15 compiles training until it takes no more of a device: with recomputed activations, and with a
batch in parts. The model stays the same up to rounding.

--init_from=RUN begins a new run with the weights of another one, or of a model; other classes and another image size
will do. train.freeze=discriminator:3 keeps the three layers nearest to the image as they are, likewise generator:2.
"""

from absl import flags as absl_flags

from cgan_jax.commands import _flags, _recipe_flags
from cgan_jax.errors import UsageError
from cgan_jax.files import storage


def define_flags(flags: absl_flags.FlagValues, argv: list[str]) -> None:
    _recipe_flags.define(flags, argv)
    _flags.define(flags, "cache", workdir="The folder of the run, made if needed, or gs://BUCKET/FOLDER.")
    absl_flags.DEFINE_string(
        "init_from", "", "A model whose weights a new run begins with: a name, a file, a run.", flag_values=flags
    )
    absl_flags.DEFINE_list(
        "writers", ["tensorboard"], "tensorboard, trackio, wandb, mlflow: where the numbers go too.", flag_values=flags
    )
    _flags.define(flags, "memory_gigabytes")
    absl_flags.DEFINE_bool("profile", False, "Write a profile of a few steps for TensorBoard.", flag_values=flags)
    absl_flags.DEFINE_string(
        "coordinator_address", None, "HOST:PORT at which process 0 is found by the others.", flag_values=flags
    )
    absl_flags.DEFINE_integer("num_processes", None, "Processes in all; 1 looks for no others.", flag_values=flags)
    absl_flags.DEFINE_integer("process_id", None, "This process's number, from 0.", flag_values=flags)


def main(flags: absl_flags.FlagValues) -> None:
    _flags.need("train", {"--config=NAME": flags.config, "--workdir=FOLDER": flags.workdir})
    workdir = storage.place(flags.workdir)
    if flags.profile and storage.is_remote(workdir):
        raise UsageError(f"--profile writes into a folder of this machine, given --workdir={workdir}")
    recipe = _recipe_flags.given(flags)
    from cgan_jax.run import metric_writers, processes
    from cgan_jax.train import train_and_evaluate

    metric_writers.check(flags.writers)
    with processes.joined(flags.coordinator_address, flags.num_processes, flags.process_id):
        _flags.keep_programs(flags)
        train_and_evaluate(
            recipe,
            workdir,
            flags.profile,
            flags.writers,
            init_from=flags.init_from,
            memory_gigabytes=flags.memory_gigabytes,
        )
