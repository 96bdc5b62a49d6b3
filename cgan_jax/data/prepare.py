"""Puts a set of TensorFlow Datasets on this machine: runs TFDS's recipe for it without TensorFlow."""

import contextlib
import difflib
import errno
import glob
import hashlib
import importlib.util
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import tensorflow_datasets as tfds
import tree

from cgan_jax.data.sources import tfds as reader
from cgan_jax.errors import UsageError
from cgan_jax.files import download, storage, unpacking
from cgan_jax.files.png import to_pillow


def prepare(name: str, data_dir: str, archive_file: str = "") -> tuple[Path, bool]:
    """The folder of the prepared set NAME[/CONFIG][:VERSION], and whether it was there before.

    Prepares it in `data_dir`, from the network or from the file or folder `archive_file`. Raises UsageError, in one
    line that says what to do.
    """
    archive = Path(archive_file).expanduser() if archive_file else None
    if archive and not archive.exists():
        raise UsageError(f"--archive={archive}: no such file or folder")
    folder = reader.find(name, data_dir)
    if folder is not None:
        return folder, True
    root = reader.root(data_dir)
    if storage.is_remote(root):
        raise UsageError(f"{root}: prepare the data in a folder and copy that; training reads them from a bucket")
    with _no_empty_folders_left(root, name):
        builder = _builder(name, root)
        reader.keys_of(name, builder.info)  # better refused before the download than after
        _prepare(builder, archive, root)
    return Path(builder.data_path), False


@contextlib.contextmanager
def _no_empty_folders_left(root: Path, name: str) -> Iterator[None]:
    """Removes folders that the preparation made and left empty."""
    made = [root / "downloads" / "extracted", root / "downloads", root / name.split("/")[0].split(":")[0], root]
    made = [folder for folder in made if not folder.exists()]
    try:
        yield
    finally:
        for folder in made:
            with contextlib.suppress(OSError):  # it is not empty, or was never made
                folder.rmdir()


def _builder(name: str, root: Path) -> tfds.core.DatasetBuilder:
    """TFDS's recipe for a set. Raises UsageError for an unknown name, or a folder that cannot be written."""
    base = name.split("/")[0].split(":")[0]
    known = tfds.list_builders(with_community_datasets=False)
    if base not in known:  # TFDS would ask the network for a list of other names
        close = difflib.get_close_matches(base.lower(), known, n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(close)}?" if close else "see https://www.tensorflow.org/datasets/catalog"
        raise UsageError(f"TensorFlow Datasets has no dataset {base!r}; {hint}")
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise UsageError(f"cannot write to {root}: {error.strerror}; choose another folder by --data_dir") from error
    try:
        return tfds.builder(name, data_dir=root)
    except ImportError as error:
        raise UsageError(f"{base} needs a package that is not installed: {_reason(error)}") from error
    except (ValueError, AssertionError) as error:  # a configuration or version that does not exist
        raise UsageError(f"cannot prepare {name}: {_reason(error)}") from error


def _prepare(builder: tfds.core.DatasetBuilder, archive: Path | None, root: Path) -> None:
    """Runs TFDS's recipe on its downloads or on the archive.

    TFDS writes beside the final folder and renames at the end, so a failure leaves nothing that looks prepared.
    """
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    with tempfile.TemporaryDirectory(prefix="unpacking_", dir=root) as unpacked, _without_tensorflow(builder):
        # Instance attributes stand before the methods of the class: the two that every TFDS recipe has to define.
        split_generators = builder._split_generators
        builder._split_generators = lambda dl_manager: split_generators(
            _Files(dl_manager, builder, archive, Path(unpacked))
        )
        builder._generate_examples = _with_pillow_images(builder._generate_examples, builder.info.features)
        try:
            # array_record is the format that TFDS can write without TensorFlow.
            builder.download_and_prepare(file_format="array_record", download_config=config)
        except UsageError:
            raise
        except Exception as error:  # recipes raise what they like for files that are not as they expect
            raise _failure(error, builder, archive) from error


def _failure(error: Exception, builder: tfds.core.DatasetBuilder, archive: Path | None) -> UsageError:
    """The UsageError for what TFDS or its recipe raised."""
    if isinstance(error, ImportError):
        return UsageError(f"preparing {builder.name} needs a package that is not installed: {_reason(error)}")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
        return UsageError(f"cannot write {builder.name} to {builder.data_path}: {error.strerror}")
    if archive is not None:
        return UsageError(f"--archive={archive} does not hold {builder.name}: {_reason(error)}; {_by_hand(builder)}")
    return UsageError(f"preparing {builder.name} failed: {_reason(error)}; {_by_hand(builder)}")


class _Files:
    """The files of a TFDS recipe: TFDS's manager downloads them, Python's libraries unpack them."""

    def __init__(self, manager: Any, builder: tfds.core.DatasetBuilder, archive: Path | None, unpacked: Path):
        self._manager = manager
        self._builder = builder
        self._archive = archive
        self._unpacked = unpacked
        self._reached: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manager, name)

    def download(self, urls: Any) -> Any:
        """The path of the downloaded file for every URL in a nest of them."""
        if self._archive is not None:
            return tree.map_structure(lambda url: _in_archive(self._archive, _url(url), self._builder), urls)
        for url in map(_url, tree.flatten(urls)):  # each host once, because a set may have many files
            host = urlsplit(url).netloc
            if host not in self._reached:
                download.check_reachable(url, _by_hand(self._builder))  # TFDS tries again for minutes
                self._reached.add(host)
        return self._manager.download(urls)

    def extract(self, paths: Any) -> Any:
        """The folder, or for a gz the file, with what was in the file, for every path in a nest of them."""
        return tree.map_structure(lambda path: _unpack(Path(path), Path(path).name, self._unpacked), paths)

    def download_and_extract(self, urls: Any) -> Any:
        """`download`, then `extract`."""
        # By the name in the URL, because a hand-fetched file may have another.
        return tree.map_structure(
            lambda url, path: _unpack(Path(path), _url(url), self._unpacked), urls, self.download(urls)
        )


def _url(resource: Any) -> str:
    """The URL of a string or of a tfds.download.Resource."""
    return getattr(resource, "url", resource)


def _in_archive(archive: Path, url: str, builder: tfds.core.DatasetBuilder) -> Path:
    """The hand-fetched file that stands for a URL. Raises UsageError if it is not there."""
    published = (builder.url_infos or {}).get(url)
    path = archive
    if archive.is_dir():
        path = archive / (published.filename if published and published.filename else Path(url).name)
        if not path.is_file():
            raise UsageError(f"--archive={archive}: {path.name} is missing; {_by_hand(builder)}")
    elif len(builder.url_infos or {}) > 1:
        raise UsageError(f"--archive={archive}: {builder.name} comes in several files; {_by_hand(builder)}")
    with storage.opened(path) as file:
        if published and hashlib.file_digest(file, "sha256").hexdigest() != published.checksum:
            print(f"note: {path} is not the very file published at {url}; it is used if its content fits")
    return path


def _unpack(path: Path, name: str, into: Path) -> Path:
    """The folder of an unpacked tar or zip, the file of an unpacked gz, by the suffix of `name`; else `path`."""
    target = into / path.name
    if name.endswith((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")):
        unpacking.unpack_tar(path, target)
    elif name.endswith(".zip"):
        unpacking.unpack_zip(path, target)
    elif name.endswith(".gz"):
        unpacking.unpack_gzip(path, target)
    else:
        return path
    return target


def _by_hand(builder: tfds.core.DatasetBuilder) -> str:
    """What to do without a network, in words."""
    urls = sorted(builder.url_infos or {})
    if not urls:
        return f"see {builder.info.homepage} for its files, and give the folder they are in by --archive"
    if len(urls) == 1:
        return f"fetch {urls[0]} by hand and give the file by --archive"
    return f"fetch {' '.join(urls)} by hand into one folder and give the folder by --archive"


class _StandIn(SimpleNamespace):
    """A module with a few names; another name raises what a missing TensorFlow raises."""

    def __getattr__(self, name: str) -> Any:
        raise ModuleNotFoundError("No module named 'tensorflow'")


@contextlib.contextmanager
def _without_tensorflow(builder: tfds.core.DatasetBuilder) -> Iterator[None]:
    """If TensorFlow is not installed, gives the recipe's modules the part of it that simple recipes use.

    They open local files by `tf.io.gfile.GFile(path, "rb")`, for which `open` stands in.
    """
    modules = [sys.modules[name] for name in {cls.__module__ for cls in type(builder).__mro__}]
    recipes = [module for module in modules if not module.__name__.startswith("tensorflow_datasets.core.")]
    if importlib.util.find_spec("tensorflow") is not None:
        recipes = []
    originals = [(module, module.tf) for module in recipes if hasattr(module, "tf")]
    gfile = _StandIn(GFile=open, exists=os.path.exists, isdir=os.path.isdir, listdir=os.listdir, glob=glob.glob)
    for module, _ in originals:
        module.tf = _StandIn(io=_StandIn(gfile=gfile))
    try:
        yield
    finally:
        for module, original in originals:
            module.tf = original


def _with_pillow_images(generate_examples: Callable[..., Any], features: Any) -> Callable[..., Any]:
    """A recipe's generator of examples, with arrays of pixels turned into Pillow images.

    TFDS encodes arrays by TensorFlow and Pillow images by Pillow. The PNGs hold the same pixels; JPEGs would differ, so
    arrays for JPEG stay.
    """
    as_png = {
        key
        for key, feature in features.items()
        if isinstance(feature, tfds.features.Image) and feature.encoding_format in (None, "png")
    }

    def encodable(key: str, value: Any) -> Any:
        if key not in as_png or not isinstance(value, np.ndarray) or value.dtype != np.uint8:
            return value
        return to_pillow(value)

    def generate(*args: Any, **kwargs: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
        for name, example in generate_examples(*args, **kwargs):
            yield name, {key: encodable(key, value) for key, value in example.items()}

    return generate


def _reason(error: Exception) -> str:
    """An error's message on one line, without TFDS's long preamble and the temporary folder."""
    line = " ".join(str(error).split()) or type(error).__name__
    return re.sub(r'Failed to construct dataset ".*?", builder_kwargs ".*?": |[^\s\'"]*/unpacking_\w+/', "", line)
