"""What the page draws with: a run and what was exported of it give the images of `cgan sample`."""

import numpy as np
import pytest

from cgan_jax.errors import UsageError
from cgan_jax.run import workdir
from cgan_jax.sampling import request, sampling
from cgan_jax.serving.models import Served
from cgan_jax.serving.studio import Studio
from tests.command_line import cgan
from tests.conftest import small_recipe
from tests.random_run import write_random_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose generator's weights are random, with scores of its last step 8 and of the one before."""
    folder = write_random_run(tmp_path_factory.mktemp("run") / "run", small_recipe())
    for line in (
        {"step": 4, "kimg": 1, "eval/fid": 90.0},
        {"step": 8, "kimg": 2, "eval/fid": 30.0, "eval/fid/3": 5.0, "eval/kid": float("nan")},
        {"step": 8, "kimg": 2, "eval/fid": 20.0},
    ):
        workdir.append_metrics(folder, line, workdir.EVALUATIONS)
    return folder


@pytest.fixture(scope="module")
def models(run):
    """A run and its exported model."""
    out = run.parent / "model.cgan"
    assert cgan("export", f"--workdir={run}", f"--out={out}") == 0
    return Served(run), Served(out)


def test_both_draw_what_sample_draws(run, models):
    labels, indices = request.spread(16, [3, 7])
    for truncation in (None, 0.5):
        drawn = sampling.gathered(sampling.Sampler(run, truncation=truncation).images(5, labels, indices))
        for model in models:
            found = model.images(5, labels, indices, truncation or 0.0)
            assert np.max(np.abs(found.astype(int) - drawn)) <= 1


def test_the_ends_of_a_morph_are_the_images_of_its_ends(models):
    for model in models:
        start, end = (3, 8), (3, 9)
        expected = [model.images(seed, np.full(16, 3, np.int32), np.zeros(16, np.int32), 0.0)[0] for seed in (8, 9)]
        for share, image in zip((0.0, 1.0), expected, strict=True):
            assert np.max(np.abs(model.between(start, end, share).astype(int) - image)) <= 1
        half = model.between(start, end, 0.5)
        assert np.any(half != expected[0]) and np.any(half != expected[1])


def test_between_classes_a_run_is_mixed_and_an_exported_model_changes_over(models):
    run, exported = models
    ends = (1, 0), (8, 0)
    shares = [0.0, 0.4, 0.6, 1.0]
    assert len({run.between(*ends, share).tobytes() for share in shares}) == 4
    images = [exported.between(*ends, share) for share in shares]
    assert np.array_equal(images[0], images[1]) and np.array_equal(images[2], images[3])
    assert np.any(images[1] != images[2])


def test_a_studio_serves_them(models):
    for model in models:
        studio = Studio(model, model.about)
        assert studio.draw(studio.request({"classes": ["3"], "count": 20})).images.shape == (20, 8, 8, 1)
        assert studio.about["architecture"] == "dcgan"


def test_they_say_which_step_they_are_of_and_its_scores(run, models):
    for model in (*models, Served(run, 8)):
        assert model.about["step"] == 8 and model.about["image_size"] == 8
        assert model.about["scores"] == {"fid": 20.0}
    assert Served(run, 4).about["scores"] == {"fid": 90.0}


def test_they_say_which_average_they_are(run, models):
    assert {model.about["generator_weights"] for model in models} == {"averaged, half-life 0.1 kimg"}
    assert Served(run, ema="last").about["generator_weights"] == "the last step's, not averaged"


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(UsageError, match="holds no run"):
        Served(tmp_path)
    (tmp_path / "model.cgan").write_bytes(b"something else")
    with pytest.raises(UsageError, match="is no exported model"):
        Served(tmp_path / "model.cgan")
