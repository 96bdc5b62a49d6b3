"""Score a run's images, or anybody's, and say exactly what was measured.

    cgan evaluate --workdir=runs/cifar
    cgan evaluate --workdir=runs/cifar --metrics=fid,precision_recall --num_images=10000 --seeds=3 --json=scores.json
    cgan evaluate --images=pictures.npz --dataset=cifar10

The numbers are printed as a table and, for a run, added to its evaluations.jsonl with the whole protocol: reals, fakes,
network and the hash of its weights, step, seed. By default images are compared by the features of a small classifier,
which needs no download (its Fréchet distance is called cfd); --features=inception takes the network of the published
FID, whose weights cgan prepare-data --inception fetches. Features of the real images are computed once and cached.
"""

import json
import statistics
import time
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from cgan_jax.errors import UsageError
from cgan_jax.files import storage

_OF_FEATURES = "fid,kid,inception_score,precision_recall,density_coverage"
_OF_CLASSES = "intra_fid,class_accuracy,ms_ssim"


def define_flags(flags: absl_flags.FlagValues, argv: list[str]) -> None:
    absl_flags.DEFINE_string("workdir", None, "The folder of a run.", flag_values=flags)
    absl_flags.DEFINE_string(
        "step", None, "A checkpoint's generator step, or best; left out: latest.", flag_values=flags
    )
    absl_flags.DEFINE_string(
        "metrics", None, f"Files of metrics/; left out: {_OF_FEATURES}, by class {_OF_CLASSES}.", flag_values=flags
    )
    absl_flags.DEFINE_integer(
        "num_images", 50_000, "Images to draw, spread evenly over the classes.", flag_values=flags
    )
    absl_flags.DEFINE_integer("seeds", 1, "Draw this many times, for a mean and its spread.", flag_values=flags)
    absl_flags.DEFINE_string("features", "classifier", "classifier or inception.", flag_values=flags)
    absl_flags.DEFINE_string(
        "classifier", "", "A file of cgan train-classifier in place of its own.", flag_values=flags
    )
    absl_flags.DEFINE_string("inception_weights", "", "The file of the Inception network's weights.", flag_values=flags)
    absl_flags.DEFINE_string(
        "reference", None, "Published statistics (mu, sigma) in a .npz; for fid.", flag_values=flags
    )
    absl_flags.DEFINE_string("json", None, "A file for the scores and the protocol.", flag_values=flags)
    absl_flags.DEFINE_string("images", None, "A .npz, or a folder by class, in place of a run.", flag_values=flags)
    absl_flags.DEFINE_string("dataset", None, "What --images are compared with.", flag_values=flags)
    absl_flags.DEFINE_string("source", None, "A recipe's dataset.source; left out: digits or tfds.", flag_values=flags)
    absl_flags.DEFINE_string("split", None, "The real images; left out: the run's, or train.", flag_values=flags)
    absl_flags.DEFINE_string("data_dir", None, "A recipe's dataset.data_dir.", flag_values=flags)
    absl_flags.DEFINE_integer("image_size", 32, "A recipe's dataset.image_size, with --images.", flag_values=flags)
    absl_flags.DEFINE_enum(
        "batch_stats", "ema", ["ema", "standing"], "Statistics that the generator normalises by.", flag_values=flags
    )
    absl_flags.DEFINE_bool("force", False, "Replace the --json file that exists.", flag_values=flags)
    absl_flags.DEFINE_bool(
        "cache", True, "Do not keep compiled programs in $CGAN_CACHE_DIR (~/.cache/cgan_jax).", flag_values=flags
    )


def main(flags: absl_flags.FlagValues) -> None:
    if bool(flags.workdir) == bool(flags.images):
        raise UsageError("either --workdir=FOLDER or --images=FOLDER_OR_NPZ is needed (see cgan evaluate --help)")
    if flags.images and not flags.dataset:
        raise UsageError("--images needs --dataset=NAME, whose real images they are compared with")
    given = [name for name in ("step", "seeds", "num_images", "batch_stats") if flags.images and flags[name].present]
    if given:
        raise UsageError(f"--{given[0]} says what to draw from a run, and --images are drawn already")
    for name in ("num_images", "seeds"):
        if getattr(flags, name) < 1:
            raise UsageError(f"--{name} must be at least 1, given {getattr(flags, name)}")
    from cgan_jax.files import compilation_cache
    from cgan_jax.sampling import image_writers

    if flags.json:
        image_writers.check_free([Path(flags.json)], flags.force)
    if flags.cache:
        compilation_cache.enable()
    scores, protocol, line = _of_run(flags) if flags.workdir else _of_images(flags)
    print(table(scores, protocol))
    if line is not None:
        from cgan_jax.run import workdir as workdirs

        for name, values in scores.items():
            line[f"eval/{name}"] = statistics.fmean(values)
            if len(values) > 1:
                line[f"spread/{name}"] = statistics.stdev(values)
        workdirs.append_metrics(storage.place(flags.workdir), {**line, "protocol": protocol}, workdirs.EVALUATIONS)
    if flags.json:
        storage.make_folder(Path(flags.json).parent)
        storage.write_whole(Path(flags.json), json.dumps({"scores": scores, "protocol": protocol}, indent=2) + "\n")


def _of_run(flags: absl_flags.FlagValues) -> tuple[dict[str, list[float]], dict[str, Any], dict[str, Any]]:
    """(scores of every seed by name, protocol, the beginning of a line of evaluations.jsonl)."""
    import numpy as np

    from cgan_jax.build import images_per_step
    from cgan_jax.data import sources
    from cgan_jax.evaluation import evaluation
    from cgan_jax.run import progress
    from cgan_jax.run.workdir import read_info
    from cgan_jax.sampling.request import parse_step, spread
    from cgan_jax.sampling.sampling import Sampler, gathered

    began, step = time.perf_counter(), parse_step(flags.step)
    workdir = storage.place(flags.workdir)
    info = read_info(workdir)
    section = dict(info.recipe["dataset"])
    for name in ("split", "data_dir"):
        section[name] = section[name] if getattr(flags, name) is None else getattr(flags, name)
    classes = len(info.class_names) if section["conditional"] else 1
    metrics = _metrics(flags, classes)
    evaluation.check_counts(metrics, flags.num_images, classes, "--num_images")
    sampler = Sampler(workdir, step, batch_size=256, batch_stats=flags.batch_stats)
    if flags.reference:  # which stands for the images
        size = section["image_size"]
        nothing = np.zeros((1, size, size, info.channels), np.uint8), np.zeros(1, np.int32)
        dataset = sources.Dataset(*nothing, tuple(info.class_names))
    else:
        dataset = sources.load_section(section)
    if list(dataset.class_names) != info.class_names or dataset.images.shape[-1] != info.channels:
        raise UsageError(f"the images of {section['name']} {section['split']} are not what the run was trained on")
    reference = _reference(flags, metrics, section, dataset)
    judges = any("verdicts" in metric.READS for metric in metrics.values())
    if judges:
        if section["split"] != (shown := info.recipe["dataset"]["split"]):
            raise UsageError(
                f"discriminator_accuracy is of the images of training, {shown}; given --split={flags.split}"
            )
        held_out = _held_out(section)
        reference = evaluation.with_verdicts(reference, sampler, held_out, section["conditional"])
    labels, indices = spread(flags.num_images, list(range(classes)))
    scores: dict[str, list[float]] = {}
    for seed in range(flags.seeds):
        batches = progress.counted(sampler.images(seed, labels, indices), flags.num_images, f"drawing, seed {seed}")
        images = gathered(batches)
        verdicts = evaluation.verdicts_of(sampler, images, labels) if judges else None
        for name, number in evaluation.score(metrics, images, labels, reference, verdicts).items():
            scores.setdefault(name, []).append(number)
    protocol = evaluation.protocol(
        reference,
        metrics,
        flags.num_images,
        began,
        **evaluation.of_run(info.recipe, sampler.variables, flags.batch_stats),
        workdir=flags.workdir,
        step=sampler.step,
        chosen=_chosen(flags.step, workdir, sampler.step),
        seeds=list(range(flags.seeds)),
    )
    kimg = round(sampler.step * images_per_step(info.recipe) / 1000, 6)
    return scores, protocol, {"step": sampler.step, "kimg": kimg}


def _chosen(asked: str | None, workdir: Path, step: int) -> str:
    """Why it is this step; of the best, by what it was rated."""
    from cgan_jax.run import integrity

    if asked == "best":
        return f"best by {integrity.read(workdir, step).cost_of or 'a metric that it does not name'}"
    return "given" if asked else "latest"


def _held_out(section: dict[str, Any]) -> Any:
    """The test split, where there is one and training was shown another."""
    from cgan_jax.data import sources

    if section["split"] != "train":
        return None
    try:
        return sources.load_section({**section, "split": "test"})
    except UsageError:
        return None


def _of_images(flags: absl_flags.FlagValues) -> tuple[dict[str, list[float]], dict[str, Any], None]:
    """(scores by name, protocol, None) of images in files."""
    import numpy as np

    from cgan_jax.data import sources
    from cgan_jax.evaluation import evaluation, image_readers

    began = time.perf_counter()
    section = {
        "source": flags.source or ("digits" if flags.dataset == "digits" else "tfds"),
        "name": flags.dataset,
        "split": flags.split or "train",
        "data_dir": flags.data_dir or "",
        "image_size": flags.image_size,
    }
    dataset = sources.load_section(section)
    given = image_readers.read(Path(flags.images), dataset.images.shape[1:], dataset.class_names)
    conditional = given.labels is not None
    section["conditional"] = conditional
    classes = len(dataset.class_names) if conditional else 1
    metrics = _metrics(flags, classes)
    if not conditional:
        evaluation.check_labelled(metrics, f"{flags.images} has no labels")
    for name, metric in metrics.items():
        if "verdicts" in metric.READS:
            raise UsageError(f"{name} asks a run's discriminator, and --images are of no run")
    reference = _reference(flags, metrics, section, dataset)
    labels = given.labels if conditional else np.zeros(len(given.images), np.int32)
    scores = evaluation.score(metrics, given.images, labels, reference)
    protocol = evaluation.protocol(reference, metrics, len(labels), began, images=flags.images)
    return {name: [number] for name, number in scores.items()}, protocol, None


def _metrics(flags: absl_flags.FlagValues, classes: int) -> dict[str, Any]:
    """The metrics asked for by name, or all that need no training."""
    from cgan_jax.evaluation import evaluation

    usual = [_OF_FEATURES, _OF_CLASSES] if classes > 1 else [_OF_FEATURES]
    metrics = evaluation.metrics_named("fid" if flags.reference else ",".join(usual))
    if flags.metrics is not None:
        metrics = evaluation.metrics_named(flags.metrics)
    elif flags.features == "inception":  # whose logits are of no dataset's classes
        metrics = {name: metric for name, metric in metrics.items() if not getattr(metric, "OF_CLASSES", False)}
    if not metrics:
        raise UsageError("--metrics names none")
    if flags.reference and list(metrics) != ["fid"]:
        raise UsageError("--reference holds the mean and covariance of features, which serve --metrics=fid alone")
    return metrics


def _reference(flags: absl_flags.FlagValues, metrics: dict[str, Any], section: dict[str, Any], dataset: Any) -> Any:
    """What the images are compared with."""
    from cgan_jax.evaluation import evaluation

    network = None
    if evaluation.reads_network(metrics):
        file = flags.inception_weights if flags.features == "inception" else flags.classifier
        channels = dataset.images.shape[-1]
        network = evaluation.find_network(flags.features, section, channels, dataset.class_names, file)
        evaluation.check_network(metrics, network, dataset.class_names)
    if flags.reference:
        return evaluation.published_reference(Path(flags.reference), dataset, section, network)
    return evaluation.make_reference(dataset, section, metrics, network)


def table(scores: dict[str, list[float]], protocol: dict[str, Any]) -> str:
    """Every score with its spread over seeds, then the protocol, a line each."""
    width = max(map(len, [*scores, *protocol]))
    lines = []
    for name, values in scores.items():
        spread = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
        lines.append(f"{name:<{width}}  {statistics.fmean(values):.5g}{spread}")
    lines.append("")
    for name, value in protocol.items():
        told = ", ".join(f"{of}: {what}" for of, what in value.items()) if isinstance(value, dict) else value
        lines += [] if value is None else [f"{name:<{width}}  {told}"]
    return "\n".join(lines)
