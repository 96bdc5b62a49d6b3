"""Scores of a run's images, or of images in files, with their protocol: the work of `cgan evaluate`."""

import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from cgan_jax import averages, models
from cgan_jax.build import kimg_after
from cgan_jax.data import sources
from cgan_jax.errors import UsageError
from cgan_jax.evaluation import evaluation, image_readers
from cgan_jax.run import integrity, progress
from cgan_jax.run import workdir as workdirs
from cgan_jax.sampling import trained
from cgan_jax.sampling.request import parse_step, spread
from cgan_jax.sampling.sampling import Sampler, gathered

_OF_FEATURES = "fid,kid,inception_score,precision_recall,density_coverage"
_OF_CLASSES = "intra_fid,class_accuracy,ms_ssim"
_BATCH_SIZE = 256


class Options(NamedTuple):
    """What to measure, and by which network."""

    metrics: str | None = None
    """Names of evaluation/metrics/, separated by commas; None for all that need no training."""
    features: str = "classifier"
    network_file: str = ""
    """The weights of the network of `features`; "" for the file in its usual place."""
    reference: str | None = None
    """A file of published statistics, instead of features of the real images."""


class Scored(NamedTuple):
    """The scores of each seed by name, and the protocol."""

    scores: dict[str, list[float]]
    protocol: dict[str, Any]


def score_model(
    place: Path,
    options: Options,
    step: str | None,
    num_images: int,
    seeds: int,
    batch_stats: str,
    changed: Mapping[str, Any],
    remember: bool = True,
    ema: float | str | None = None,
) -> Scored:
    """Scores images of the averaged generator at a step ("1500", "best"; None for the latest), drawn `seeds` times.

    `changed` replaces fields of the recipe's section `dataset` for the real images. `ema` chooses an average as in
    trained.load. With `remember`, a folder gets a line with the mean scores in its evaluations.jsonl, or in its
    averages.jsonl for another average than the default one and for standing statistics, which are other scores of the
    step. Raises UsageError for what cannot be measured.
    """
    began = time.perf_counter()
    info = trained.info_at(place)
    section = {**info.recipe["dataset"], **changed}
    if not section["source"]:
        raise UsageError(f"{place} is an export of version 0.1, which does not name the dataset; export it again")
    classes = len(info.class_names) if section["conditional"] else 1
    metrics = _metrics(options, classes)
    evaluation.check_counts(metrics, num_images, classes, "--num_images")
    sampler = Sampler(place, parse_step(step), _BATCH_SIZE, batch_stats=batch_stats, ema=ema)
    reference = _reference(options, metrics, section, _real_images(options, section, info))
    judges = any("verdicts" in metric.READS for metric in metrics.values())
    if judges:
        if section["split"] != (shown := info.recipe["dataset"]["split"]):
            raise UsageError(
                f"discriminator_accuracy is of the images of training, {shown}; given --split={section['split']}"
            )
        reference = evaluation.with_verdicts(reference, sampler, _held_out(section), section["conditional"])
    labels, indices = spread(num_images, list(range(classes)))
    scores: dict[str, list[float]] = {}
    for seed in range(seeds):
        batches = progress.counted(sampler.images(seed, labels, indices), num_images, f"drawing, seed {seed}")
        images = gathered(batches)
        verdicts = evaluation.verdicts_of(sampler, images, labels) if judges else None
        for name, number in evaluation.score(metrics, images, labels, reference, verdicts).items():
            scores.setdefault(name, []).append(number)
    of_run = {
        **evaluation.of_run(sampler.info.recipe, sampler.variables, sampler.batch_stats),
        "workdir": models.shown(place),
        "step": sampler.step,
        "chosen": _chosen(step, place, sampler.step),
        "seeds": list(range(seeds)),
    }
    if sampler.average not in ("", *averages.names(info.recipe)):
        of_run["made_of"] = "averages in the checkpoints, by least squares"
    scored = Scored(scores, evaluation.protocol(reference, metrics, num_images, began, **of_run))
    if remember and not trained.is_exported(place):
        _remember(place, sampler.step, kimg_after(info.recipe, sampler.step), scored, sampler.logged_as)
    return scored


def _remember(workdir: Path, step: int, kimg: float, scored: Scored, average: str) -> None:
    """Adds the mean scores, and their standard deviations over several seeds, to the log of the average."""
    line = {"step": step, "kimg": kimg, **({"average": average} if average else {})}
    for name, values in scored.scores.items():
        line[f"eval/{name}"] = statistics.fmean(values)
        if len(values) > 1:
            line[f"spread/{name}"] = statistics.stdev(values)
    log = workdirs.AVERAGES if average else workdirs.EVALUATIONS
    workdirs.append_metrics(workdir, {**line, "protocol": scored.protocol}, log)


def _real_images(options: Options, section: Mapping[str, Any], info: workdirs.RunInfo) -> sources.Dataset:
    """The dataset of `section`, or a black image if statistics replace it. Raises UsageError for other classes."""
    if options.reference:
        size = section["image_size"]
        black = np.zeros((1, size, size, info.channels), np.uint8)
        return sources.Dataset(black, np.zeros(1, np.int32), tuple(info.class_names))
    with progress.telling("reading the real images"):
        dataset = sources.load_section(section)
    if list(dataset.class_names) != info.class_names or dataset.images.shape[-1] != info.channels:
        raise UsageError(f"the images of {section['name']} {section['split']} are not what the run was trained on")
    return dataset


def _chosen(asked: str | None, workdir: Path, step: int) -> str:
    """Why it is this step: given, the latest, or the best by some metric."""
    if asked == "best":
        return f"best by {integrity.read(workdir, step).cost_of or 'a metric that it does not name'}"
    return "given" if asked else "latest"


def _held_out(section: Mapping[str, Any]) -> sources.Dataset | None:
    """The test split, if there is one and training was shown the train split."""
    if section["split"] != "train":
        return None
    try:
        return sources.load_section({**section, "split": "test"})
    except UsageError:
        return None


def score_images(path: str, options: Options, section: Mapping[str, Any]) -> Scored:
    """Scores images of a .npz or a folder against the dataset of `section` (source, name, split, data_dir, image_size).

    Raises UsageError for what cannot be measured.
    """
    began = time.perf_counter()
    with progress.telling("reading the real images"):
        dataset = sources.load_section(section)
    given = image_readers.read(Path(path), dataset.images.shape[1:], dataset.class_names)
    conditional = given.labels is not None
    metrics = _metrics(options, len(dataset.class_names) if conditional else 1)
    if not conditional:
        evaluation.check_labelled(metrics, f"{path} has no labels")
    for name, metric in metrics.items():
        if "verdicts" in metric.READS:
            raise UsageError(f"{name} asks a run's discriminator, and --images are of no run")
    reference = _reference(options, metrics, {**section, "conditional": conditional}, dataset)
    labels = given.labels if conditional else np.zeros(len(given.images), np.int32)
    scores = evaluation.score(metrics, given.images, labels, reference)
    protocol = evaluation.protocol(reference, metrics, len(labels), began, images=path)
    return Scored({name: [number] for name, number in scores.items()}, protocol)


def _metrics(options: Options, classes: int) -> dict[str, ModuleType]:
    """The metrics that the options name, or all that need no training."""
    usual = [_OF_FEATURES, _OF_CLASSES] if classes > 1 else [_OF_FEATURES]
    metrics = evaluation.metrics_named("fid" if options.reference else ",".join(usual))
    if options.metrics is not None:
        metrics = evaluation.metrics_named(options.metrics)
    elif options.features == "inception":  # its logits are of no dataset's classes
        metrics = {name: metric for name, metric in metrics.items() if not getattr(metric, "OF_CLASSES", False)}
    if not metrics:
        raise UsageError("--metrics names none")
    if options.reference and list(metrics) != ["fid"]:
        raise UsageError("--reference holds the mean and covariance of features, which serve --metrics=fid alone")
    return metrics


def _reference(
    options: Options, metrics: Mapping[str, ModuleType], section: Mapping[str, Any], dataset: sources.Dataset
) -> evaluation.Reference:
    """The real images, or published statistics, and the network that compares."""
    network = None
    if evaluation.reads_network(metrics):
        channels, names = dataset.images.shape[-1], dataset.class_names
        network = evaluation.find_network(options.features, section, channels, names, options.network_file)
        evaluation.check_network(metrics, network, names)
    if options.reference:
        return evaluation.published_reference(Path(options.reference), dataset, section, network)
    return evaluation.make_reference(dataset, section, metrics, network)
