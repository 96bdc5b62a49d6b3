"""What can be had again is kept where it is said to be kept, for its owner alone."""

import stat

from cgan_jax.files import cache


def test_the_folder_is_the_environments_and_private(tmp_path, monkeypatch):
    monkeypatch.setenv("CGAN_CACHE_DIR", str(tmp_path / "a" / "b"))
    assert cache.cache_path() == tmp_path / "a" / "b" and not (tmp_path / "a").exists()
    folder = cache.cache_folder()
    assert folder == tmp_path / "a" / "b" and stat.S_IMODE(folder.stat().st_mode) == 0o700
    monkeypatch.delenv("CGAN_CACHE_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / ".cache" / "cgan_jax"
