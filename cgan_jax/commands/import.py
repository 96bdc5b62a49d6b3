"""Make a run of networks that PyTorch-StudioGAN has trained.

    cgan import G_ema.pth --discriminator=D.pth --config=cifar10_biggan --workdir=runs/studiogan
    cgan sample --workdir=runs/studiogan --out=grid.png
    cgan evaluate --workdir=runs/studiogan --features=inception --metrics=fid --batch_stats=standing

The files are checkpoints of its SNGAN and BigGAN: G_ema if there is one, otherwise G. The recipe has the sizes of the
networks and names the dataset, which must be prepared. PyTorch is not needed, and nothing in a file is run.
"""

from absl import flags as absl_flags

from cgan_jax.commands import _flags, _recipe_flags
from cgan_jax.files import storage

ARGUMENT = "generator"


def define_flags(flags: absl_flags.FlagValues, argv: list[str]) -> None:
    _recipe_flags.define(flags, argv)
    _flags.define(flags, workdir="The folder of the run to write, or gs://BUCKET/FOLDER.")
    absl_flags.DEFINE_string(
        "generator", None, "The file of the generator; cgan import FILE is the same.", flag_values=flags
    )
    absl_flags.DEFINE_string("discriminator", None, "The file of the discriminator.", flag_values=flags)


def main(flags: absl_flags.FlagValues) -> None:
    needed = {"FILE": flags.generator, "--config=NAME": flags.config, "--workdir=FOLDER": flags.workdir}
    _flags.need("import", needed)
    folder = storage.place(flags.workdir)
    recipe = _recipe_flags.given(flags)

    from cgan_jax.run import importing

    discriminator = storage.place(flags.discriminator, "--discriminator") if flags.discriminator else None
    importing.write_run(recipe, folder, storage.place(flags.generator, "FILE"), discriminator)
