"""Every test runs on 8 simulated CPU devices, strictly: an unintended broadcast between ranks is an error."""

import contextlib
import importlib.util
import os
import resource
import sys
import types

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUM_CPU_DEVICES"] = "8"
# Compilation takes most of the time of the tests, and they run each program a few times at most.
os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

# torch-fidelity imports torchvision, which has no build for every torch, for datasets that no test here uses.
if importlib.util.find_spec("torchvision") is None:
    stub = {name: types.ModuleType(name) for name in ("torchvision", "torchvision.datasets", "torchvision.transforms")}
    stub["torchvision.transforms.functional"] = types.ModuleType("torchvision.transforms.functional")
    vars(stub["torchvision.datasets"]).update(CIFAR10=object, CIFAR100=object, STL10=object)
    vars(stub["torchvision.transforms"]).update(functional=None)
    for name, module in stub.items():
        vars(module).update(__file__=f"{name}.py", __path__=[])
    sys.modules |= stub


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """No test reads or fills the user's own cache or datasets."""
    monkeypatch.setenv("CGAN_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def remote(tmp_path, monkeypatch):
    """A prefix of a bucket that needs no network."""
    from tests.bucket import put_in_place

    return put_in_place(tmp_path / "buckets", monkeypatch)


@pytest.fixture
def bare(monkeypatch):
    """Runs in this process on one device, without what takes time and is tested elsewhere: pictures, texts, speed."""
    strip_runs(monkeypatch)


def strip_runs(monkeypatch) -> None:
    from cgan_jax import train
    from cgan_jax.parallel import make_mesh
    from cgan_jax.run.journal import Journal

    class QuietJournal(Journal):
        """Logs, but draws no pictures, and does not measure the machine."""

        def describe(self, *_) -> None:
            pass

        def show(self, *_, **__) -> None:
            pass

        def measure_ceiling(self, measure) -> None:
            super().measure_ceiling(lambda: {"ceiling": 1.0})

    monkeypatch.setattr(train, "make_mesh", lambda: make_mesh(jax.devices()[:1]))
    monkeypatch.setattr(train, "Journal", QuietJournal)


@pytest.fixture
def recipe() -> dict:
    """A complete recipe that trains in a second: the digits, with networks of a few channels."""
    return small_recipe()


def small_recipe() -> dict:
    from cgan_jax.recipe import defaults

    config = defaults()
    config.dataset.update(source="digits", name="digits", split="all", image_size=8, conditional=True, flip=False)
    config.architecture = "dcgan"
    config.generator.update(latent_dim=4, width=4, embedding_dim=3, output_kernel_size=4, dtype="float32")
    config.discriminator.update(width=4, embedding_dim=3, dropout=0.3, dtype="float32")
    config.loss.d_updates.both = {"bce_real": {"weight": 1.0}, "bce_fake": {"weight": 1.0}}
    config.loss.g_terms.bce = {"weight": 1.0}
    config.g_optimizer.update(name="adam", learning_rate=2e-4, b1=0.5, b2=0.999, eps=1e-8)
    config.d_optimizer.update(config.g_optimizer)
    config.ema.update(halflife_kimg=0.1, start_kimg=0.0)
    config.train.update(total_kimg=0.128, batch_size=16, g_batch_size=16, d_steps_per_g_step=1, steps_per_call=1)
    config.train.update(log_kimg=0.032, sample_kimg=0.064)
    config.evaluate.update(every_kimg=0.064, num_images=20)
    config.checkpoint.update(every_kimg=0.064, max_to_keep=2)
    config.guard.update(d_perfect_kimg=0.0, watchdog_minutes=0.0)
    return config.to_dict()


@pytest.fixture
def small_files():
    """No file may grow beyond a few kilobytes inside: writing fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    @contextlib.contextmanager
    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited
