"""Put a trained generator into one portable file.

    cgan export --workdir=runs/digits --out=model.cgan
    cgan export --workdir=runs/digits --format=safetensors --out=weights.safetensors
    cgan export --workdir=runs/digits --format=packed --out=packed/

model.cgan holds weights, programs for cpu, cuda and tpu, class names and metrics. Drawing from it takes jax, numpy,
flatbuffers, and exported.py and errors.py of this package:

    from cgan_jax import exported
    model = exported.load("model.cgan")
    images = model([3, 3, 7], seed=0, truncation=0.7)      # uint8 [3, H, W, C], those of cgan sample

A checksum finds files that were cut short or altered; it does not show who made them. --format=safetensors writes the
averaged weights alone, by layer, for tools that read that format. --format=packed writes a small folder that every
command takes as --model: recipe, logs, and the weights in half precision, with the discriminator's if they fit in 3 MB.
"""

from pathlib import Path

from absl import flags as absl_flags

from cgan_jax.commands import _flags, _model_flags
from cgan_jax.errors import UsageError
from cgan_jax.files import storage


def define_flags(flags: absl_flags.FlagValues, argv: list[str]) -> None:
    _model_flags.define(flags)
    _flags.define(flags, "step", "ema", "batch_stats", "force")
    absl_flags.DEFINE_string("out", None, "The file to write, or with --format=packed the folder.", flag_values=flags)
    kinds = ["cgan", "safetensors", "packed"]
    absl_flags.DEFINE_enum(
        "format", "cgan", kinds, "A model to draw from, bare weights, or a packed model.", flag_values=flags
    )


def main(flags: absl_flags.FlagValues) -> None:
    place = _model_flags.given(flags)
    _flags.need("export", {_model_flags.WORDS: place, "--out=FILE": flags.out})

    from cgan_jax.run import packed
    from cgan_jax.sampling import export, image_writers, request, sampling

    out, packs = Path(flags.out), flags.format == "packed"
    if packs and flags.batch_stats != "ema":
        raise UsageError("--format=packed keeps the averages of training; --batch_stats belongs to drawing from it")
    image_writers.check_free(packed.replaced_in(out) if packs else [out], flags.force)
    sampler = sampling.Sampler(place, request.parse_step(flags.step), batch_stats=flags.batch_stats, ema=flags.ema)
    if packs:
        print(f"packed step {sampler.step} into {out} ({export.pack(sampler, place, out)})")
        return
    content = export.content(sampler, place, flags.format)
    storage.make_folder(out.parent)
    storage.write_whole(out, content)
    print(f"wrote step {sampler.step} to {out} ({len(content) / 1e6:.1f} MB)")
