"""The discriminator on fixed features against PyTorch's convolutions; the generator's sizes."""

import hashlib

import jax
import numpy as np
import pytest

from cgan_jax.networks import pretrained
from cgan_jax.networks.architectures.projected import Discriminator, Generator
from tests.residual_networks import random_variables, sizes

LATENTS = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
LABELS = np.array([0, 2, 2], np.int32)
IMAGES = np.random.default_rng(1).uniform(-1, 1, size=(3, 32, 32, 3)).astype(np.float32)


def test_the_fixed_weights_never_change():
    # A run that resumes must find the weights that it began with. Others need a file and a name of their own.
    digest = hashlib.sha256(pretrained.WEIGHTS.read_bytes()).hexdigest()
    assert digest.startswith("55e812e1fefaf488")


def test_the_feature_maps_are_pytorchs():
    torch = pytest.importorskip("torch", reason="the extra [reference] brings PyTorch, to compare with")
    x, expected = torch.tensor(IMAGES.transpose(0, 3, 1, 2)), []
    for number, (kernel, bias) in enumerate(pretrained.weights()):
        stride = 1 + (number in (1, 3, 5))
        x = torch.nn.functional.pad(x, (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1))  # SAME
        weight = torch.tensor(kernel.transpose(3, 2, 0, 1))
        x = torch.relu(torch.nn.functional.conv2d(x, weight, torch.tensor(bias), stride))
        expected += [x] if number in (0, 2, 4, 6) else []
    maps = jax.jit(pretrained.feature_maps)(pretrained.weights(), IMAGES)
    assert [m.shape[1:] for m in maps] == [(32, 32, 32), (16, 16, 64), (8, 8, 128), (4, 4, 192)]
    for ours, theirs in zip(maps, expected, strict=True):
        np.testing.assert_allclose(ours, theirs.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-5 * float(theirs.max()))


def make_discriminator(num_classes=3):
    return Discriminator(32, 3, num_classes, width=2, dtype="float32")


def test_a_patch_discriminator_convolves_down_to_4_pixels_and_projects_there():
    torch = pytest.importorskip("torch", reason="the extra [reference] brings PyTorch, to compare with")
    discriminator = make_discriminator()
    variables = random_variables(discriminator, IMAGES, LABELS)

    def normed(judge, layer, name="kernel"):
        weights = variables["params"][judge][layer][name]
        matrix = weights.reshape(-1, weights.shape[-1]).astype(np.float64)
        u = variables["spectral"][judge][layer]["SpectralNorm_0"]["u"]
        return torch.tensor(weights / np.linalg.norm(matrix @ (u / np.linalg.norm(u))))

    expected = []
    maps = [*pretrained.feature_maps(pretrained.weights(), IMAGES), IMAGES]
    for number, (x, halvings) in enumerate(zip(maps, (3, 2, 1, 0, 3), strict=True)):
        judge, x = f"PatchDiscriminator_{number}", torch.tensor(np.asarray(x, np.float64).transpose(0, 3, 1, 2))
        for i in range(halvings + 1):
            bias = torch.tensor(variables["params"][judge][f"Conv_{i}"]["bias"]).double()
            kernel = normed(judge, f"Conv_{i}").permute(3, 2, 0, 1).double()
            x = torch.nn.functional.conv2d(x, kernel, bias, 2 if i < halvings else 1, padding=1)
            x = torch.nn.functional.leaky_relu(x, 0.2)
        weight, bias = (
            normed(judge, f"Conv_{halvings + 1}")[0, 0, :, 0].double(),
            variables["params"][judge][f"Conv_{halvings + 1}"]["bias"],
        )
        direction = normed(judge, "Embed_0", "embedding")[LABELS].double()
        logits = torch.einsum("nchw,c->nhw", x, weight) + float(bias[0]) + torch.einsum("nchw,nc->nhw", x, direction)
        expected.append(logits.reshape(3, 16).numpy())
    output = jax.jit(discriminator.apply, static_argnums=3)(variables, IMAGES, LABELS, False)
    expected = np.concatenate(expected, axis=1)
    np.testing.assert_allclose(output.extras["patches"], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_allclose(output.logits, output.extras["patches"].mean(1), rtol=1e-5)


@pytest.mark.parametrize(("channels", "colours"), [(1, [0, 0, 0]), (4, [0, 1, 2])])
def test_grey_is_every_colour_and_transparency_none(channels, colours):
    images = np.random.default_rng(1).uniform(-1, 1, size=(2, 32, 32, channels)).astype(np.float32)
    actual, expected = (pretrained.feature_maps(pretrained.weights(), x) for x in (images, images[..., colours]))
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_no_optimizer_and_no_statistic_holds_the_fixed_network():
    params = sizes(make_discriminator(), IMAGES, LABELS)
    assert {name.partition("_")[0] for kind in params.values() for name in kind} == {"PatchDiscriminator"}


def test_half_of_the_channels_with_each_doubling():
    generator = Generator(64, 3, 10, latent_dim=6, width=2, dtype="float32")
    params = sizes(generator, LATENTS, LABELS)["params"]
    assert [params[f"GeneratorBlock_{i}"]["Conv_0"]["kernel"][-1] for i in range(4)] == [16, 8, 4, 2]
    assert params["Dense_0"]["kernel"] == (6, 16 * 16)
