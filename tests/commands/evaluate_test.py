"""`cgan evaluate`: a run's images and anybody's, with their protocol, on the digits and a classifier of no training."""

import copy
import json

import jax
import numpy as np
import pytest

import cgan_jax
from cgan_jax.data import sources
from cgan_jax.errors import UsageError
from cgan_jax.evaluation import evaluation
from cgan_jax.evaluation.features import classifier
from cgan_jax.evaluation.metrics import fid
from cgan_jax.files import cache
from cgan_jax.run import workdir
from cgan_jax.sampling import sampling, trained
from cgan_jax.train import train_and_evaluate
from tests.command_line import cgan
from tests.conftest import small_recipe
from tests.random_run import write_random_run

DIGITS = sources.load("digits", "", "all", "", 8)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate") / "run"
    train_and_evaluate(small_recipe(), folder)
    return folder


@pytest.fixture
def network():
    description = classifier.Description(DIGITS.class_names, 8, 1, (4, 6), "none", 0.1, "none", "none")
    variables = jax.jit(lambda: classifier.init(description, jax.random.key(0)))()
    variables["fixed"]["_Whitening_0"]["kernel"] = classifier.whitening(DIGITS.images[:100])
    path = cache.cache_folder() / classifier.place("digits", "digits", "", 8, 1, DIGITS.class_names)
    path.parent.mkdir(exist_ok=True)
    classifier.save(path, description, variables)
    return classifier.load(path)


def test_a_run_is_scored_by_several_seeds_and_the_line_says_how(run, network, tmp_path, capsys):
    out = tmp_path / "scores.json"
    metrics = "--metrics=fid,class_accuracy,pixel_mse"
    assert cgan("evaluate", f"--workdir={run}", metrics, "--num_images=40", "--seeds=2", f"--json={out}") == 0
    printed = capsys.readouterr().out
    result = json.loads(out.read_text())
    scores, protocol = result["scores"], result["protocol"]
    assert {"cfd0.04k_all", "class_accuracy0.04k", "pixel_mse"} <= scores.keys()
    assert all(len(values) == 2 for values in scores.values())
    assert scores["cfd0.04k_all"][0] != scores["cfd0.04k_all"][1]
    assert "cfd0.04k_all" in printed and " ± " in printed and network.weights_sha256 in printed
    assert "; added to its logs" in printed
    assert protocol["weights_sha256"] == network.weights_sha256 and protocol["seeds"] == [0, 1]
    assert (protocol["step"], protocol["chosen"], protocol["real_images"]) == (8, "latest", 1797)
    line = workdir.read_metrics(run, workdir.EVALUATIONS)[-1]
    assert line["step"] == 8 and line["kimg"] == 0.128 and line["protocol"] == protocol
    assert line["eval/cfd0.04k_all"] == pytest.approx(np.mean(scores["cfd0.04k_all"]))
    assert line["spread/pixel_mse"] == pytest.approx(np.std(scores["pixel_mse"], ddof=1))
    assert cgan("evaluate", f"--workdir={run}", metrics, "--num_images=40", f"--json={out}") == 2
    assert "exists already; --force" in capsys.readouterr().err


@pytest.fixture(scope="module")
def normalised(tmp_path_factory):
    """A run whose generator has batch normalisation, scored with both kinds of statistics."""
    small, recipe = {"width": 4, "embedding_dim": 2, "dtype": "float32"}, small_recipe()
    recipe |= {"architecture": "dcgan_upsample", "discriminator": {"dropout": 0.0, **small}}
    recipe["generator"] = {"latent_dim": 4, "batch_norm_momentum": 0.8, **small}
    run = write_random_run(tmp_path_factory.mktemp("normalised") / "run", recipe)
    for flags in ([], ["--batch_stats=standing"]):
        assert cgan("evaluate", f"--workdir={run}", "--metrics=pixel_mse", "--num_images=20", *flags) == 0
    return run


def test_scores_with_standing_statistics_do_not_replace_those_of_the_step(normalised):
    (line,), (standing,) = (workdir.read_metrics(normalised, log) for log in (workdir.EVALUATIONS, workdir.AVERAGES))
    assert standing["average"] == "standing" and standing["protocol"]["batch_norm"] == "standing statistics"
    assert standing["eval/pixel_mse"] != line["eval/pixel_mse"]
    assert trained.metrics_at(normalised, line["step"])["pixel_mse"] == line["eval/pixel_mse"]
    assert cgan_jax.load(normalised).scores["pixel_mse"] == line["eval/pixel_mse"]
    assert cgan_jax.load(normalised, batch_stats="standing").scores["pixel_mse"] == standing["eval/pixel_mse"]


def test_a_file_with_standing_statistics_says_so_wherever_it_goes(normalised, tmp_path):
    """Its scores are those of its statistics."""
    (standing,) = workdir.read_metrics(normalised, workdir.AVERAGES)
    model, again = tmp_path / "a.cgan", tmp_path / "b.cgan"
    assert cgan("export", f"--workdir={normalised}", "--batch_stats=standing", f"--out={model}") == 0
    assert cgan("export", f"--model={model}", f"--out={again}") == 0
    asked = ("--metrics=pixel_mse", "--num_images=20", f"--json={tmp_path / 'scores.json'}")
    assert cgan("evaluate", f"--model={again}", *asked) == 0
    protocol = json.loads((tmp_path / "scores.json").read_text())["protocol"]
    assert protocol["batch_norm"] == "standing statistics"
    assert cgan("synthesize", f"--model={again}", "--num_images=20", f"--out={tmp_path / 'set'}") == 0
    card = json.loads((tmp_path / "set" / "card.json").read_text())
    assert card["batch_stats"] == "standing" and card["metrics"]["pixel_mse"] == standing["eval/pixel_mse"]


def test_standing_statistics_are_those_of_truncated_latents_for_programs_too(normalised, tmp_path):
    asked = ("--batch_stats=standing", "--labels=3", "--num_images=4", "--truncation=0.3")
    assert cgan("sample", f"--workdir={normalised}", *asked, f"--out={tmp_path / 'a.npz'}") == 0
    model = cgan_jax.load(normalised, batch_stats="standing")
    with np.load(tmp_path / "a.npz") as expected:
        assert expected["images"].std() > 5
        assert np.abs(model.sample(3, 4, truncation=0.3).images.astype(int) - expected["images"]).max() <= 1
        untruncated = model.sample(3, latents=model.latents([3] * 4, truncation=0.3))
        assert np.abs(untruncated.images.astype(int) - expected["images"]).max() > 1


def test_a_file_is_not_said_to_keep_its_scores(run, tmp_path, capsys):
    model = tmp_path / "model.cgan"
    assert cgan("export", f"--workdir={run}", f"--out={model}") == 0
    before = (run / workdir.EVALUATIONS).read_text() if (run / workdir.EVALUATIONS).exists() else ""
    assert cgan("evaluate", f"--model={model}", "--metrics=pixel_mse", "--num_images=20") == 0
    assert "added to" not in capsys.readouterr().out
    assert before == ((run / workdir.EVALUATIONS).read_text() if (run / workdir.EVALUATIONS).exists() else "")


def test_the_runs_own_discriminator_has_its_say(run, tmp_path):
    """Also of images held out, where the run was shown the training split; here it was shown all."""
    out = tmp_path / "scores.json"
    asked = (f"--workdir={run}", "--metrics=discriminator_accuracy", "--num_images=20", f"--json={out}")
    assert cgan("evaluate", *asked) == 0
    scores = json.loads(out.read_text())["scores"]
    sampler = sampling.Sampler(run)
    discriminator, variables = sampler.discriminator()
    assert sampler.boundary() == 0
    images = DIGITS.images.astype(np.float32) / 127.5 - 1
    logits = discriminator.apply(variables, images, DIGITS.labels, train=False).logits
    assert scores["discriminator_accuracy/real"] == [pytest.approx(np.mean(np.asarray(logits) > 0), abs=1e-3)]
    assert scores.keys() == {"discriminator_accuracy/real", "discriminator_accuracy/generated"}


def test_a_discriminator_that_draws_no_line_is_not_asked(run):
    sampler = sampling.Sampler(run)
    recipe = copy.deepcopy(sampler.info.recipe)
    recipe["loss"]["d_updates"] = {"both": {f"wasserstein_{kind}": {"weight": 1.0} for kind in ("real", "fake")}}
    sampler.info = sampler.info._replace(recipe=recipe)
    with pytest.raises(UsageError, match="wasserstein_real, wasserstein_fake draws no line between real and generated"):
        sampler.boundary()


def test_all_usual_metrics_have_a_say_of_enough_images(run, network, tmp_path):
    out = tmp_path / "scores.json"
    assert cgan("evaluate", f"--workdir={run}", "--num_images=200", f"--json={out}") == 0
    names = {name.split("/")[0].split("0.2k")[0] for name in json.loads(out.read_text())["scores"]}
    assert {"cfd", "ckid", "cinception_score", "cprecision", "crecall", "cdensity", "ccoverage"} <= names
    assert {"intra_cfd", "class_accuracy", "ms_ssim"} <= names
    assert not any(name.startswith("fid") or name == "kid" for name in names)


@pytest.mark.parametrize("labelled", [True, False])
def test_images_of_others_are_scored_by_the_same_code(labelled, network, tmp_path, capsys):
    images, labels = DIGITS.images[:300], DIGITS.labels[:300]
    np.savez(tmp_path / "given.npz", images=images, **({"labels": labels} if labelled else {}))
    out = tmp_path / "scores.json"
    given = (f"--images={tmp_path / 'given.npz'}", "--dataset=digits", "--image_size=8", "--split=all")
    assert cgan("evaluate", *given, "--metrics=fid", f"--json={out}") == 0
    [found] = json.loads(out.read_text())["scores"]["cfd0.3k_all"]
    features = [np.asarray(network.extract(network.variables, x).features) for x in (images, DIGITS.images)]
    assert found == pytest.approx(fid.frechet_distance(*map(fid.moments, features)), rel=1e-3)
    assert cgan("evaluate", *given, "--metrics=intra_fid", f"--json={out}", "--force") == (0 if labelled else 2)
    if labelled:
        assert "intra_cfd0.3k_all/7" in json.loads(out.read_text())["scores"]
    else:
        line = f"cgan: error: intra_fid compares class by class, and {tmp_path / 'given.npz'} has no labels\n"
        assert capsys.readouterr().err.endswith(line)


def test_published_statistics_stand_for_real_images(run, network, tmp_path, capsys, monkeypatch):
    features = np.asarray(network.extract(network.variables, DIGITS.images).features)
    moments = fid.moments(features)
    np.savez(tmp_path / "published.npz", mu=moments.mean, sigma=moments.covariance)
    asked = (f"--workdir={run}", "--num_images=40")
    assert cgan("evaluate", *asked, "--metrics=fid") == 0
    monkeypatch.setattr(sources, "load", lambda *_: pytest.fail("they are not needed any more"))
    assert cgan("evaluate", *asked, f"--reference={tmp_path / 'published.npz'}") == 0
    printed = capsys.readouterr().out.splitlines()
    numbers = [line.split()[1] for line in printed if line.startswith(("cfd0.04k_published", "cfd0.04k_all"))]
    assert len(numbers) == 2 and float(numbers[0]) == pytest.approx(float(numbers[1]), rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--num_images=5", "--metrics=fid"], "--num_images=5 is fewer than the 10 classes"),
        (["--metrics=fidd"], "unknown metric 'fidd'"),
        (["--metrics="], "--metrics names none"),
        (["--features=resnet"], "unknown feature network 'resnet'"),
        (["--step=3"], "no checkpoint at step 3; there are: "),
        (["--step=best"], "has no best checkpoint"),
        (["--step=last"], "--step must be a generator step or best"),
        (["--split=half"], "'half'"),
        (["--batch_stats=standing", "--metrics=pixel_mse"], "the generator of dcgan has no batch normalisation"),
        (["--split=test", "--metrics=discriminator_accuracy"], "is of the images of training, all; given --split=test"),
        (["--reference=none.npz", "--metrics=kid"], "serve --metrics=fid alone"),
        (["--reference=none.npz"], "none.npz"),
        (["--classifier=none.npz"], "there is no classifier none.npz"),
        (["--num_images=0"], "--num_images=0: 0 is not a positive integer"),
        (["--seeds=0"], "--seeds=0: 0 is not a positive integer"),
        (["--images=x"], "either a model or --images=FOLDER_OR_NPZ is scored, given both"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_wrong_use_is_one_line(arguments, line, run, network, capsys):
    assert cgan("evaluate", f"--workdir={run}", *arguments) == 2
    error = capsys.readouterr().err
    assert line in error and error.count("\n") == 1


def test_inception_is_asked_for_what_it_can_tell(run, network, monkeypatch, tmp_path, capsys):
    """Its logits are of no class of the dataset: it is left out of the usual metrics, refused where it is named."""
    stranger = network._replace(name="inception", prefix="", class_names=())
    monkeypatch.setattr(evaluation.inception, "load", lambda: stranger)
    out, asked = tmp_path / "scores.json", (f"--workdir={run}", "--features=inception", "--num_images=200")
    assert cgan("evaluate", *asked, "--metrics=class_accuracy") == 2
    assert "class_accuracy needs a classifier of the dataset's classes" in capsys.readouterr().err
    assert cgan("evaluate", *asked, f"--json={out}") == 0
    names = json.loads(out.read_text())["scores"].keys()
    assert {"fid0.2k_all", "intra_fid0.2k_all", "inception_score0.2k"} <= names
    assert not any("class_accuracy" in name for name in names)


def test_without_a_classifier_the_line_says_how_to_get_one(run, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("CGAN_CACHE_DIR", str(tmp_path))
    assert cgan("evaluate", f"--workdir={run}", "--metrics=fid", "--num_images=40") == 2
    assert "cgan train-classifier --dataset=digits --image_size=8" in capsys.readouterr().err
    assert cgan("evaluate", f"--workdir={run}", "--metrics=pixel_mse", "--num_images=40") == 0
