"""Score images of a model or of files, and say exactly what was measured.

    cgan evaluate --workdir=runs/cifar
    cgan evaluate --model=digits
    cgan evaluate --workdir=runs/cifar --metrics=fid,precision_recall --num_images=10000 --seeds=3 --json=scores.json
    cgan evaluate --workdir=runs/cifar --metrics=fid --ema=all
    cgan evaluate --images=pictures.npz --dataset=cifar10

The numbers are printed as a table and, for a run, added to its evaluations.jsonl with the whole protocol: reals, fakes,
network and the hash of its weights, step, seed. By default images are compared by the features of a small classifier,
which needs no download (its Fréchet distance is called cfd); --features=inception takes the network of the published
FID, whose weights cgan prepare-data --inception fetches. Features of the real images are computed once and cached.

--ema=all scores every average that the run keeps (ema.halflives_kimg), and draws averages.png into its folder;
--ema=1,5,25 does so for these half-lives. Scores of averages but the default one are kept in averages.jsonl.
"""

import functools
import json
import statistics
import textwrap
from pathlib import Path
from typing import Any

from absl import flags as absl_flags
from absl.flags import DEFINE_integer, DEFINE_string

from cgan_jax import models
from cgan_jax.commands import _flags, _model_flags
from cgan_jax.errors import UsageError
from cgan_jax.files import storage

_WIDTH = 100
_AVERAGE = "The average with this half-life in kimg, or several; last: the weights of the step; all: each kept one."
_USUAL = "fid,kid,inception_score,precision_recall,density_coverage, by class intra_fid,class_accuracy,ms_ssim"


def define_flags(flags: absl_flags.FlagValues, argv: list[str]) -> None:
    _model_flags.define(flags)
    _flags.define(flags, "step", "batch_stats", "source", "image_size", "cache")
    _flags.define(flags, ema=_AVERAGE)
    _flags.define(flags, force="Replace the --json file that exists.")
    text, integer = (functools.partial(kind, flag_values=flags) for kind in (DEFINE_string, DEFINE_integer))
    text("metrics", None, f"Files of evaluation/metrics/; left out: {_USUAL}.")
    integer("num_images", 50_000, "Images to draw, spread evenly over the classes.", lower_bound=1)
    integer("seeds", 1, "Draw this many times, for a mean and its spread.", lower_bound=1)
    text("features", "classifier", "classifier or inception.")
    text("classifier", "", "A file of cgan train-classifier, instead of the dataset's.")
    text("inception_weights", "", "The file of the Inception network's weights.")
    text("reference", None, "Published statistics (mu, sigma) in a .npz; for fid.")
    text("json", None, "A file for the scores and the protocol.")
    text("images", None, "A .npz, or a folder by class, instead of a model.")
    text("dataset", None, "The dataset that --images are compared with.")
    text("split", None, "The real images; left out: the run's, or train.")
    text("data_dir", None, "A recipe's dataset.data_dir; left out: the run's.")


def main(flags: absl_flags.FlagValues) -> None:
    place = _model_flags.given(flags)
    _flags.need("evaluate", {f"{_model_flags.WORDS}, or --images=FOLDER_OR_NPZ,": place or flags.images})
    if place and flags.images:
        raise UsageError("either a model or --images=FOLDER_OR_NPZ is scored, given both")
    if flags.images and not (flags.dataset or (flags.source and flags.data_dir and flags.dataset == "")):
        raise UsageError("--images needs --dataset=NAME, whose real images they are compared with")
    of_drawing = ("step", "seeds", "num_images", "ema", "batch_stats")
    given = [name for name in of_drawing if flags.images and flags[name].present]
    if given:
        raise UsageError(f"--{given[0]} says what to draw from a run, and --images are drawn already")
    given = [name for name in ("dataset", "source", "image_size") if place and flags[name].present]
    if given:
        raise UsageError(f"--{given[0]} belongs to --images; a model is compared with what it learned from")
    for name, features in (("classifier", "classifier"), ("inception_weights", "inception")):
        if getattr(flags, name) and flags.features != features:
            raise UsageError(f"--{name} belongs to --features={features}, given --features={flags.features}")
    from cgan_jax.evaluation import lengths, scoring
    from cgan_jax.sampling import image_writers, trained

    if flags.json:
        image_writers.check_free([Path(flags.json)], flags.force)
    _flags.keep_programs(flags)
    file = flags.inception_weights if flags.features == "inception" else flags.classifier
    options = scoring.Options(flags.metrics, flags.features, file, flags.reference)
    changed = {name: getattr(flags, name) for name in ("split", "data_dir") if getattr(flags, name) is not None}
    drawn = (flags.step, flags.num_images, flags.seeds, flags.batch_stats)
    if place and flags.ema and ("," in flags.ema or flags.ema == lengths.ALL):
        each = lengths.score_each(place, flags.ema, options, *drawn, changed)
        print(lengths.table(each))
        print(f"\ndrawn in {place / lengths.PICTURE}; added to the run's logs")
        _write(flags.json, {name: one._asdict() for name, one in each.items()})
        return
    kept = False
    if place:
        kept = flags.model not in models.names() and not trained.is_exported(place)
        scored = scoring.score_model(place, options, *drawn, changed, kept, flags.ema)
    else:
        source = flags.source or ("digits" if flags.dataset == "digits" else "tfds")
        section = {"source": source, "name": flags.dataset, "image_size": flags.image_size}
        scored = scoring.score_images(flags.images, options, {"split": "train", "data_dir": "", **section, **changed})
    print(table(*scored))
    print("\n" + summary(*scored, kept))
    _write(flags.json, scored._asdict())


def _write(path: str | None, result: dict[str, Any]) -> None:
    if path:
        storage.make_folder(Path(path).parent)
        storage.write_whole(Path(path), json.dumps(result, indent=2) + "\n")


def table(scores: dict[str, list[float]], protocol: dict[str, Any]) -> str:
    """Every score with its standard deviation over seeds, then the protocol, a line each."""
    width = max(map(len, [*scores, *protocol]))
    lines = []
    for name, values in scores.items():
        spread = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
        lines.append(f"{name:<{width}}  {statistics.fmean(values):.5g}{spread}")
    lines.append("")
    for name, value in protocol.items():
        parts = [f"{of}: {what}" for of, what in value.items()] if isinstance(value, dict) else [str(value)]
        for number, part in enumerate([] if value is None else parts):
            begins = f"{'' if number else name:<{width}}  "
            lines += textwrap.wrap(part, _WIDTH, initial_indent=begins, subsequent_indent=" " * (width + 4))
    return "\n".join(lines)


def summary(scores: dict[str, list[float]], protocol: dict[str, Any], kept: bool) -> str:
    """Three lines: the scores of all images, what was compared, and how to read it. `kept`: a run's log has them."""
    from cgan_jax.evaluation import lengths
    from cgan_jax.run.progress import duration

    whole = [f"{name} {statistics.fmean(scores[name]):.4g}" for name in lengths.chief(scores)]
    of = f"step {protocol['step']} of {protocol['workdir']}" if "step" in protocol else protocol["images"]
    real = f"{protocol['real_dataset']}, {protocol['real_split']}"
    if protocol["real_images"] is not None:  # published statistics do not say it
        real = f"{protocol['real_images']:,} of {real}"
    notes = "; added to its logs" if kept else ""
    if any("cfd" in name for name in scores):
        notes += "; cfd is by a small classifier, not comparable with FID"
    return "\n".join(
        [
            f"in short: {', '.join(whole)}",
            f"{protocol['generated_images']:,} images of {of}, against {real}",
            f"measured in {duration(protocol['seconds'])}{notes}",
        ]
    )
