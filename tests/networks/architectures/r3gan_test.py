"""R3GAN against the same networks written in PyTorch, R1 and R2 by its double backward, and its sizes by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgan_jax.data.batches import Batch
from cgan_jax.errors import UsageError
from cgan_jax.losses import regularizers
from cgan_jax.losses.terms import Pass
from cgan_jax.networks.architectures.r3gan import Discriminator, Generator, downsample, upsample

CLASSES, SIZE, WIDTH, BLOCKS = 3, 8, 16, 2
SMALL = {"image_size": SIZE, "channels": 2, "width": WIDTH, "blocks": BLOCKS, "dtype": "float32"}
LABELS = np.array([0, 2, 1, 2], np.int32)
IMAGES = np.random.default_rng(0).normal(size=(4, SIZE, SIZE, 2)).astype(np.float32)
LATENTS = np.random.default_rng(1).normal(size=(4, 5)).astype(np.float32)
MESSAGE = "what old checkpoints mean has changed"


def make_generator(num_classes=CLASSES, **numbers):
    return Generator(**{**SMALL, "num_classes": num_classes, "latent_dim": 5, "embedding_dim": 3, **numbers})


def make_discriminator(num_classes=CLASSES, **numbers):
    return Discriminator(**{**SMALL, "num_classes": num_classes, **numbers})


def random_params(network, *inputs):
    """Random parameters: those that start at 0 would hide what they multiply."""
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), *inputs, False))["params"]
    leaves, tree = jax.tree.flatten(shapes)
    rng = np.random.default_rng(3)
    return jax.tree.unflatten(tree, [(rng.normal(size=x.shape) * 0.2).astype(np.float32) for x in leaves])


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="the extra [reference] brings PyTorch, to compare with")


class Reference:
    """The networks on NCHW tensors, from PyTorch's convolutions; parameters by our names."""

    def __init__(self, torch, params):
        self.torch, self.f = torch, torch.nn.functional
        self.params = jax.tree.map(lambda x: torch.tensor(x, requires_grad=True), params)

    def linear(self, x, name, inside=None):
        kernel = (inside or self.params)[name]["kernel"]
        return self.f.conv2d(x, kernel.T[:, :, None, None]) if x.ndim == 4 else x @ kernel

    def block(self, x, name):
        its = self.params[name]
        y = self.f.leaky_relu(self.linear(x, "widen", its) + its["bias1"].permute(0, 3, 1, 2), 0.2)
        kernel = its["grouped"].permute(3, 2, 0, 1)
        y = self.f.conv2d(y, kernel, padding=1, groups=kernel.shape[0] // 16)
        return x + self.linear(self.f.leaky_relu(y + its["bias2"].permute(0, 3, 1, 2), 0.2), "narrow", its)

    def filter(self, channels, scale):
        taps = self.torch.tensor([1.0, 2.0, 1.0])
        return (scale * self.torch.outer(taps, taps) / 16).expand(channels, 1, 3, 3)

    def generate(self, latents, labels):
        one_hot = self.f.one_hot(labels, CLASSES).float()
        weights = self.linear(self.torch.cat([latents, self.linear(one_hot, "embedding")], 1), "weights")
        x = weights[:, :, None, None] * self.params["basis"].permute(2, 0, 1)
        for side in (4, 8):
            if side > 4:
                kernel = self.filter(WIDTH, 4.0)
                x = self.f.conv_transpose2d(x, kernel, stride=2, padding=1, output_padding=1, groups=WIDTH)
            for block in range(BLOCKS):
                x = self.block(x, f"block{side}_{block}")
        return self.linear(x, "colours")

    def discriminate(self, images, labels):
        x = self.linear(images, "colours")
        for side in (8, 4):
            for block in range(BLOCKS):
                x = self.block(x, f"block{side}_{block}")
            if side > 4:
                x = self.f.conv2d(x, self.filter(WIDTH, 1.0), stride=2, padding=1, groups=WIDTH)
        x = self.f.conv2d(x, self.params["basis"].permute(2, 0, 1)[:, None], groups=WIDTH)[:, :, 0, 0]
        direction = self.linear(self.f.one_hot(labels, CLASSES).float(), "embedding")
        return (self.linear(x, "weights") * direction).sum(1)

    def gradients(self, loss):
        """Of the loss, in the tree of the parameters."""
        leaves, tree = jax.tree.flatten(self.params, is_leaf=lambda x: isinstance(x, self.torch.Tensor))
        found = self.torch.autograd.grad(loss, leaves)
        return jax.tree.unflatten(tree, [g.numpy() for g in found])


def assert_near(ours, theirs, relative=1e-5):
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True):
        assert np.abs(a - b).max() <= relative * np.abs(b).max(), jax.tree_util.keystr(path)


def channels_first(torch, images):
    return torch.tensor(images.transpose(0, 3, 1, 2), requires_grad=True)


def test_the_generator_is_its_statement_in_pytorch(torch):
    generator = make_generator()
    params = random_params(generator, LATENTS, LABELS)
    reference = Reference(torch, params)
    expected = reference.generate(torch.tensor(LATENTS), torch.tensor(LABELS).long())
    theirs = reference.gradients(expected.sin().sum())

    def loss(params):
        images = generator.apply({"params": params}, LATENTS, LABELS, True)
        return jnp.sum(jnp.sin(images)), images

    ours, images = jax.jit(jax.grad(loss, has_aux=True))(params)
    assert_near(images, expected.detach().numpy().transpose(0, 2, 3, 1))
    assert_near(ours, theirs)


@pytest.fixture(scope="module")
def judged():
    """The small discriminator's parameters, its logits of IMAGES, and the gradients of R1, here also R2's formula."""
    discriminator = make_discriminator()
    params = random_params(discriminator, IMAGES, LABELS)

    def penalty(params):
        def discriminate(images, labels):
            return discriminator.apply({"params": params}, images, labels, True)

        batches = {name: Batch(jnp.asarray(IMAGES), jnp.asarray(LABELS)) for name in ("real", "fake")}
        passed = Pass(batches, {}, discriminate, None, (), jax.random.key(0), jnp.int32(0))
        r1, r2 = (regularizers.DISCRIMINATOR[name]().value(passed)[0] for name in ("r1", "r2"))
        return jnp.mean(r1) + 2 * jnp.mean(r2), (discriminate(IMAGES, LABELS).logits, r1, r2)

    gradients, seen = jax.jit(jax.grad(penalty, has_aux=True))(params)
    return params, gradients, seen


def test_the_discriminator_is_its_statement_in_pytorch(torch, judged):
    params, _, (logits, _, _) = judged
    expected = Reference(torch, params).discriminate(channels_first(torch, IMAGES), torch.tensor(LABELS).long())
    assert logits.dtype == jnp.float32
    assert_near(logits, expected.detach().numpy())


def test_r1_and_r2_and_their_slopes_are_those_of_pytorchs_double_backward(torch, judged):
    params, gradients, (_, r1, r2) = judged
    reference, images = Reference(torch, params), channels_first(torch, IMAGES)
    logits = reference.discriminate(images, torch.tensor(LABELS).long())
    (slopes,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    penalty = slopes.square().sum((1, 2, 3)) / 2
    for ours in (r1, r2):
        assert_near(ours, penalty.detach().numpy())
    assert_near(gradients, reference.gradients(3 * penalty.mean()))


def test_halving_is_a_filter_of_1_2_1_and_doubling_four_times_its_adjoint():
    x = np.random.default_rng(0).normal(size=(2, 6, 8, 3)).astype(np.float32)
    taps = np.outer([1, 2, 1], [1, 2, 1]) / 16
    padded = np.pad(x.astype(np.float64), [(0, 0), (1, 1), (1, 1), (0, 0)])
    expected = np.zeros((2, 3, 4, 3))
    for i in range(3):
        for j in range(4):
            window = padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            expected[:, i, j] = np.einsum("nabc,ab->nc", window, taps)
    np.testing.assert_allclose(downsample(x), expected, atol=1e-6)
    y = np.random.default_rng(1).normal(size=(2, 3, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(np.sum(upsample(y) * x), 4 * np.sum(y * expected), rtol=1e-4)


def count(network, *inputs) -> int:
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), *inputs, False))["params"]
    return sum(x.size for x in jax.tree.leaves(shapes))


@pytest.mark.parametrize("width", [768, 256])
def test_the_networks_have_as_many_parameters_as_by_hand(width):
    numbers = {"image_size": 32, "channels": 3, "num_classes": 10, "width": width, "blocks": 2, "dtype": "bfloat16"}
    block = 2 * 2 * width * width + 9 * 16 * 2 * width + 2 * 2 * width
    shared = 8 * block + 3 * width + 16 * width
    generator = Generator(**numbers, latent_dim=64, embedding_dim=64)
    expected = shared + 10 * 64 + 128 * width
    assert count(generator, jnp.zeros((1, 64)), jnp.zeros(1, jnp.int32)) == expected, MESSAGE
    expected = shared + width * width + 10 * width
    assert count(Discriminator(**numbers), jnp.zeros((1, 32, 32, 3)), jnp.zeros(1, jnp.int32)) == expected, MESSAGE


def test_weights_start_as_published():
    discriminator = make_discriminator(width=64)
    params = jax.jit(lambda: discriminator.init(jax.random.key(0), IMAGES, LABELS, False))()["params"]
    gain = np.sqrt(2 / 1.04) * 4**-0.25  # 4 blocks in all
    block = params["block8_0"]
    assert np.std(block["widen"]["kernel"]) == pytest.approx(gain / 8, rel=0.05)
    assert np.std(block["grouped"]) == pytest.approx(gain / 12, rel=0.05)
    assert np.std(params["weights"]["kernel"]) == pytest.approx(1 / 8, rel=0.05)
    assert np.std(params["embedding"]["kernel"]) == pytest.approx(1 / 8 / np.sqrt(CLASSES), rel=0.2)
    assert not np.any(block["narrow"]["kernel"]) and not np.any(block["bias1"])


def test_without_classes_labels_are_not_read_and_logits_are_vectors():
    discriminator, generator = make_discriminator(0), make_generator(0)
    params = random_params(discriminator, IMAGES, LABELS)
    logits = discriminator.apply({"params": params}, IMAGES, LABELS, True).logits
    assert logits.shape == (4,)
    np.testing.assert_array_equal(logits, discriminator.apply({"params": params}, IMAGES, LABELS * 0, True).logits)
    params = random_params(generator, LATENTS, LABELS)
    assert "embedding" not in params
    assert generator.apply({"params": params}, LATENTS, LABELS, True).shape == IMAGES.shape


def test_in_bfloat16_images_logits_and_parameters_are_float32_and_nearly_the_same():
    networks = [(make_generator, LATENTS), (make_discriminator, IMAGES)]
    for make, inputs in networks:
        params = random_params(make(), inputs, LABELS)

        def applied(dtype, make=make, inputs=inputs, params=params):
            result = make(dtype=dtype).apply({"params": params}, inputs, LABELS, True)
            return result if make is make_generator else result.logits

        full, half = applied("float32"), applied("bfloat16")
        assert half.dtype == jnp.float32
        assert 0 < np.abs(full - half).max() < 0.05 * np.abs(full).max()


@pytest.mark.parametrize(
    ("numbers", "line"),
    [
        ({"image_size": 12}, "r3gan draws images of 4 times a power of two pixels, given image_size 12"),
        ({"image_size": 2}, "r3gan draws images of 4 times a power of two pixels, given image_size 2"),
        ({"width": 12}, "the width of r3gan must be a multiple of 8, given 12"),
    ],
)
def test_sizes_that_it_cannot_have_are_one_line(numbers, line):
    with pytest.raises(UsageError) as caught:
        jax.eval_shape(lambda: make_generator(**numbers).init(jax.random.key(0), LATENTS, LABELS, False))
    assert str(caught.value) == line
