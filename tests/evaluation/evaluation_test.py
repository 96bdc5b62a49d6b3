"""Scoring images: names and protocols, features by all devices and from the cache, a run that logs its evaluations."""

import hashlib
import json
import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgan_jax.data import sources
from cgan_jax.errors import UsageError
from cgan_jax.evaluation import evaluation
from cgan_jax.evaluation.features import Features, Network, classifier
from cgan_jax.evaluation.metrics import class_accuracy, fid, intra_fid, kid, pixel_mse
from cgan_jax.files import cache
from cgan_jax.run import workdir
from cgan_jax.run.checkpoint import Checkpoints
from cgan_jax.train import train_and_evaluate
from tests.command_line import cgan

RNG = np.random.default_rng(0)
DATASET = sources.Dataset(RNG.integers(0, 256, (9, 2, 2, 1), dtype=np.uint8), np.int32([0, 1, 2] * 3), ("a", "b", "c"))
SECTION = {"source": "tfds", "name": "cifar10", "image_size": 32, "data_dir": ""}
UNCONDITIONAL = {**SECTION, "name": "squares", "split": "train", "conditional": False}


class Recorded:
    """A metric of pixels that keeps what it was given."""

    READS, MIN_IMAGES, MIN_PER_CLASS, BETTER = ("images",), 1, 0, "higher"

    def compute(self, *given):
        self.given = given
        return {"answer": 42.0}


def sampler(variables, seed, labels, indices):
    """An image of the numbers that it depends on."""
    values = variables["base"] + 100 * seed + 10 * labels + indices
    return np.broadcast_to(values.astype(np.uint8)[:, None, None, None], (len(labels), 2, 2, 1))


def network(prefix="c", scale=1.0):
    """Features that can be computed in the head: the pixels of an image, and their sum as its logit."""

    def extract(variables, images):
        pixels = jnp.float32(images).reshape(len(images), -1) * variables
        return Features(pixels, jnp.sum(pixels, axis=1, keepdims=True))

    return Network("pixels", prefix, f"sum{scale}", "none", (1,), None, (), jnp.float32(scale), extract)


@pytest.mark.parametrize("conditional", [True, False])
def test_images_are_spread_evenly_over_the_classes_and_compared_with_all_real_ones(recipe, conditional, monkeypatch):
    recipe["dataset"]["conditional"] = conditional
    recipe["evaluate"].update(num_images=7, metrics="m")
    recipe["seed"] = 1
    metric = Recorded()
    monkeypatch.setattr(evaluation, "metrics_named", lambda text: {text: metric})
    scores, protocol = evaluation.Evaluator(recipe, DATASET)(sampler, {"base": 5})
    assert scores == {"answer": 42.0}
    assert protocol["generated_images"] == 7 and protocol["real_images"] == 9 and protocol["seed"] == 1
    fake, real, names = metric.given
    assert np.array_equal(real.images, DATASET.images)
    if conditional:
        assert names == DATASET.class_names and np.array_equal(real.labels, DATASET.labels)
        assert fake.labels.tolist() == [0, 0, 0, 1, 1, 2, 2]
        assert fake.images[:, 0, 0, 0].tolist() == [105, 106, 107, 115, 116, 125, 126]
    else:
        assert names == ("all",) and not np.any(real.labels) and not np.any(fake.labels)
        assert fake.images[:, 0, 0, 0].tolist() == list(range(105, 112))


@pytest.mark.parametrize(
    ("text", "names"), [("", []), (" ", []), ("pixel_mse", ["pixel_mse"]), (" fid ,kid,", ["fid", "kid"])]
)
def test_metrics_are_named_as_their_files(text, names):
    assert list(evaluation.metrics_named(text)) == names


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("pixel_mse,fidd", r"^unknown metric 'fidd'; there are: .*fid, .*pixel_mse"),
        ("fid,kid,fid", r"^metric 'fid' is asked for twice$"),
    ],
)
def test_a_metric_that_does_not_exist_or_comes_twice_is_one_line(text, line):
    with pytest.raises(UsageError, match=line):
        evaluation.metrics_named(text)


def test_too_few_images_are_one_line():
    with pytest.raises(UsageError, match=r"^--num_images=2 is fewer than the 3 classes$"):
        evaluation.check_counts({"pixel_mse": pixel_mse}, 2, 3, "--num_images")
    with pytest.raises(UsageError, match=r"^--num_images=5 is too few for intra_fid, which needs 6$"):
        evaluation.check_counts({"intra_fid": intra_fid}, 5, 3, "--num_images")
    evaluation.check_counts({"pixel_mse": pixel_mse}, 1, 1, "--num_images")
    evaluation.check_counts({}, 1, 3, "--num_images")


@pytest.mark.parametrize(
    ("key", "name", "metric", "prefix", "full"),
    [
        ("fid", "fid", fid, "", "fid50k_train"),
        ("fid", "fid", fid, "c", "cfd50k_train"),
        ("intra_fid/cat", "intra_fid", intra_fid, "c", "intra_cfd50k_train/cat"),
        ("intra_fid/cat", "intra_fid", intra_fid, "", "intra_fid50k_train/cat"),
        ("kid_std", "kid", kid, "c", "ckid_std50k_train"),
        ("top5_class_accuracy", "class_accuracy", class_accuracy, "c", "top5_class_accuracy50k"),
        ("pixel_mse/cat", "pixel_mse", pixel_mse, "c", "pixel_mse/cat"),
    ],
)
def test_a_name_says_the_features_the_number_of_images_and_the_split(key, name, metric, prefix, full):
    assert evaluation.full_name(key, name, metric, network(prefix), 50_000, "train") == full


def test_a_split_that_is_an_expression_makes_a_plain_name_and_few_images_a_fraction():
    assert evaluation.full_name("fid", "fid", fid, network(""), 500, "train[:10%]") == "fid0.5k_train_10"


@pytest.mark.parametrize("count", [1, 7, 8, 9, 30])
def test_features_are_of_every_image_once_whatever_their_number(count, monkeypatch):
    """8 devices share batches of 16: the last is filled up, and what fills it is no image."""
    assert jax.device_count() == 8
    monkeypatch.setattr(evaluation, "BATCH_PER_DEVICE", 2)
    images = RNG.integers(0, 256, (count, 3, 2, 1), dtype=np.uint8)
    features, logits = evaluation.features_of(network(), images, "")
    assert np.array_equal(features, images.reshape(count, -1).astype(np.float32))
    assert np.array_equal(logits[:, 0], images.reshape(count, -1).sum(axis=1))


def test_features_are_kept_for_these_pixels_and_weights_and_computed_again_where_damaged(monkeypatch):
    images = DATASET.images
    computed = []
    extract = evaluation.features_of
    monkeypatch.setattr(evaluation, "features_of", lambda *given: computed.append(1) or extract(*given))
    first = evaluation.cached_features(network(), images)
    assert np.array_equal(evaluation.cached_features(network(), images)[0], first[0]) and len(computed) == 1
    assert (
        np.array_equal(evaluation.cached_features(network(scale=2.0), images)[0], 2 * first[0]) and len(computed) == 2
    )
    evaluation.cached_features(network(), images[::-1])
    assert len(computed) == 3
    for path in (cache.cache_path() / "features").glob("*.npz"):
        content = bytearray(path.read_bytes())
        content[len(content) // 3] ^= 1
        path.write_bytes(content)
    assert np.array_equal(evaluation.cached_features(network(), images)[0], first[0]) and len(computed) == 4
    for path in (cache.cache_path() / "features").glob("*.npz"):
        path.write_bytes(b"")
    assert np.array_equal(evaluation.cached_features(network(), images)[1], first[1]) and len(computed) == 5


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CGAN_CACHE_DIR", str(tmp_path / "file"))
    assert len(evaluation.cached_features(network(), DATASET.images)[0]) == 9


def test_scores_of_features_are_those_of_the_formula():
    images, labels = RNG.integers(0, 256, (30, 2, 2, 1), dtype=np.uint8), np.zeros(30, np.int32)
    reference = evaluation.make_reference(DATASET, UNCONDITIONAL, {"fid": fid}, network())
    scores = evaluation.score({"fid": fid, "pixel_mse": pixel_mse}, images, labels, reference)
    x, y = images.reshape(30, -1) / 1.0, DATASET.images.reshape(9, -1) / 1.0
    root = np.sum(np.sqrt(np.abs(np.linalg.eigvals(np.cov(x.T) @ np.cov(y.T)))))
    expected = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(np.cov(x.T) + np.cov(y.T)) - 2 * root
    assert scores["cfd0.03k_train"] == pytest.approx(expected, rel=1e-5)
    assert "pixel_mse" in scores


def test_published_statistics_take_the_place_of_real_images(tmp_path):
    images = RNG.integers(0, 256, (30, 2, 2, 1), dtype=np.uint8)
    flat = images.reshape(30, -1).astype(np.float64)
    path = tmp_path / "published.npz"
    np.savez(path, mu=flat.mean(0), sigma=np.cov(flat.T))
    reference = evaluation.published_reference(path, DATASET, UNCONDITIONAL, network(""))
    scores = evaluation.score({"fid": fid}, images, np.zeros(30, np.int32), reference)
    assert scores == {"fid0.03k_published": pytest.approx(0, abs=1e-4)}


def test_published_statistics_of_other_features_are_refused_before_anything_is_drawn(tmp_path):
    np.savez(tmp_path / "published.npz", mu=np.zeros(7), sigma=np.eye(7))
    with pytest.raises(UsageError, match=r"published.npz is of 7 features, the network pixels has 4"):
        evaluation.published_reference(tmp_path / "published.npz", DATASET, UNCONDITIONAL, network(""))


@pytest.mark.parametrize(
    ("metric", "conditional", "labels", "line"),
    [
        ("fid", True, [0], "fid: it needs at least 2 real images and there are 1"),
        ("precision_recall", True, [0, 1, 2], "precision_recall: it needs at least 4 real images and there are 3"),
        ("intra_fid", True, [0, 0, 1, 2, 2], "intra_fid: it needs at least 2 real images of 'b', there are 1"),
        ("intra_fid", True, [0, 0, 2, 2], "intra_fid: it needs at least 2 real images of 'b', there are 0"),
        ("class_accuracy", False, [0, 1, 2], "class_accuracy needs images of several classes, and there is one"),
        ("classification_accuracy_score", False, [0, 1, 2], "classification_accuracy_score needs images of several"),
    ],
)
def test_what_cannot_be_measured_is_said_before_training(recipe, metric, conditional, labels, line, monkeypatch):
    dataset = sources.Dataset(DATASET.images[: len(labels)], np.int32(labels), DATASET.class_names)
    recipe["dataset"]["conditional"] = conditional
    recipe["evaluate"].update(metrics=metric, num_images=60)
    monkeypatch.setattr(evaluation, "find_network", lambda *_: network()._replace(class_names=DATASET.class_names))
    with pytest.raises(UsageError, match=f"^{line}"):
        evaluation.Evaluator(recipe, dataset)
    if conditional:
        with pytest.raises(UsageError, match=f"^{line}"):
            evaluation.make_reference(dataset, recipe["dataset"], evaluation.metrics_named(metric), network())


def test_metrics_of_generated_images_need_no_real_ones(recipe):
    recipe["evaluate"].update(metrics="ms_ssim", num_images=60)
    one = sources.Dataset(DATASET.images[:1], np.int32([0]), DATASET.class_names)
    assert list(evaluation.Evaluator(recipe, one).metrics) == ["ms_ssim"]


def test_real_images_are_looked_at_where_a_metric_compares_with_them(monkeypatch):
    monkeypatch.setattr(evaluation, "cached_features", lambda *_: ("features", "logits"))
    metrics = {"class_accuracy": class_accuracy, "pixel_mse": pixel_mse}
    assert evaluation.make_reference(DATASET, UNCONDITIONAL, metrics, network()).real.features is None
    assert evaluation.make_reference(DATASET, UNCONDITIONAL, {"fid": fid}, network()).real.features == "features"


def test_a_network_of_other_classes_cannot_say_whether_the_asked_one_is_seen(recipe, monkeypatch):
    metrics = {"fid": fid, "class_accuracy": class_accuracy}
    with pytest.raises(UsageError, match=r"class_accuracy needs a classifier of the dataset's classes; .* of no class"):
        evaluation.check_network(metrics, network(), DATASET.class_names)
    with pytest.raises(UsageError, match="the logits of pixels are of x, b, c"):
        evaluation.check_network(metrics, network()._replace(class_names=("x", "b", "c")), DATASET.class_names)
    evaluation.check_network({"fid": fid}, network(), DATASET.class_names)
    evaluation.check_network(metrics, network()._replace(class_names=("a", "b", "c")), DATASET.class_names)
    monkeypatch.setattr(evaluation, "find_network", lambda *_: network())
    recipe["evaluate"].update(metrics="class_accuracy", num_images=50)
    with pytest.raises(UsageError, match="class_accuracy needs"):
        evaluation.Evaluator(recipe, DATASET)


def test_a_protocol_says_which_weights_drew(recipe):
    recipe["ema"]["halflife_kimg"] = 0.0
    assert evaluation.of_run(recipe, {"params": 0}) == {
        "weights": "the last step's, not averaged",
        "batch_norm": None,
    }
    recipe["anneal"]["to"] = {"ema": {"halflife_kimg": 20.0}}
    said = evaluation.of_run(recipe, {"params": 0, "batch_stats": 0})
    assert said["weights"] == "averaged, half-life 0 to 20 kimg" and said["batch_norm"].startswith("running")
    assert evaluation.of_run(recipe, {"batch_stats": 0}, "standing")["batch_norm"] == "standing statistics"


def test_the_packaged_classifier_serves_cifar10_and_nothing_else():
    names = classifier.read(classifier.PACKAGED)[0].class_names
    found = evaluation.find_network("classifier", SECTION, 3, names)
    assert found.prefix == "c" and found.class_names == names
    with pytest.raises(UsageError, match=r"mnist have no classifier yet; .*cgan train-classifier --dataset=mnist --im"):
        evaluation.find_network("classifier", {**SECTION, "name": "mnist", "image_size": 28}, 1, ("0", "1"))
    own = {**SECTION, "source": "images", "name": "", "data_dir": "my pictures", "image_size": 64, "fit": "pad"}
    command = "cgan train-classifier --config=images '--config.dataset.data_dir=my pictures' --config.dataset.fit=pad "
    with pytest.raises(UsageError, match=re.escape(command)):
        evaluation.find_network("classifier", own, 3, ("0", "1"))
    with pytest.raises(UsageError, match="have 1 channels"):
        evaluation.find_network("classifier", SECTION, 1, names, str(classifier.PACKAGED))
    with pytest.raises(UsageError, match="have 64 pixels a side"):
        evaluation.find_network("classifier", {**SECTION, "image_size": 64}, 3, names, str(classifier.PACKAGED))
    with pytest.raises(UsageError, match="unknown feature network 'resnet'; there are: classifier, inception"):
        evaluation.find_network("resnet", SECTION, 3, names)


def test_a_protocol_says_what_a_number_depends_on():
    reference = evaluation.make_reference(DATASET, {**UNCONDITIONAL, "conditional": True}, {"fid": fid}, network())
    said = evaluation.protocol(reference, {"kid": kid, "fid": fid}, 50, time.perf_counter(), step=3)
    assert (said["real_split"], said["real_images"], said["generated_images"]) == ("train", 9, 50)
    assert (said["features"], said["weights_sha256"], said["step"]) == ("pixels", "sum1.0", 3)
    assert said["settings"] == {"kid": "100 subsets of at most 1000 of each kind"}
    assert (said["real_dataset"], said["real_sha256"]) == ("tfds squares", hashlib.sha256(DATASET.images).hexdigest())
    assert {"decoder", "preprocessing", "matmul_precision", "jax", "device"} <= said.keys() and said["seconds"] >= 0
    json.dumps(said)


def test_a_run_logs_its_evaluations_and_writes_them_once_however_often_it_is_resumed(recipe, tmp_path):
    recipe["evaluate"].update(metrics="pixel_mse", every_kimg=0.064, num_images=20)
    recipe["checkpoint"]["every_kimg"] = 0.128
    run = tmp_path / "run"
    train_and_evaluate(recipe, run)
    lines = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    assert [(line["step"], line["kimg"]) for line in lines] == [(4, 0.064), (8, 0.128)]
    for line in lines:
        assert {"eval/pixel_mse", "eval/pixel_accuracy", "eval/pixel_mse/3"} <= line.keys()
        assert line["eval/pixel_accuracy"] == pytest.approx(1 - line["eval/pixel_mse"])
        assert 0 < line["eval/pixel_mse"] < 1 and line["seconds"] >= 0
        assert line["protocol"]["generated_images"] == 20
    # What was logged after the checkpoint that a run goes on from is forgotten, as in metrics.jsonl.
    workdir.append_metrics(run, {"step": 9, "kimg": 0.144}, workdir.EVALUATIONS)
    recipe["train"]["total_kimg"] = 0.16
    train_and_evaluate(recipe, run)
    assert [line["step"] for line in workdir.read_metrics(run, workdir.EVALUATIONS)] == [4, 8, 10]


def test_the_best_checkpoint_by_a_metric_is_kept_besides_the_latest(recipe, tmp_path, monkeypatch):
    costs = iter([1.0, 3.0, 2.0, 5.0])
    monkeypatch.setattr(evaluation.Evaluator, "cost", lambda *_: next(costs))
    recipe["evaluate"].update(metrics="pixel_mse", keep_best="pixel_mse", every_kimg=0.032)
    recipe["checkpoint"].update(every_kimg=0.128, max_to_keep=2)
    train_and_evaluate(recipe, tmp_path / "run")
    checkpoints = Checkpoints(tmp_path / "run", read_only=True)
    assert checkpoints.steps() == [2, 6, 8] and checkpoints.best() == 2 and checkpoints.chosen("best") == 2
    assert checkpoints.chosen(None) == 8
    checkpoints.close()
    asked = ("evaluate", f"--workdir={tmp_path / 'run'}", "--step=best", "--metrics=pixel_mse", "--num_images=20")
    assert cgan(*asked) == 0
    assert workdir.read_metrics(tmp_path / "run", workdir.EVALUATIONS)[-1]["protocol"]["chosen"] == "best by pixel_mse"


def test_costs_by_other_weights_have_another_name(recipe, monkeypatch):
    recipe["evaluate"].update(metrics="fid", keep_best="fid", num_images=40)
    networks = iter([network(scale=1.0), network(scale=2.0)])
    monkeypatch.setattr(evaluation, "find_network", lambda *_: next(networks))
    for sha256 in ("sum1.0", "sum2.0"):
        evaluator = evaluation.Evaluator(recipe, DATASET)
        assert evaluator.cost_of == f"cfd0.04k_all by pixels {sha256}"
        assert evaluator.cost({"cfd0.04k_all": 7.0}) == 7.0


def test_cost_is_the_number_of_the_metric_and_less_is_better(recipe):
    recipe["evaluate"].update(metrics="pixel_mse,ms_ssim", keep_best="pixel_mse")
    assert evaluation.Evaluator(recipe, DATASET).cost({"pixel_mse": 0.25, "ms_ssim": 1.0}) == 0.25
    recipe["evaluate"]["keep_best"] = "fid"
    with pytest.raises(UsageError, match=r"^evaluate\.keep_best='fid' must be .*rank: pixel_mse, ms_ssim$"):
        evaluation.Evaluator(recipe, DATASET)


def test_a_run_without_metrics_evaluates_nothing(recipe, tmp_path):
    recipe["train"]["total_kimg"] = 0.016
    train_and_evaluate(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "evaluations.jsonl").exists()
