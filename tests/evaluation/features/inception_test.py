"""The same network as torch-fidelity's: one file of weights, one set of images, the same features and logits."""

import hashlib
import math
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from cgan_jax.errors import UsageError
from cgan_jax.evaluation import features
from cgan_jax.evaluation.features import inception
from cgan_jax.lookup import module_named, names_in
from tests.torch_files import state_dict_file


def sum_of(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def randomize(torch, reference):
    """Weights and running statistics that keep activations of order one, none of them at what a layer starts with."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in reference.state_dict().items():
        if tensor.ndim == 4:
            tensor.normal_(0, math.sqrt(2 / tensor[0].numel()), generator=generator)
        elif name == "fc.weight":
            tensor.normal_(0, 0.02, generator=generator)
        elif name.endswith(("bias", "running_mean")):
            tensor.normal_(0, 0.1, generator=generator)
        elif not name.endswith("num_batches_tracked"):
            tensor.uniform_(0.5, 1.5, generator=generator)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """torch-fidelity's network with random weights, and ours that has read them from a file like the published one."""
    torch = pytest.importorskip("torch")
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    file = tmp_path_factory.mktemp("weights") / "w.pth"
    with pytest.MonkeyPatch.context() as patch:  # its constructor wants the file which it is here to make
        patch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        torch.save({}, file)
        reference = module.FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"], str(file))
    randomize(torch, reference)
    # Its 95,628,359 bytes are fewer than these tensors take in a zip archive: the published file is of the older kind.
    torch.save(reference.state_dict(), file, _use_new_zipfile_serialization=False)

    def extract(images):
        outputs = reference(torch.from_numpy(images).permute(0, 3, 1, 2))
        return features.Features(*(output.numpy() for output in outputs))

    network = inception.load(str(file), sum_of(file))
    return SimpleNamespace(
        reference=extract, network=network, extract=jax.jit(network.extract), file=file, torch_network=reference
    )


def noise_and_a_slope(side):
    """Two images with little in common, uint8 [2, side, side, 3]."""
    noise = np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)
    slope = np.linspace(0, 255, side)[:, None, None] * np.array([1.0, 0.5, 0.1]) + np.zeros((1, side, 1))
    return np.stack([noise, slope.astype(np.uint8)])


@pytest.mark.parametrize("side", [32, 299])
def test_features_and_logits_are_torch_fidelitys(side, both):
    images = noise_and_a_slope(side)
    expected, found = both.reference(images), both.extract(both.network.variables, images)
    assert found.features.shape == (2, 2048) and found.logits.shape == (2, 1008)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == np.float32
        typical = np.abs(theirs).mean()
        assert np.abs(theirs[0] - theirs[1]).mean() > 0.1 * typical  # else they would say little about the images
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * typical)


def test_grey_is_rgb_with_three_equal_channels():
    images = noise_and_a_slope(28)[..., :1]
    found = inception.preprocess(images)
    assert found.shape == (2, 299, 299, 3) and found.min() >= -1 and found.max() < 1
    np.testing.assert_array_equal(found, inception.preprocess(np.repeat(images, 3, axis=-1)))


def test_every_parameter_but_the_bias_of_the_logits_is_read(both):
    parameters = jax.tree.leaves(both.network.variables["params"])
    assert len(parameters) == 94 * 3 + 1
    theirs = sum(parameter.numel() for parameter in both.torch_network.parameters())
    assert sum(parameter.size for parameter in parameters) == theirs - 1008 == 23_849_952


def test_the_network_says_what_a_protocol_needs(both):
    network = both.network
    assert (network.name, network.prefix, network.channels, network.class_names) == ("inception", "", (1, 3), ())
    assert network.weights_sha256 == sum_of(both.file)
    assert "TensorFlow 1" in network.preprocessing and "299x299" in network.preprocessing
    assert "inception" in names_in("cgan_jax.evaluation.features")
    assert module_named("cgan_jax.evaluation.features", "inception", "network") is inception


@pytest.mark.parametrize("shape", [(32, 32), (1, 1), (7, 500), (299, 299), (600, 299), (598, 897)])
def test_the_resizer_is_torch_fidelitys(shape):
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("torch_fidelity.interpolate_compat_tensorflow")
    images = np.random.default_rng(0).integers(0, 256, (2, *shape, 3)).astype(np.float32)
    expected = theirs.interpolate_bilinear_2d_like_tensorflow1x(
        torch.from_numpy(images).permute(0, 3, 1, 2), size=(299, 299), align_corners=False
    )
    np.testing.assert_allclose(inception.resize(images), expected.permute(0, 2, 3, 1).numpy(), rtol=1e-5, atol=1e-5)


def test_the_resizer_by_hand():
    """Twice the size: every second pixel stays, the others lie halfway, and the last has nothing beyond it."""
    image = np.array([[0.0, 10.0], [100.0, 110.0]], np.float32)[None, :, :, None]
    doubled = [[0, 5, 10, 10], [50, 55, 60, 60], [100, 105, 110, 110], [100, 105, 110, 110]]
    np.testing.assert_array_equal(inception.resize(image, 4)[0, :, :, 0], doubled)
    np.testing.assert_array_equal(inception.resize(image, 1)[0, :, :, 0], [[0]])  # no mean of what is left out


@pytest.mark.parametrize(
    "images", [np.zeros((2, 8, 8, 3), np.float32), np.zeros((2, 8, 8, 4), np.uint8), np.zeros((8, 8, 3), np.uint8)]
)
def test_other_than_images_is_refused(images):
    with pytest.raises(ValueError, match=r"need images uint8 \[N, H, W, 1 or 3\], given"):
        inception.extract({}, images)


def refused(*arguments):
    with pytest.raises(UsageError) as caught:
        inception.load(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def places(tmp_path, monkeypatch):
    """The three places where weights are looked for, with nothing in them."""
    monkeypatch.setenv("CGAN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("CGAN_INCEPTION_WEIGHTS", raising=False)
    return SimpleNamespace(
        given=tmp_path / "given.pth", variable=tmp_path / "variable.pth", cached=tmp_path / "cache" / inception.FILE
    )


def test_without_weights_it_says_which_and_how_to_get_them(places, tmp_path):
    message = refused()
    assert str(places.cached) in message and "run: cgan prepare-data --inception" in message
    assert inception.URL in message and "CGAN_INCEPTION_WEIGHTS" in message
    assert not list(tmp_path.iterdir())


def test_a_given_path_stands_before_the_variable_and_that_before_the_cache(places, monkeypatch):
    monkeypatch.setenv("CGAN_INCEPTION_WEIGHTS", str(places.variable))
    places.cached.parent.mkdir()
    for file in (places.given, places.variable, places.cached):
        file.write_text(file.name)
    for arguments, file in (((str(places.given),), places.given), ((), places.variable)):
        assert refused(*arguments).startswith(f"{file} is not the published {inception.FILE}: its sha256 is ")
        file.unlink()
    assert refused(str(places.given)).startswith(f"{places.given}: no such file; it is to be {inception.FILE}, ")
    assert refused().startswith(f"CGAN_INCEPTION_WEIGHTS={places.variable}: no such file")
    monkeypatch.setenv("CGAN_INCEPTION_WEIGHTS", "")
    assert refused().startswith(f"{places.cached} is not the published")


def test_the_sum_is_checked_before_the_file_is_opened(places, monkeypatch):
    places.given.write_bytes(state_dict_file({}))
    monkeypatch.setattr(inception.torch_file, "read", lambda *_: pytest.fail("it was opened"))
    assert f"its sha256 is {sum_of(places.given)}, not {inception.SHA256}" in refused(str(places.given))


def test_the_published_sum_begins_as_the_published_name_ends():
    assert inception.FILE.endswith(f"-{inception.SHA256[:8]}.pth") and len(inception.SHA256) == 64
    reference = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    assert reference.URL_INCEPTION_V3 == inception.URL


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ({}, "does not hold the Inception network: Conv2d_1a_3x3.bn.running_mean is missing"),
        (
            {"Conv2d_1a_3x3.bn.running_mean": np.zeros(33)},
            "Conv2d_1a_3x3.bn.running_mean is float32 (33,), not float32 (32,)",
        ),
        ({"Conv2d_1a_3x3.bn.running_mean": np.zeros((32, 1))}, "is float32 (32, 1), not float32 (32,)"),
    ],
)
def test_another_network_is_refused(tensors, expected, places):
    tensors = {name: array.astype(np.float32) for name, array in tensors.items()}
    places.given.write_bytes(state_dict_file(tensors))
    message = refused(str(places.given), sum_of(places.given))
    assert message.startswith(str(places.given)) and expected in message
