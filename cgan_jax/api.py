"""The library: what `import cgan_jax as cgan` offers to programs and notebooks. Nothing here ends the process.

    model = cgan.load("digits")
    model.sample(["3", 7], num_images=20).save("digits.png")

    run = cgan.train("digits", "runs/digits")
    run.metrics["train/d_loss"]

Wrong use raises UsageError, with one line that names the given and the allowed values.
"""

import dataclasses
import io
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np
from ml_collections import ConfigDict
from numpy.typing import NDArray
from PIL import Image

from cgan_jax import models, recipe_files
from cgan_jax import recipe as recipes_of
from cgan_jax.data.sources import COLOURS, Dataset
from cgan_jax.errors import GuardError as GuardError
from cgan_jax.errors import Interrupted as Interrupted
from cgan_jax.errors import UsageError as UsageError
from cgan_jax.evaluation import evaluation, scoring
from cgan_jax.exported import within_class
from cgan_jax.files import compilation_cache, storage
from cgan_jax.files.png import png
from cgan_jax.lookup import unknown
from cgan_jax.run import curves, report, workdir
from cgan_jax.sampling import grids, image_writers, interpolation, sampling, trained
from cgan_jax.sampling.request import parse_labels, parse_step, spread
from cgan_jax.train import train_and_evaluate

Labels: TypeAlias = "str | int | Sequence[str | int] | NDArray[np.integer] | None"
Batch: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.integer], Sequence[str]]
_BATCH_SIZE = 16  # latents of one size alone, so that one program serves all calls


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Samples:
    """Generated images and their labels. A notebook shows them as a grid."""

    images: NDArray[np.uint8]
    """[N, H, W, C]; C is 1 (grey), 3 (RGB) or 4 (RGB and opacity)."""
    labels: NDArray[np.int32]
    """[N], class numbers."""
    class_names: tuple[str, ...]
    """The names of the classes 0, 1, ...; ("image",) for an unconditional model."""

    def grid(self, columns: int | None = None, scale: int | None = None) -> Image.Image:
        """One picture, a row per class in the order of `labels`, or more if a class has more than `columns` images.

        A row has 10 images, or 50 if there are more than 500. A pixel becomes `scale` x `scale` pixels; without it
        images are enlarged to about 64 pixels.
        """
        conditional = len(self.class_names) > 1
        return grids.grid(*grids.rows_by_class(self.images, self.labels, self.class_names, conditional, columns), scale)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes what the name ends in: .png the grid, .npz the three arrays, no suffix a folder of PNGs by class.

        Replaces files of these names; other images in a folder stay. Returns the path. Raises UsageError for another
        suffix or a bucket, OSError if it cannot be written.
        """
        path = _path(path)
        if path.suffix.lower() == ".png":
            path.parent.mkdir(parents=True, exist_ok=True)
            grids.save(self.grid(), path)
        elif path.suffix.lower() == ".npz":
            image_writers.write_npz(path, self.images, self.labels, self.class_names)
        elif not path.suffix:
            paths = image_writers.image_paths(path, self.labels, within_class(self.labels), self.class_names)
            image_writers.write_folder(path, [self.images], list(paths))
        else:
            raise UsageError(f"{path}: images are saved as .png, .npz or a folder without a suffix, not {path.suffix}")
        return path

    def __repr__(self) -> str:
        shown = [self.class_names[label] for label in dict.fromkeys(self.labels.tolist())]
        return f"Samples({len(self.labels)} images {list(self.images.shape[1:])} of {', '.join(shown[:20])})"

    def _repr_png_(self) -> bytes:
        return png(self.grid())


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Ways:
    """Images on the way from one image to another. A notebook shows them as a grid with a row per way."""

    images: NDArray[np.uint8]
    """[N, F, H, W, C]: N ways in F steps."""
    names: tuple[str, ...]
    """What each way shows, such as "3 to 7"."""

    def grid(self) -> Image.Image:
        """One picture, a row per way."""
        return grids.grid(*grids.rows_of_ways(self.images.swapaxes(0, 1), self.names))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes .png, the grid, or .gif or .webp, which go there and back in 4 s. Returns the path.

        Raises UsageError for another suffix, OSError if it cannot be written.
        """
        path = _path(path)
        if path.suffix.lower() not in (".png", ".gif", ".webp"):
            raise UsageError(f"{path}: ways are saved as .png, .gif or .webp, not {path.suffix or 'a folder'}")
        interpolation.save(path, self.images.swapaxes(0, 1), self.names)
        return path

    def __repr__(self) -> str:
        return f"Ways({len(self.images)} ways of {self.images.shape[1]} images {list(self.images.shape[2:])})"

    def _repr_png_(self) -> bytes:
        return png(self.grid())


class _ByName(dict[str, Any]):
    """A dict whose KeyError says which names there are."""

    def __missing__(self, name: str) -> Any:
        raise KeyError(str(unknown("name", name, self)))


class Model:
    """A trained generator, with its discriminator if that was kept. `load` makes one."""

    def __init__(
        self,
        place: Path,
        step: int | str | None = None,
        batch_stats: str = "ema",
        ema: float | str | None = None,
    ):
        """Raises UsageError if there is no model at `place`, or not that step or average."""
        _check_precision()
        step = None if step is None else parse_step(str(step))
        self._place, self._asked, self._batch_stats, self._ema = place, step, batch_stats, ema
        self._sampler = self._truncating = sampling.Sampler(place, step, _BATCH_SIZE, batch_stats=batch_stats, ema=ema)
        info = self._sampler.info
        self.step: int = self._sampler.step
        """The generator update at which these weights were saved."""
        self.recipe: dict[str, Any] = info.recipe
        """All values of the training."""
        self.class_names: tuple[str, ...] = tuple(info.classes)
        """The names of the classes 0, 1, ...; ("image",) for an unconditional model."""
        self.latent_dim: int = self._sampler.generator.latent_dim
        """How many numbers an image is drawn from."""
        self.image_shape: tuple[int, int, int] = (*2 * (info.recipe["dataset"]["image_size"],), info.channels)
        """[H, W, C]."""

    def __repr__(self) -> str:
        size, _, channels = self.image_shape
        kind = f"{len(self.class_names)} classes of {size}x{size} {COLOURS[channels]} images"
        return f"Model({models.shown(self._place)!r}, step {self.step}: {kind})"

    @property
    def scores(self) -> dict[str, float]:
        """The stored scores of this step by name, such as {"ms_ssim": 0.59}; empty if it was not evaluated."""
        return _ByName(trained.metrics_at(self._place, self.step, self._sampler.logged_as))

    def sample(
        self,
        labels: Labels = None,
        num_images: int = 16,
        seed: int = 0,
        truncation: float | None = None,
        latents: NDArray[np.floating] | None = None,
    ) -> Samples:
        """Images of classes that are named ("cat") or numbered (3); of all without `labels`.

        `num_images` are spread evenly over the classes. The same seed and class give the same images, however many are
        drawn; they are those of `cgan sample`, to one grey level. With a `truncation`, latent numbers outside of
        +-truncation are drawn again until they are inside. StyleGAN2 pulls styles toward the class's mean instead.

        With `latents` float [N, latent_dim] the images are drawn from these; `labels` is one class for all, or a list
        of N. Raises UsageError for an unknown class, or a number, seed or shape that cannot be.

            >>> import cgan_jax as cgan
            >>> model = cgan.load("digits")
            >>> model.sample(["3", 7], num_images=4, seed=1)
            Samples(4 images [32, 32, 1] of 3, 7)
            >>> model.sample(3, latents=np.zeros((2, model.latent_dim))).images.shape
            (2, 32, 32, 1)
        """
        chosen = self._numbers(labels)
        if latents is None:
            of, indices = spread(_whole("num_images", num_images, 1), list(dict.fromkeys(chosen)))
            drawn = self._drawn(self._latents(seed, of, indices, truncation), of, truncation)
            return Samples(drawn, of, self.class_names)
        if truncation is not None:
            raise UsageError("truncation belongs to a seed; latents are used as they are")
        of = self._one_for_each(chosen, len(latents))
        return Samples(self._drawn(latents, of), of, self.class_names)

    def latents(self, labels: Labels, seed: int = 0, truncation: float | None = None) -> NDArray[np.float32]:
        """The latents [N, latent_dim] that `sample` draws N images of `labels` from: classes, one for each image.

        Image i of a seed and class has the same latents in every call. Raises UsageError as `sample`.

            >>> import cgan_jax as cgan
            >>> model = cgan.load("digits")
            >>> between = (model.latents([3, 3], seed=1) + model.latents([3, 3], seed=2)) / 2
            >>> model.sample(3, latents=between)
            Samples(2 images [32, 32, 1] of 3)
        """
        of = np.asarray(self._numbers(labels), np.int32)
        return np.asarray(self._latents(seed, of, within_class(of), truncation))

    def interpolate(
        self,
        start: str | int,
        end: str | int | None = None,
        steps: int = 10,
        num_ways: int = 4,
        seed: int = 0,
        to_seed: int | None = None,
    ) -> Ways:
        """`num_ways` ways in `steps` images, from class `start` to `end`, from latents of `seed` to `to_seed`, or both.

        Classes mix in the layers that read labels; latents follow a great arc. Raises UsageError if nothing changes, or
        if the network has no layer of labels alone.

            >>> import cgan_jax as cgan
            >>> cgan.load("digits").interpolate(3, 8, steps=5, num_ways=2)
            Ways(2 ways of 5 images [32, 32, 1])
        """
        if end is None and to_seed is None:
            raise UsageError("give the class to go to, end, or the seed to go to, to_seed")
        steps, num_ways = _whole("steps", steps, 2), _whole("num_ways", num_ways, 1)
        seeds = (_seed(seed), _seed(seed if to_seed is None else to_seed))
        classes = [self._number(one) for one in (start, start if end is None else end)]
        if seeds[0] == seeds[1] and classes[0] == classes[1]:
            raise UsageError(f"nothing changes on the way: class {start!r} and seed {seed} are at both ends")
        ends = [np.full(num_ways, one, np.int32) for one in classes]
        indices = np.arange(num_ways, dtype=np.int32)
        frames = list(interpolation.frames(self._sampler, seeds, (ends[0], ends[1]), indices, steps))
        names = interpolation.names_of(ends[0], ends[1], self.class_names)
        return Ways(np.stack(frames, axis=1), tuple(names))

    def logits(self, images: NDArray[np.uint8], labels: Labels) -> NDArray[np.float32]:
        """The discriminator's logits [N] of images [N, H, W, C]; larger is more real.

        `labels` is one class for all, or a list of N.
        Raises UsageError if the model is without its discriminator, or for images of another shape.

            >>> import cgan_jax as cgan
            >>> model = cgan.load("digits")
            >>> drawn = model.sample("3", num_images=5)
            >>> model.logits(drawn.images, drawn.labels).shape
            (5,)
        """
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.shape[1:] != self.image_shape or not len(images):
            raise UsageError(f"images must be uint8 [N, {_words(self.image_shape)}], given {_shape(images)}")
        of = self._one_for_each(self._numbers(labels), len(images))
        return evaluation.logits_of(*self._sampler.discriminator(), images, of)

    def evaluate(
        self,
        metrics: str | Sequence[str] | None = None,
        num_images: int = 50_000,
        seeds: int = 1,
        features: str = "classifier",
        split: str | None = None,
        data_dir: str | None = None,
        record: bool = False,
    ) -> scoring.Scored:
        """Scores of `num_images` images, drawn `seeds` times, and the protocol: `cgan evaluate`.

        `metrics` are names such as "fid,ms_ssim"; all usual ones without it. `split` and `data_dir` say which real
        images they are compared with. With `record`, a run gets a line in its evaluations.jsonl. Returns `scores`,
        {name: [number of each seed]}, and `protocol`. Raises UsageError for what cannot be measured, and for `record`
        of a model that keeps the scores it came with: one of the package, or a file.

            >>> import cgan_jax as cgan
            >>> scored = cgan.load("digits").evaluate("ms_ssim", num_images=100)
            >>> 0 < scored.scores["ms_ssim"][0] < 1
            True
        """
        if record and (models.is_packaged(self._place) or trained.is_exported(self._place)):
            raise UsageError(f"{models.shown(self._place)} keeps the scores that it came with; record is for a run")
        named = metrics if metrics is None or isinstance(metrics, str) else ",".join(metrics)
        changed = {name: value for name, value in (("split", split), ("data_dir", data_dir)) if value is not None}
        options = scoring.Options(named, features)
        num_images, seeds = _whole("num_images", num_images, 1), _whole("seeds", seeds, 1)
        drawn = (None if self._asked is None else str(self._asked), num_images, seeds, self._batch_stats)
        return scoring.score_model(self._place, options, *drawn, changed, record, self._ema)

    def _numbers(self, labels: Labels) -> list[int]:
        """Class numbers, as often as they are given. A text names a class or, with commas, several; None is all."""
        if labels is None:
            return list(range(len(self.class_names)))
        if isinstance(labels, str):
            return parse_labels(labels, self.class_names)
        if isinstance(labels, np.ndarray):
            labels = labels.tolist()
        numbers: list[int] = []
        for one in labels if isinstance(labels, Iterable) else [labels]:
            if isinstance(one, int | np.integer) and not isinstance(one, bool) and 0 <= one < len(self.class_names):
                numbers.append(int(one))
            elif isinstance(one, str) and self.class_names.count(one) == 1:  # a name may have a comma
                numbers.append(self.class_names.index(one))
            elif isinstance(one, bool) or not isinstance(one, str | int | np.integer):
                raise UsageError(f"a class is given by its name or number, given {one!r}")
            else:
                numbers += parse_labels(one if isinstance(one, str) else f"#{one}", self.class_names)
        if not numbers:
            raise UsageError("labels names no class")
        return numbers

    def _number(self, label: str | int) -> int:
        numbers = self._numbers(label)
        if len(numbers) != 1:
            raise UsageError(f"one class is needed, given {label!r}")
        return numbers[0]

    def _one_for_each(self, numbers: list[int], count: int) -> NDArray[np.int32]:
        if len(numbers) not in (1, count):
            raise UsageError(f"labels must be one class, or one for each of {count}, given {len(numbers)}")
        return np.array(numbers if len(numbers) == count else numbers * count, np.int32)

    def _latents(
        self, seed: int, labels: NDArray[np.int32], indices: NDArray[np.int32], truncation: float | None
    ) -> jax.Array:
        if truncation is not None and not 0 < truncation < float("inf"):
            raise UsageError(f"truncation must be a number above 0, such as 0.7, given {truncation}")
        _, cut = sampling.truncated(self._sampler.variables, truncation)
        bound = np.float32(float("inf") if cut is None else cut)
        return _latents_for(np.uint32(_seed(seed)), labels, indices, self.latent_dim, bound)

    def _drawn(self, latents: Any, labels: NDArray[np.int32], truncation: float | None = None) -> NDArray[np.uint8]:
        latents = np.asarray(latents, np.float32)
        if latents.shape != (len(labels), self.latent_dim) or not len(labels):
            raise UsageError(f"latents must be [N, {self.latent_dim}], given {_shape(latents)}")
        return sampling.gathered(self._sampler_of(truncation).drawn_from(latents, labels, truncation))

    def _sampler_of(self, truncation: float | None) -> sampling.Sampler:
        """Standing statistics are those of truncated latents, so that each truncation needs them anew."""
        if truncation is None or self._batch_stats == "ema":
            return self._sampler
        if self._truncating.truncation != truncation:
            given = (self._place, self.step, _BATCH_SIZE, truncation, self._batch_stats, self._ema)
            self._truncating = sampling.Sampler(*given)
        return self._truncating


def load(
    model: str | os.PathLike[str],
    step: int | str | None = None,
    batch_stats: str = "ema",
    ema: float | str | None = None,
) -> Model:
    """The trained model of that name, in that file of `cgan export`, or in the folder of that run.

    `step` is a checkpoint of a run, or "best"; the latest without it. With `batch_stats` "standing" the generator
    normalises by statistics of batches that it draws. `ema` chooses an average of a run by its half-life in kimg, or
    "last", the weights of the step; without it that of the recipe's `ema.halflife_kimg`. A name wins over a path.
    Raises UsageError if there is no such model, step or average.

        >>> import cgan_jax as cgan
        >>> cgan.load("digits")
        Model('digits', step 3125: 10 classes of 32x32 grey images)
    """
    return Model(models.find(os.path.expanduser(os.fspath(model))), step, batch_stats, ema)


class Run:
    """A training in its folder. A notebook shows its curves."""

    def __init__(self, folder: str | os.PathLike[str]):
        """Raises UsageError if `folder` holds no run."""
        self.workdir = storage.place(os.path.expanduser(os.fspath(folder)))
        self.recipe: dict[str, Any] = workdir.read_info(self.workdir).recipe
        """All values of the training."""

    def __repr__(self) -> str:
        return f"Run({str(self.workdir)!r})"

    @property
    def metrics(self) -> dict[str, NDArray[np.float64]]:
        """The log by column: "step", "kimg" (thousand real images shown), "seconds", "train/d_loss", ...

        Each is [L], a number for each line of metrics.jsonl; NaN if a line does not have it.
        """
        return _columns(workdir.read_metrics(self.workdir))

    @property
    def evaluations(self) -> dict[str, NDArray[np.float64]]:
        """The evaluations by column: "step", "kimg" and the scores, such as "eval/cfd1k_train"; as `metrics`."""
        return _columns(workdir.read_metrics(self.workdir, workdir.EVALUATIONS))

    def curves(self) -> Image.Image:
        """Both losses and the discriminator's accuracies over kimg, as a picture."""
        levels = curves.chance_levels(workdir.read_info(self.workdir).recipe)
        return Image.open(io.BytesIO(curves.png_of(workdir.read_metrics(self.workdir), self.workdir.name, levels)))

    def samples(self) -> Image.Image:
        """The latest picture of samples, a row per class. Raises UsageError if there is none yet."""
        pictures = report.grids_in(self.workdir / "samples")
        if not pictures:
            raise UsageError(f"{self.workdir / 'samples'} holds no picture of samples yet")
        return Image.open(io.BytesIO(storage.read_bytes(pictures[-1][1])))

    def load(self, step: int | str | None = None) -> Model:
        """The model at a checkpoint, as `load`."""
        return Model(self.workdir, step)

    def _repr_png_(self) -> bytes:
        return png(self.curves())


def train(
    recipe: str | os.PathLike[str] | Mapping[str, Any] | ConfigDict,
    workdir: str | os.PathLike[str],
    dataset: str | Batch | Iterable[Batch] | None = None,
    on_log: Callable[[dict[str, float]], None] | None = None,
    on_sample: Callable[[Image.Image, float], None] | None = None,
    init_from: str | os.PathLike[str] | None = None,
) -> Run:
    """Trains a recipe in a folder, or goes on from its latest checkpoint: `cgan train`, with the same files.

    `recipe` is a name, a file, or values such as `recipe("digits")` with some changed. `dataset` replaces the images of
    the recipe: by the name of a prepared dataset, by arrays (images uint8 [N, H, W, C], labels int [N], class names),
    or by an iterable of such batches, which are kept in memory. `on_log` gets each line of metrics.jsonl, `on_sample`
    each picture of samples and its kimg. `init_from` is a model as `load` takes it, whose weights a new run
    begins with.

    Raises UsageError before training if it cannot work. Ctrl-C saves and raises Interrupted; a second one raises
    KeyboardInterrupt at once. Raises GuardError if a guard of the recipe stops the run.

        >>> import cgan_jax as cgan
        >>> recipe = cgan.recipe("digits")
        >>> recipe.train.total_kimg = recipe.train.log_kimg = 0.64
        >>> run = cgan.train(recipe, "runs/short")  # doctest: +ELLIPSIS
        starting from step 0 of 10...
        >>> run.metrics["train/d_loss"].shape
        (1,)
    """
    _check_precision()
    values = recipes_of.widened(_values(recipe))
    images = None
    if isinstance(dataset, str):
        values["dataset"] |= {"name": dataset, "source": "digits" if dataset == "digits" else "tfds"}
    elif dataset is not None:
        images = _dataset(dataset)
        values["dataset"] |= {"name": "arrays", "source": "arrays", "image_size": images.images.shape[1]}
    place = storage.place(os.path.expanduser(os.fspath(workdir)))
    source = os.path.expanduser(os.fspath(init_from or ""))
    train_and_evaluate(values, place, dataset=images, on_log=on_log, on_sample=on_sample, exits=False, init_from=source)
    return Run(place)


def recipes() -> list[str]:
    """The names of the recipes.

    >>> import cgan_jax as cgan
    >>> "cifar10_cgan" in cgan.recipes()
    True
    """
    return recipe_files.names()


def recipe(name: str | os.PathLike[str]) -> ConfigDict:
    """The values of a recipe, by name or file, to change and to give to `train`. Raises UsageError if there is none.

    >>> import cgan_jax as cgan
    >>> cgan.recipe("cifar10_cgan").architecture
    'dcgan'
    """
    return recipe_files.load(os.fspath(name))


def keep_programs() -> None:
    """Keeps compiled programs in $CGAN_CACHE_DIR (~/.cache/cgan_jax), as the commands do: later starts are faster."""
    compilation_cache.enable()


_latents_for = jax.jit(sampling.latents_for, static_argnums=3)


def _dataset(given: Batch | Iterable[Batch]) -> Dataset:
    """Checked arrays. Raises UsageError for other types, shapes or labels."""
    is_one = isinstance(given, tuple) and len(given) == 3 and not isinstance(given[0], tuple)
    batches: list[Any] = [given] if is_one else list(given)
    for batch in batches:
        if not isinstance(batch, tuple) or len(batch) != 3:
            raise UsageError("dataset must be a name, (images, labels, class_names), or an iterable of such batches")
    names = tuple(str(name) for name in batches[0][2]) if batches else ()
    if not names or any(tuple(map(str, batch[2])) != names for batch in batches):
        raise UsageError("dataset: every batch must have the same class_names, one or more")
    shapes = [np.shape(batch[0])[1:] for batch in batches]
    if len(set(shapes)) > 1:
        raise UsageError(f"dataset: every batch must have images of one shape, given {shapes[0]} and {shapes[-1]}")
    images = np.concatenate([np.asarray(batch[0]) for batch in batches])
    labels = np.concatenate([np.asarray(batch[1]) for batch in batches])
    if (
        images.dtype != np.uint8
        or images.ndim != 4
        or images.shape[1] != images.shape[2]
        or images.shape[3] not in (1, 3, 4)
    ):
        raise UsageError(f"dataset: images must be uint8 [N, H, H, 1, 3 or 4], given {_shape(images)}")
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise UsageError(f"dataset: labels must be whole numbers [{len(images)}], given {_shape(labels)}")
    if not len(labels) or labels.min() < 0 or labels.max() >= len(names):
        raise UsageError(f"dataset: labels must be 0 to {len(names) - 1}, one for each of one or more images")
    return Dataset(images, labels.astype(np.int32), names)


def _values(recipe: str | os.PathLike[str] | Mapping[str, Any] | ConfigDict) -> dict[str, Any]:
    if isinstance(recipe, str | os.PathLike):
        recipe = recipe_files.load(os.fspath(recipe))
    return ConfigDict(recipe).to_dict()


def _columns(lines: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[np.float64]]:
    names = dict.fromkeys(name for line in lines for name, value in line.items() if isinstance(value, int | float))
    return _ByName({name: np.array([line.get(name, np.nan) for line in lines], np.float64) for name in names})


def _path(given: str | os.PathLike[str]) -> Path:
    if "://" in os.fspath(given):
        raise UsageError(f"{given} must be on this machine")
    return Path(os.path.expanduser(os.fspath(given)))


def _check_precision() -> None:
    """Raises UsageError if new arrays are float64: other latents and other trainings than those of the commands."""
    if jax.dtypes.canonicalize_dtype(np.float64) == np.float64:
        raise UsageError("cgan_jax computes in float32, and jax_enable_x64 is on; turn it off")


def _whole(name: str, given: Any, least: int) -> int:
    if isinstance(given, bool) or not isinstance(given, int | np.integer) or given < least:
        raise UsageError(f"{name} must be a whole number of at least {least}, given {given!r}")
    return int(given)


def _seed(given: Any) -> int:
    if isinstance(given, bool) or not isinstance(given, int | np.integer) or not 0 <= given < 2**32:
        raise UsageError(f"a seed must be a whole number from 0 to {2**32 - 1}, given {given!r}")
    return int(given)


def _shape(array: NDArray[Any]) -> str:
    return f"{array.dtype} {list(array.shape)}"


def _words(shape: Sequence[int]) -> str:
    return ", ".join(map(str, shape))
