"""A bucket without a network: objects are put whole, neither appended to nor renamed, and checkpoints lie in it too."""

import io
import sys
import types
import uuid
from importlib.machinery import ModuleSpec
from pathlib import Path

import fsspec
from etils.epath import backend, gpath
from orbax.checkpoint._src.path import gcs_utils

from cgan_jax.files import storage


class Objects(fsspec.AbstractFileSystem):
    """The objects of all buckets, as files of a folder; a folder of a bucket is there while it holds objects."""

    protocol = ("gcs", "gs")
    cachable = False

    def __init__(self, folder: Path, **_):
        super().__init__()
        self.folder = folder

    def file(self, path: str) -> Path:
        return self.folder / self._strip_protocol(path)

    def info(self, path, **_):
        file, name = self.file(path), self._strip_protocol(path)
        if file.is_file():
            return {"name": name, "size": file.stat().st_size, "type": "file", "mtime": file.stat().st_mtime}
        if any(below.is_file() for below in file.rglob("*")):
            return {"name": name, "size": 0, "type": "directory"}
        raise FileNotFoundError(path)

    def ls(self, path, detail=True, **_):
        found = self.info(path)
        if found["type"] == "directory":
            below = sorted(self.file(path).iterdir())
            names = [str(file.relative_to(self.folder)) for file in below]
            found = [self.info(name) for name in names if self.exists(name)]
        else:
            found = [found]
        return found if detail else [entry["name"] for entry in found]

    def _open(self, path, mode="rb", **_):
        if mode == "rb":
            return open(self.file(path), "rb")
        assert mode == "wb", f"{path} was opened to be changed ({mode}), which no object can be"
        return Upload(self.file(path), aside=self.folder.parent)

    def rm(self, path, recursive=False, maxdepth=None):
        self.info(path)
        files = [file for file in self.file(path).rglob("*") if file.is_file()] if recursive else []
        for file in files or [self.file(path)]:
            file.unlink()

    def mkdir(self, path, create_parents=True, **_):
        pass

    def makedirs(self, path, exist_ok=False):
        pass

    def mv(self, path1, path2, **_):
        raise AssertionError(f"{path1} was renamed, which no object can be")

    rename = mv


class Upload(io.BytesIO):
    """What becomes an object once it is closed."""

    def __init__(self, file: Path, aside: Path):
        super().__init__()
        self.file, self.aside = file, aside

    def close(self):
        if not self.closed:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            partial = self.aside / str(uuid.uuid4())
            partial.write_bytes(self.getvalue())
            partial.replace(self.file)
        super().close()


def put_in_place(folder: Path, monkeypatch) -> Path:
    """Lets gs:// be objects below `folder`, as if gcsfs were installed; returns a prefix with nothing in it."""
    objects, gcsfs = Objects(folder), types.ModuleType("gcsfs")
    gcsfs.__spec__ = ModuleSpec("gcsfs", None)
    monkeypatch.setitem(sys.modules, "gcsfs", gcsfs)
    monkeypatch.setattr(gpath, "_is_tf_installed", lambda: False)
    monkeypatch.setattr(backend.fsspec_backend, "_get_filesystem", lambda _: objects)
    monkeypatch.setattr(gcs_utils, "is_hierarchical_namespace_enabled", lambda _: False)
    monkeypatch.setattr(
        gcs_utils, "get_kvstore_for_gcs", lambda path: {"driver": "file", "path": str(objects.file(path))}
    )
    return storage.place("gs://bucket/runs/digits")
