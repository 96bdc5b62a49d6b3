"""Networks of StudioGAN: the images and logits of a file are those of PyTorch."""

import functools

import jax
import numpy as np
import pytest

from cgan_jax.build import ImageSpec, network
from cgan_jax.errors import UsageError
from cgan_jax.networks import studiogan

torch = pytest.importorskip("torch", reason="the extra [reference] brings PyTorch, to compare with")
theirs = pytest.importorskip("tests.studiogan_networks")

CLASSES, LATENT = 3, 12
Y = torch.tensor([0, 2, 1, 2])


@functools.cache
def make(kind, player):
    section = {"latent_dim": LATENT, "width": 2} if player == "generator" else {"width": 4, "head": "projection"}
    section |= {"embedding_dim": 5} if (kind, player) == ("biggan", "generator") else {}
    recipe = {"architecture": kind, "dataset": {"conditional": True}, player: section | studiogan.FIELDS[player]}
    ours = network(recipe, player, ImageSpec(32, 3, CLASSES))
    shape = (1, LATENT) if player == "generator" else (1, 32, 32, 3)
    return ours, jax.eval_shape(
        lambda: ours.init(jax.random.key(0), np.zeros(shape, np.float32), np.zeros(1, np.int32), False)
    )


def arrays(network):
    return {name: tensor.detach().numpy() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize(("kind", "older"), [("biggan", False), ("sngan", False), ("sngan", True)])
def test_the_images_are_those_of_pytorch(kind, older):
    z = torch.tensor(np.random.default_rng(0).normal(size=(4, LATENT)), dtype=torch.float32)
    given = theirs.trained(theirs.Generator(kind, LATENT, 2, CLASSES, 5, older), z, Y)
    expected = given(z, Y).detach().permute(0, 2, 3, 1).numpy()
    ours, shapes = make(kind, "generator")
    variables = studiogan.converted(arrays(given), shapes, "generator", "G.pth")
    images = jax.jit(ours.apply, static_argnums=3)(variables, z.numpy(), Y.numpy().astype(np.int32), False)
    assert 0.1 < np.abs(expected).mean() < 0.9 and np.ptp(expected, axis=0).mean() > 0.05, "neither flat nor saturated"
    np.testing.assert_allclose(images, expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["biggan", "sngan"])
def test_the_logits_are_those_of_pytorch(kind):
    x = torch.tensor(np.random.default_rng(0).uniform(-1, 1, size=(4, 3, 32, 32)), dtype=torch.float32)
    given = theirs.trained(theirs.Discriminator(kind, 4, CLASSES), x, Y)
    expected = given(x, Y).detach().numpy()
    ours, shapes = make(kind, "discriminator")
    variables = studiogan.converted(arrays(given), shapes, "discriminator", "D.pth")
    inputs = (x.permute(0, 2, 3, 1).numpy(), Y.numpy().astype(np.int32))
    actual = jax.jit(ours.apply, static_argnums=3)(variables, *inputs, False).logits
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    ours = ours.clone(rectified_shortcuts=False)
    without = jax.jit(ours.apply, static_argnums=3)(variables, *inputs, False).logits
    assert np.abs(without - expected).max() > 0.01 * np.abs(expected).max(), "the shortcuts matter"


WRONG = {
    "linear0.weight_orig is missing; it holds linear0.bias": lambda t: t.pop("linear0.weight_orig"),
    "bn4.running_var is missing": lambda t: t.pop("bn4.running_var"),
    "it also holds info.weight, which this has not": lambda t: t.update({"info.weight": np.ones(1)}),
    "conv2d5.bias is float64 [4], and must be float32 [3]": lambda t: t.update({"conv2d5.bias": np.ones(4)}),
    "conv2d5.bias is int64 [3], and must be float32 [3]": lambda t: t.update({"conv2d5.bias": np.arange(3)}),
    "conv2d5.bias has values that are not finite": lambda t: t.update({"conv2d5.bias": np.full(3, np.nan)}),
    "shared.weight is float64 [4, 5], and must be float32 [3, 5]": lambda t: t.update(
        {"shared.weight": np.ones((4, 5))}
    ),
    "bn4.bias is missing; it holds nothing": lambda t: t.clear(),
    "bn4.bias is missing; it holds blocks.0.0.conv2d0.bias, ": lambda t: (
        t.clear() or t.update(arrays(theirs.Discriminator("biggan", 4, CLASSES)))
    ),
    "conv2d5.weight_orig is missing": lambda t: (
        t.clear() or t.update(arrays(theirs.Generator("sngan", LATENT, 2, CLASSES)))
    ),
}


@pytest.mark.parametrize("told", WRONG)
def test_tensors_that_are_not_those_of_the_network(told):
    tensors = arrays(theirs.Generator("biggan", LATENT, 2, CLASSES, 5))
    WRONG[told](tensors)
    with pytest.raises(UsageError) as caught:
        studiogan.converted(tensors, make("biggan", "generator")[1], "generator", "G.pth")
    message = str(caught.value)
    assert message.startswith("G.pth is not the recipe's generator: ") and told in message and "\n" not in message
