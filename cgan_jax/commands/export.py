"""Put a trained generator into one portable file.

    cgan export --workdir=runs/digits --out=model.cgan
    cgan export --workdir=runs/digits --format=safetensors --out=weights.safetensors

model.cgan holds weights, programs for cpu, cuda and tpu, class names and metrics. Drawing from it takes jax, numpy,
flatbuffers, and exported.py and errors.py of this package:

    from cgan_jax import exported
    model = exported.load("model.cgan")
    images = model([3, 3, 7], seed=0, truncation=0.7)      # uint8 [3, H, W, C], those of cgan sample

A checksum finds files that were cut short or altered; it does not show who made them. --format=safetensors writes the
averaged weights alone, by layer, for tools that read that format.
"""

from pathlib import Path

from absl import flags as absl_flags

from cgan_jax.commands import _flags
from cgan_jax.errors import UsageError
from cgan_jax.files import storage


def define_flags(flags: absl_flags.FlagValues, argv: list[str]) -> None:
    _flags.define(flags, "workdir", "step", "batch_stats", "force")
    absl_flags.DEFINE_string("out", None, "The file to write.", flag_values=flags)
    kinds = ["cgan", "safetensors"]
    absl_flags.DEFINE_enum("format", "cgan", kinds, "A model to draw from, or bare weights.", flag_values=flags)


def main(flags: absl_flags.FlagValues) -> None:
    if not flags.workdir or not flags.out:
        raise UsageError("both --workdir=FOLDER and --out=FILE are needed (see cgan export --help)")

    from cgan_jax.sampling import export, image_writers, request, sampling

    workdir, out = storage.place(flags.workdir), Path(flags.out)
    image_writers.check_free([out], flags.force)
    step = request.parse_step(flags.step)
    sampler = sampling.Sampler(workdir, step, batch_stats=flags.batch_stats)
    content = export.content(sampler, workdir, flags.batch_stats, flags.format)
    storage.make_folder(out.parent)
    storage.write_whole(out, content)
    print(f"wrote step {sampler.step} to {out} ({len(content) / 1e6:.1f} MB)")
