"""Compiled programs are kept from one process to the next."""

import subprocess
import sys

import jax

from cgan_jax.files import compilation_cache


def test_a_second_process_finds_what_the_first_compiled(tmp_path, monkeypatch):
    monkeypatch.setenv("CGAN_CACHE_DIR", str(tmp_path))
    program = """
import jax
from cgan_jax.files import compilation_cache
compilation_cache.enable()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.jit(lambda x: jax.numpy.sin(x) @ x)(jax.numpy.ones((64, 64))).block_until_ready()
"""
    kept = []
    for _ in range(2):
        subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
        kept.append(sorted(p.name for p in tmp_path.rglob("*") if p.is_file() and not p.name.endswith("-atime")))
    assert kept[0] and kept[0] == kept[1]
    (folder,) = (tmp_path / "xla").iterdir()
    assert folder.name.endswith("-cpu")


def test_without_a_folder_to_write_to_nothing_is_kept(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CGAN_CACHE_DIR", str(tmp_path / "file" / "below"))
    before = jax.config.jax_compilation_cache_dir
    compilation_cache.enable()
    assert jax.config.jax_compilation_cache_dir == before
