"""A generator that truncates by itself does so wherever a truncation is given, and keeps its latents."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cgan_jax
from cgan_jax import build, exported, train_state
from cgan_jax.run import workdir
from cgan_jax.run.checkpoint import Checkpoints
from cgan_jax.sampling import request, sampling
from cgan_jax.serving.models import Served
from tests.command_line import cgan
from tests.conftest import small_recipe

LABELS, INDICES = request.spread(6, [3, 7])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    recipe = small_recipe()
    recipe["architecture"] = "stylegan2"
    both = {"width": 4, "mapping_layers": 1, "dtype": "float32"}
    recipe["generator"] = {"latent_dim": 4, "style_dim": 3, "style_mixing": 0.0, **both}
    recipe["discriminator"] = {"group": 4, "head": "projection", **both}
    spec = build.ImageSpec(8, 1, 10)
    # Initial weights: a mapping of small random numbers gives all latents one style.
    state = train_state.create(build.build(recipe, spec), spec, jax.random.key(0))
    folder = tmp_path_factory.mktemp("truncation") / "run"
    folder.mkdir()
    workdir.write_info(folder, workdir.RunInfo(recipe, 1, [str(digit) for digit in range(10)], 1797))
    with contextlib.closing(Checkpoints(folder)) as checkpoints:
        checkpoints.save(state.replace(step=jnp.int32(8)))
    return folder


@pytest.fixture(scope="module")
def ways(run):
    """(truncation) -> images int [N, 8, 8, 1], by name of what draws them."""
    out = run.parent / "model.cgan"
    assert cgan("export", f"--workdir={run}", f"--out={out}") == 0
    model, file, served = cgan_jax.load(run), exported.load(out), (Served(run), Served(out))
    return {
        "library": lambda t: model.sample([3, 7], num_images=6, seed=5, truncation=t).images,
        "file": lambda t: file(LABELS, seed=5, truncation=t),
        "served": lambda t: served[0].images(5, LABELS, INDICES, t),
        "served from a file": lambda t: served[1].images(5, LABELS, INDICES, t),
    }


def test_every_place_draws_what_sample_draws(run, ways):
    sampler = sampling.Sampler(run, truncation=0.6)
    expected = sampling.gathered(sampler.images(5, LABELS, INDICES)).astype(int)
    assert expected.std() > 5
    for name, draw in ways.items():
        assert np.abs(draw(0.6).astype(int) - expected).max() <= 1, name
    whole = sampling.Sampler(run)
    np.testing.assert_array_equal(sampler.latents(5, LABELS, INDICES), whole.latents(5, LABELS, INDICES))
    assert np.abs(sampling.gathered(whole.images(5, LABELS, INDICES)) - expected).max() > 1


def test_images_of_a_class_become_one(ways):
    spread = [np.std(ways["file"](truncation).astype(int)[LABELS == 3], axis=0).mean() for truncation in (1e-6, 0.9)]
    assert spread[0] < 0.1 < spread[1]
