"""One archive, written through a file of pixels that is mapped into memory."""

import zipfile

import numpy as np

from tests.sampling.formats.small_set import PLAN, all_images, written


def test_numpy_reads_images_labels_and_names(tmp_path):
    with np.load(written("npz", tmp_path) / "images.npz", allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["images"], all_images())
        np.testing.assert_array_equal(archive["labels"], PLAN.labels)
        assert archive["labels"].dtype == np.int32 and archive["class_names"].tolist() == list(PLAN.class_names)
    assert [path.name for path in tmp_path.iterdir()] == ["images.npz"]


def test_no_member_has_a_date(tmp_path):
    with zipfile.ZipFile(written("npz", tmp_path) / "images.npz") as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
