"""Tar files as WebDataset reads them: files of one stem that follow each other are a sample."""

import io
import tarfile

import numpy as np
from PIL import Image

from tests.sampling.formats.small_set import PLAN, image_of, written


def test_pictures_stand_beside_their_labels(tmp_path):
    folder, place = written("tar", tmp_path), 0
    assert sorted(path.name for path in folder.iterdir()) == [f"pets_synthetic-{i:06d}.tar" for i in range(3)]
    for path in sorted(folder.iterdir()):
        with tarfile.open(path) as tar:
            members = tar.getmembers()
            for picture, label in zip(members[::2], members[1::2], strict=True):
                assert picture.name.removesuffix(".png") == label.name.removesuffix(".cls")
                expected = int(PLAN.labels[place]), int(PLAN.indices[place])
                assert tar.extractfile(label).read() == str(expected[0]).encode()
                with Image.open(io.BytesIO(tar.extractfile(picture).read())) as image:
                    np.testing.assert_array_equal(np.asarray(image), image_of(*expected))
                assert (picture.mtime, picture.uid, picture.gid, picture.uname, picture.mode) == (0, 0, 0, "", 0o644)
                place += 1
    assert place == 11


def test_names_in_paths_are_harmless(tmp_path):
    plan = PLAN._replace(class_names=("../up", "/etc", "a\nb", "tree frog"))
    folder = written("tar", tmp_path, plan)
    with tarfile.open(folder / "pets_synthetic-000000.tar") as tar:
        assert {name.split("/")[0] for name in tar.getnames()} <= {"___up", "_etc", "a_b", "tree_frog"}
