"""Scores images by the metrics of metrics/, and says exactly what was measured.

A number is named {prefix}{metric}{n}k_{split}: n thousand generated images against the real ones of a split, compared
by the network of that prefix ("" for the original Inception, "c" for the classifier). What looks at pixels alone keeps
its plain name.
"""

import contextlib
import hashlib
import re
import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
import PIL

from cgan_jax import averages, recipe_files
from cgan_jax.data.batches import normalized, whole_batches
from cgan_jax.data.sources import Dataset
from cgan_jax.errors import UsageError
from cgan_jax.evaluation.features import Network, classifier, inception
from cgan_jax.evaluation.metrics import Sample, check_labels, fid
from cgan_jax.files import cache, storage
from cgan_jax.files.npz import arrays_in
from cgan_jax.lookup import module_named, unknown
from cgan_jax.parallel import make_mesh, per_sample, replicated
from cgan_jax.recipe_fields import SECTIONS
from cgan_jax.run import progress
from cgan_jax.sampling.request import spread
from cgan_jax.sampling.sampling import Sampler, draw_images, gathered
from cgan_jax.train_state import Tree

FEATURES = ("classifier", "inception")
_OF_DRAWING = ("balance", "conditional", "placement")
"""Fields of the section dataset that change no image."""
BATCH_PER_DEVICE = 256
_DRAWN_AT_ONCE = 100
_HASHED_AT_ONCE = 4096


class Reference(NamedTuple):
    """The real images that generated ones are compared with, and the network that compares them."""

    real: Sample
    class_names: tuple[str, ...]
    split: str
    network: Network | None
    """None if the metrics read pixels alone."""
    dataset: str
    """Source and name of the dataset."""
    sha256: str
    """Of the real images' pixels, or of the file of published statistics."""
    moments: fid.Moments | None = None
    """Published statistics in place of the real images."""


def metrics_named(text: str) -> dict[str, ModuleType]:
    """The metrics of "fid,kid" by name, "" is none. Raises UsageError for one that does not exist or comes twice."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"metric {name!r} is asked for twice")
    return {name: module_named("cgan_jax.evaluation.metrics", name, "metric") for name in names}


def check_counts(metrics: Mapping[str, ModuleType], num_images: int, num_classes: int, given: str) -> None:
    """Raises UsageError if `num_images`, spread over the classes, are too few for a metric."""
    if metrics and num_images < num_classes:
        raise UsageError(f"{given}={num_images} is fewer than the {num_classes} classes")
    for name, metric in metrics.items():
        if num_classes < getattr(metric, "MIN_CLASSES", 1):
            raise UsageError(f"{name} needs images of several classes, and there is one")
        least = max(metric.MIN_IMAGES, metric.MIN_PER_CLASS * num_classes)
        if num_images < least:
            raise UsageError(f"{given}={num_images} is too few for {name}, which needs {least}")


def _real_labels(
    metrics: Mapping[str, ModuleType], dataset: Dataset, conditional: bool
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The labels and classes by which metrics see the real images: all are one class for an unconditional run.

    Raises UsageError if they are too few for a metric that compares with them.
    """
    labels, names = (dataset.labels, dataset.class_names) if conditional else (np.zeros_like(dataset.labels), ("all",))
    for name, metric in metrics.items():
        if getattr(metric, "USES_REAL", True):
            check_labels("real", name, labels, names, metric.MIN_IMAGES, metric.MIN_PER_CLASS)
    return labels, names


def reads_network(metrics: Mapping[str, ModuleType]) -> bool:
    """Whether any of them looks at more than pixels."""
    return any(set(metric.READS) & {"features", "logits"} for metric in metrics.values())


def check_labelled(metrics: Mapping[str, ModuleType], what: str) -> None:
    """Raises UsageError for a metric that compares class by class: `what` has no classes."""
    for name, metric in metrics.items():
        if metric.MIN_PER_CLASS:
            raise UsageError(f"{name} compares class by class, and {what}")


def check_network(metrics: Mapping[str, ModuleType], network: Network | None, class_names: tuple[str, ...]) -> None:
    """Raises UsageError if a metric needs logits of the dataset's classes and the network has others."""
    for name, metric in metrics.items():
        if getattr(metric, "OF_CLASSES", False) and network.class_names != class_names:
            others = (
                f"of {', '.join(network.class_names[:5])}..." if network.class_names else "of no class of a dataset"
            )
            raise UsageError(
                f"{name} needs a classifier of the dataset's classes; the logits of {network.name} are {others}"
            )


def find_network(
    features: str, section: Mapping[str, Any], channels: int, class_names: tuple[str, ...], file: str = ""
) -> Network:
    """The network that `features` names, for the dataset of a recipe's `section`; from `file` if given.

    A classifier comes from the package (CIFAR-10), else from the cache. Raises UsageError if there is none, or if it
    was trained on images of another kind.
    """
    if features not in FEATURES:
        raise unknown("feature network", features, FEATURES)
    if features == "inception":
        network = inception.load(file) if file else inception.load()
        if channels not in network.channels:
            raise UsageError(f"images have {channels} channels, and Inception reads 1 or 3")
        return network
    size = section["image_size"]
    path = Path(file) if file else _classifier_of(section, size, channels, class_names)
    network = classifier.load(path)
    if channels not in network.channels:
        raise UsageError(f"images have {channels} channels, and {path} was trained on {network.channels[0]}")
    if network.image_size != size:
        raise UsageError(f"images have {size} pixels a side, and {path} was trained on {network.image_size}")
    return network


def _classifier_of(section: Mapping[str, Any], size: int, channels: int, class_names: tuple[str, ...]) -> Path:
    if classifier.is_packaged(size, channels, class_names):
        return classifier.PACKAGED
    place = classifier.place(*(section[key] for key in ("source", "name", "data_dir")), size, channels, class_names)
    path = cache.cache_path() / place
    if not path.exists():
        raise UsageError(
            f"the {len(class_names)} classes of {section['name'] or section['data_dir']} have no classifier yet; train"
            f" one with {_training_command(section)} (on two cores about a minute for the digits, an hour for 50,000"
            " images of 32 pixels), or choose metrics that need none, such as ms_ssim"
        )
    return path


def _training_command(section: Mapping[str, Any]) -> str:
    """The command that trains a dataset's classifier. Fields such as `fit` have no flag, so --config gives them."""
    if section["source"] in ("images", "image_folder"):
        given = recipe_files.load("images").dataset.to_dict()
        changed = {
            name: value for name, value in section.items() if value != given.get(name) and name not in _OF_DRAWING
        }
        others = [shlex.quote(f"--config.dataset.{name}={value}") for name, value in changed.items()]
        return " ".join(["cgan train-classifier --config=images", *others])
    usual = {name: field.before for name, field in SECTIONS["dataset"].items() if field.before is not None}
    if any(section.get(name, value) != value for name, value in usual.items() if name != "balance"):
        return "cgan train-classifier and the run's --config, with its overrides of the section dataset"
    flags = {"source": "digits" if section["name"] == "digits" else "tfds", "image_size": 32, "data_dir": ""}
    other = "".join(f" --{flag}={section[flag]}" for flag, value in flags.items() if section[flag] != value)
    return f"cgan train-classifier --dataset={section['name']}{other}"


def make_reference(
    dataset: Dataset, section: Mapping[str, Any], metrics: Mapping[str, ModuleType], network: Network | None
) -> Reference:
    """The real images of `dataset`, which a recipe's `section` names, and their features if a metric reads them."""
    labels, names = _real_labels(metrics, dataset, section["conditional"])
    of_real = {name: metric for name, metric in metrics.items() if getattr(metric, "USES_REAL", True)}
    features = cached_features(network, dataset.images) if reads_network(of_real) else (None, None)
    sample = Sample(labels, dataset.images, *features)
    named = " ".join(section[key] for key in ("source", "name", "data_dir") if section[key])
    return Reference(sample, names, section["split"], network, named, _sha256_of(dataset.images))


def _sha256_of(images: np.ndarray) -> str:
    digest = hashlib.sha256()
    for start in range(0, len(images), _HASHED_AT_ONCE):  # they may lie in a file and not fit into memory
        digest.update(np.ascontiguousarray(images[start : start + _HASHED_AT_ONCE]))
    return digest.hexdigest()


class Evaluator:
    """Draws images from the averaged generator and scores them, as a recipe's section `evaluate` says."""

    def __init__(self, recipe: Mapping[str, Any], dataset: Dataset):
        """Raises UsageError for a metric or feature network that does not exist or cannot work with the dataset."""
        section = recipe["evaluate"]
        self._recipe, self._dataset = recipe, dataset
        self.metrics = metrics_named(section["metrics"])
        self.keep_best = section["keep_best"]
        ranking = [name for name, metric in self.metrics.items() if hasattr(metric, "BETTER")]
        if self.keep_best and self.keep_best not in ranking:
            there = ", ".join(ranking) or "none"
            raise UsageError(
                f"evaluate.keep_best={self.keep_best!r} must be one of evaluate.metrics that rank: {there}"
            )
        for name, metric in self.metrics.items():
            if "verdicts" in metric.READS:
                raise UsageError(f"{name} is for cgan evaluate; training logs train/d_accuracy_real and _fake anyway")
        classes = len(dataset.class_names) if recipe["dataset"]["conditional"] else 1
        check_counts(self.metrics, section["num_images"], classes, "evaluate.num_images")
        _real_labels(self.metrics, dataset, recipe["dataset"]["conditional"])
        self._network = None
        if reads_network(self.metrics):
            channels = dataset.images.shape[-1]
            self._network = find_network(section["features"], recipe["dataset"], channels, dataset.class_names)
            check_network(self.metrics, self._network, dataset.class_names)
        self._reference: Reference | None = None

    def __call__(self, sampler: Callable[..., jax.Array], variables: Tree) -> tuple[dict[str, float], dict[str, Any]]:
        """(scores by their full names, protocol) of `evaluate.num_images` images spread evenly over the classes."""
        began = time.perf_counter()
        if self._reference is None:
            self._reference = make_reference(self._dataset, self._recipe["dataset"], self.metrics, self._network)
        num_images, classes = self._recipe["evaluate"]["num_images"], len(self._reference.class_names)
        labels, indices = spread(num_images, list(range(classes)))
        batches = draw_images(
            sampler, variables, self._recipe["seed"], labels, indices, min(_DRAWN_AT_ONCE, num_images)
        )
        scores = score(self.metrics, gathered(batches), labels, self._reference)
        drawn_by = of_run(self._recipe, variables)
        said = protocol(self._reference, self.metrics, num_images, began, **drawn_by, seed=self._recipe["seed"])
        return scores, said

    @property
    def cost_of(self) -> str:
        """The full name of the score that `evaluate.keep_best` ranks by, and the network that computes it."""
        whose = f" by {self._network.name} {self._network.weights_sha256[:8]}" if self._network else ""
        return self._ranked + whose

    @property
    def _ranked(self) -> str:
        """The full name of the score that `evaluate.keep_best` ranks by."""
        metric, section = self.metrics[self.keep_best], self._recipe["evaluate"]
        split = self._recipe["dataset"]["split"]
        return full_name(self.keep_best, self.keep_best, metric, self._network, section["num_images"], split)

    def cost(self, scores: Mapping[str, float]) -> float | None:
        """The number that is least for the best checkpoint, by `evaluate.keep_best`."""
        if not self.keep_best:
            return None
        number = scores[self._ranked]
        return number if self.metrics[self.keep_best].BETTER == "lower" else -number


def with_verdicts(reference: Reference, sampler: Sampler, held_out: Dataset | None, conditional: bool) -> Reference:
    """The reference with the verdicts of a run's discriminator on the real images and on held-out ones."""
    real = reference.real
    verdicts = verdicts_of(sampler, real.images, real.labels)
    of_others = None
    if held_out is not None:
        labels = held_out.labels if conditional else np.zeros_like(held_out.labels)
        of_others = verdicts_of(sampler, held_out.images, labels)
    return reference._replace(real=real._replace(verdicts=verdicts, held_out_verdicts=of_others))


def published_reference(path: Path, dataset: Dataset, section: Mapping[str, Any], network: Network) -> Reference:
    """Published statistics of real images, in place of features of `dataset`, whose classes are still the classes.

    Raises UsageError if the network has another number of features.
    """
    names = dataset.class_names if section["conditional"] else ("all",)
    moments = fid.load_moments(path)
    found = jax.eval_shape(network.extract, network.variables, dataset.images[:1]).features.shape[1]
    if found != len(moments.mean):
        raise UsageError(f"{path} is of {len(moments.mean)} features, the network {network.name} has {found}")
    empty, digest = Sample(np.zeros(0, np.int32)), hashlib.sha256(storage.read_bytes(path)).hexdigest()
    return Reference(empty, names, path.stem, network, f"statistics in {path.name}", digest, moments)


def score(
    metrics: Mapping[str, ModuleType],
    images: np.ndarray,
    labels: np.ndarray,
    reference: Reference,
    verdicts: np.ndarray | None = None,
) -> dict[str, float]:
    """The metrics of images uint8 [N, H, W, C] of classes int32 [N], by their full names."""
    network = reference.network
    features = features_of(network, images, "features") if reads_network(metrics) else (None, None)
    fake, scores = Sample(labels, images, *features, verdicts), {}
    for name, metric in metrics.items():
        if reference.moments is None:
            numbers = metric.compute(fake, reference.real, reference.class_names)
        else:
            numbers = metric.compute_against(fake, reference.moments, reference.class_names)
        for key, number in numbers.items():
            scores[full_name(key, name, metric, network, len(labels), reference.split)] = float(number)
    return scores


def full_name(key: str, name: str, metric: ModuleType, network: Network | None, num_images: int, split: str) -> str:
    """`intra_fid/cat` -> `intra_fid50k_train/cat` or, with a classifier's features, `intra_cfd50k_train/cat`."""
    if not set(metric.READS) & {"features", "logits"}:
        return key
    whole, slash, part = key.partition("/")
    shown = getattr(metric, "NAMES", {}).get(network.prefix)
    whole = whole.replace(name, shown) if shown and name in whole else network.prefix + whole
    against = "_" + re.sub(r"[^A-Za-z0-9]+", "_", split).strip("_") if getattr(metric, "USES_REAL", True) else ""
    return f"{whole}{num_images / 1000:g}k{against}{slash}{part}"


def features_of(network: Network, images: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
    """(features float32 [N, F], logits float32 [N, K]) of images uint8 [N, H, W, C]."""
    return tuple(in_batches(network.extract, network.variables, (images,), what))


def verdicts_of(sampler: Sampler, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How far above its boundary between generated and real a run's discriminator puts images uint8 [N, H, W, C] of
    classes int32 [N], in logits: float32 [N]. Raises UsageError if its losses have no boundary."""
    boundary = sampler.boundary()
    return logits_of(*sampler.discriminator(), images, labels) - np.float32(boundary)


def logits_of(discriminator: nn.Module, variables: Tree, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """A discriminator's logits float32 [N] of images uint8 [N, H, W, C] of classes int32 [N]."""

    def logits(variables: Tree, images: jax.Array, labels: jax.Array) -> list[jax.Array]:
        return [discriminator.apply(variables, normalized(images), labels, train=False).logits]

    return in_batches(logits, variables, (images, labels), "the discriminator's logits")[0]


def in_batches(function: Callable, variables: Tree, arrays: tuple[np.ndarray, ...], what: str) -> list[np.ndarray]:
    """`function(variables, *arrays)`, a sequence of arrays [N, ...], in batches by this process's devices."""
    mesh, total = make_mesh(jax.local_devices()), len(arrays[0])
    mapped = per_sample(lambda variables, parts: function(variables, *parts), mesh)
    size = min(BATCH_PER_DEVICE, -(-total // mesh.size)) * mesh.size
    variables, found = jax.device_put(variables, replicated(mesh)), []
    with progress.counting(total, what) as bar:
        for parts, n in whole_batches(arrays, size):
            found.append([np.asarray(values)[:n] for values in mapped(variables, parts)])
            bar.update(n)
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def cached_features(network: Network, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `features_of`, computed once for these pixels and weights and kept in the cache folder.

    Computes again what a damaged file held. Keeps nothing if the folder is not writable.
    """
    content = f"{network.weights_sha256} {network.preprocessing} {images.shape} {_sha256_of(images)}"
    path = cache.cache_path() / "features" / f"{hashlib.sha256(content.encode()).hexdigest()[:32]}.npz"
    with contextlib.suppress(OSError, ValueError, KeyError):
        arrays = arrays_in(path)
        features, logits = arrays["features"], arrays["logits"]
        if len(features) == len(logits) == len(images) and features.dtype == logits.dtype == np.float32:
            return features, logits
    features, logits = features_of(network, images, "features of the real images")
    with contextlib.suppress(OSError):
        cache.cache_folder()
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with storage.replacing(path) as partial, open(partial, "wb") as file:
            np.savez(file, features=features, logits=logits)
    return features, logits


def of_run(recipe: Mapping[str, Any], variables: Tree, batch_stats: str = "ema") -> dict[str, Any]:
    """The part of a protocol about a generator: which weights, and the statistics that it normalises by."""
    of_batches = {"ema": "running statistics, averaged as the weights are", "standing": "standing statistics"}
    return {
        "weights": averages.described(recipe),
        "batch_norm": of_batches[batch_stats] if "batch_stats" in variables else None,
    }


def protocol(
    reference: Reference, metrics: Mapping[str, ModuleType], num_images: int, began: float, **of_run: Any
) -> dict[str, Any]:
    """All that a number depends on, to be stored beside it; `began` is of time.perf_counter()."""
    network = reference.network
    settings = {name: metric.SETTINGS for name, metric in metrics.items() if hasattr(metric, "SETTINGS")}
    return {
        "real_dataset": reference.dataset,
        "real_split": reference.split,
        "real_sha256": reference.sha256,
        "real_images": reference.moments.count if reference.moments else len(reference.real.labels),
        "generated_images": num_images,
        "features": network.name if network else None,
        "weights_sha256": network.weights_sha256 if network else None,
        "preprocessing": network.preprocessing if network else None,
        "decoder": f"Pillow {PIL.__version__}",
        "matmul_precision": "highest",
        "settings": settings or None,
        **of_run,
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "seconds": round(time.perf_counter() - began, 3),
    }
