"""Variables of jax in the environment: commands work with them, or say in one line what to unset."""

import logging
import os

import pytest

from cgan_jax import __main__, jax_environment
from cgan_jax.errors import UsageError
from tests.command_line import cgan, start, write_recipe

IGNORED = {
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_TRANSFER_GUARD": "disallow",
    "JAX_ENABLE_X64": "1",
    "JAX_DISABLE_JIT": "1",
    "JAX_DEBUG_KEY_REUSE": "1",
    "JAX_DEBUG_NANS": "1",  # followed
    "JAX_NUMPY_RANK_PROMOTION": "raise",  # followed
}


@pytest.mark.slow  # real processes
def test_a_run_trains_and_is_sampled_under_strict_settings(recipe, tmp_path):
    config, run = write_recipe(tmp_path, recipe), tmp_path / "run"
    for argv in (
        ["train", f"--config={config}", f"--workdir={run}"],
        ["sample", f"--workdir={run}", f"--out={tmp_path}/a.png"],
        ["evaluate", f"--workdir={run}", "--metrics=ms_ssim", "--num_images=20"],
    ):
        process = start(*argv, **IGNORED)
        _, error = process.communicate(timeout=600)
        assert process.returncode == 0, error


@pytest.mark.slow  # real processes
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("JAX_PLATFORMS", "cuda", "pip install 'cgan_jax[cuda]' lets jax use an NVIDIA GPU; unset JAX_PLATFORMS"),
        ("JAX_PLATFORMS", "tpu", "pip install 'cgan_jax[tpu]' lets jax use a TPU; unset JAX_PLATFORMS"),
        ("JAX_PLATFORMS", "cdua", "jax knows cpu, cuda, gpu, rocm, tpu (did you mean cuda?); unset it"),
        ("JAX_DEBUG_NANS", "often", "jax knows no such value; unset it"),
    ],
)
def test_what_is_not_there_is_one_line(name, value, words, recipe, tmp_path):
    config = write_recipe(tmp_path, recipe)
    process = start("train", f"--config={config}", f"--workdir={tmp_path}/run", **{name: value})
    out, error = process.communicate(timeout=600)
    assert process.returncode == 2 and not out
    assert error.startswith(f"cgan: error: {name}={value}: ") and error.count("\n") == 1, error
    assert words in error


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(
            "Unable to initialize backend 'tpu': INTERNAL: no chips\n"
            "(set JAX_PLATFORMS='' to automatically choose an available backend)"
        ),
        RuntimeError("Unknown backend gpu. Available backends are ['cpu']"),
        AssertionError(),
        ValueError('Invalid value "foo" for JAX flag jax_transfer_guard'),
    ],
)
def test_errors_of_jax_while_it_starts_are_told_without_a_traceback(error, monkeypatch, capsys):
    monkeypatch.setenv("JAX_PLATFORMS", "gpu")

    def fail(*_):
        raise error

    monkeypatch.setattr(__main__, "_run_command", fail)
    assert cgan("train") == 2
    told = capsys.readouterr().err
    assert told.startswith("cgan: error: ") and told.count("\n") == 1 and "unset" in told


def test_other_errors_keep_their_traceback(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    assert jax_environment.trouble(AssertionError()) is None
    assert jax_environment.trouble(RuntimeError("shapes do not fit")) is None


def test_a_broken_driver_is_an_error_unless_the_processor_is_asked_for(monkeypatch):
    before = {name: value for name, value in os.environ.items() if name.startswith("JAX_")}
    logger = logging.getLogger("jax._src.xla_bridge")
    monkeypatch.setattr(logger, "filters", [])
    jax_environment.settle()
    for name, value in before.items():
        monkeypatch.setenv(name, value)

    def log() -> None:
        try:
            raise RuntimeError("Unable to load cuDNN. Is it installed?")
        except RuntimeError:
            logger.exception("Jax plugin configuration error: Exception when calling %s.initialize()", "xla_cuda13")

    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    log()
    monkeypatch.delenv("JAX_PLATFORMS")
    with pytest.raises(UsageError, match=r"Unable to load cuDNN.*set JAX_PLATFORMS=cpu"):
        log()
