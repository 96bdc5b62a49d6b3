"""StyleGAN2 against the same networks in PyTorch, in float64 and with a kernel per image; R1 by double backward."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgan_jax import parallel
from cgan_jax.data.batches import Batch
from cgan_jax.errors import UsageError
from cgan_jax.losses import regularizers
from cgan_jax.losses.terms import Pass
from cgan_jax.networks.architectures import stylegan2
from cgan_jax.networks.architectures.stylegan2 import Discriminator, Generator, group_deviations
from tests.replicas import FEW_WAYS, on_replicas

CLASSES, SIZE = 3, 8
SMALL = {"image_size": SIZE, "channels": 2, "width": 6, "dtype": "float32"}
LABELS = np.array([0, 2, 1, 2], np.int32)
IMAGES = np.random.default_rng(0).normal(size=(4, SIZE, SIZE, 2)).astype(np.float32)
LATENTS = np.random.default_rng(1).normal(size=(4, 5)).astype(np.float32)
KEY = jax.random.key(7, impl=parallel.PRNG)
MESSAGE = "what old checkpoints mean has changed"


def make_generator(num_classes=CLASSES, **numbers):
    fields = {"latent_dim": 5, "style_dim": 4, "mapping_layers": 2, "style_mixing": 0.0}
    return Generator(**{**SMALL, "num_classes": num_classes, **fields, **numbers})


def make_discriminator(num_classes=CLASSES, **numbers):
    fields = {"group": 2, "head": "mapped_projection", "mapping_layers": 2}
    return Discriminator(**{**SMALL, "num_classes": num_classes, **fields, **numbers})


def random_variables(network, x):
    """Variables of about the initial size, of which no parameter is 0: that would hide what it multiplies."""
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), x, LABELS, False))
    rng = np.random.default_rng(3)

    def drawn(path, leaf):
        size = (0.3 if leaf.ndim < 2 else 1.0) * (100 if "layer" in jax.tree_util.keystr(path) else 1)
        return (size * rng.normal(size=leaf.shape)).astype(np.float32)

    params = jax.tree_util.tree_map_with_path(drawn, shapes["params"])
    others = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), {**shapes, "params": {}})
    return {**others, "params": params}


@functools.partial(jax.jit, static_argnames=("network", "train", "mutable"))
def apply(network, variables, x, labels, train=True, key=None, mutable=()):
    rngs = {} if key is None else {"noise": key}
    out, moved = network.apply(
        variables, x, labels, train, rngs=rngs, mutable=list(mutable), capture_intermediates=True
    )
    return out, moved


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="the extra [reference] brings PyTorch, to compare with")


class Reference:
    """The networks on float64 tensors [N, C, H, W], as the papers write them; parameters by our names."""

    def __init__(self, torch, params):
        self.torch, self.f = torch, torch.nn.functional
        self.params = jax.tree.map(lambda x: torch.tensor(x, dtype=torch.float64, requires_grad=True), params)

    def act(self, x):
        return self.f.leaky_relu(x, 0.2) * 2**0.5

    def unit(self, x):
        return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()

    def dense(self, its, x, rate=1.0):
        return x @ its["kernel"] * rate / x.shape[1] ** 0.5 + its["bias"] * rate

    def embedding(self, its, labels):
        one_hot = self.f.one_hot(labels, CLASSES).double()
        return self.unit(self.dense(its["linear"], one_hot))

    def mapped(self, its, x):
        for layer in range(2):
            x = self.act(self.dense(its[f"layer{layer}"], x, rate=0.01))
        return x

    def with_zeros(self, x):
        """A pixel of 0 after each pixel."""
        n, channels, height, width = x.shape
        spread = self.torch.zeros(n, channels, height, 2, width, 2, dtype=x.dtype)
        spread[:, :, :, 0, :, 0] = x
        return spread.reshape(n, channels, 2 * height, 2 * width)

    def blur(self, x, padding, gain):
        taps = self.torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype)
        kernel = (gain * self.torch.outer(taps, taps) / 64).expand(x.shape[1], 1, 4, 4)
        return self.f.conv2d(self.f.pad(x, padding), kernel, groups=x.shape[1])

    def modulated(self, its, x, style, demodulate, doubles=False):
        """Their eq. 1 and 3: a kernel for each image, in groups of one convolution."""
        n, channels = x.shape[:2]
        kernel = its["kernel"].reshape(-1, channels, its["kernel"].shape[-1])
        size = int(kernel.shape[0] ** 0.5)
        kernel = kernel.permute(2, 1, 0).reshape(-1, channels, size, size)
        kernel = kernel * self.dense(its["style"], style)[:, None, :, None, None]
        if demodulate:
            kernel = kernel / (kernel.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
        else:
            kernel = kernel / channels**0.5
        if doubles:  # 2H + 1 pixels, as of a transposed convolution
            x = self.f.pad(self.with_zeros(x)[:, :, :-1, :-1], (2, 2, 2, 2))
        x = x.reshape(1, n * channels, *x.shape[2:])
        y = self.f.conv2d(x, kernel.reshape(-1, *kernel.shape[2:]), groups=n, padding=0 if doubles else size // 2)
        y = y.reshape(n, -1, *y.shape[2:])
        return self.blur(y, (1, 1, 1, 1), 4) if doubles else y

    def styled(self, its, x, style, doubles=False):
        y = self.modulated(its, x, style, True, doubles)
        noise = np.asarray(stylegan2.noise(None, y.shape[2], doubles))
        y = y + its["noise"] * self.torch.tensor(noise).double().permute(0, 3, 1, 2)
        return self.act(y + its["bias"][:, None, None])

    def generate(self, latents, labels):
        mapping = self.params["mapping"]
        z = self.torch.cat([self.unit(latents), self.embedding(mapping["embedding"], labels)], 1)
        style, image = self.mapped(mapping, z), None
        x = self.params["constant"].permute(2, 0, 1).expand(len(latents), -1, -1, -1)
        for side in (4, 8):
            its = self.params[f"block{side}"]
            if side > 4:
                x = self.styled(its["doubling"], x, style, doubles=True)
            x = self.styled(its["conv"], x, style)
            colours = self.modulated(its["colours"], x, style, False) + its["colours"]["bias"][:, None, None]
            # Doubled colours: their upsampling has 2 pixels of 0 before and 1 after, on zeros after each pixel.
            image = colours if image is None else self.blur(self.with_zeros(image), (2, 1, 2, 1), 4) + colours
        return image

    def conv(self, its, x, halves=False):
        kernel = its["kernel"].permute(3, 2, 0, 1)
        kernel = kernel / kernel[0].numel() ** 0.5
        if halves:
            y = self.f.conv2d(self.blur(x, (2, 2, 2, 2), 1), kernel, stride=2)
        else:
            y = self.f.conv2d(x, kernel, padding=kernel.shape[2] // 2)
        return self.act(y + its["bias"][:, None, None])

    def discriminate(self, images, labels):
        params = self.params
        x = self.conv(params["colours"], images)
        x = self.conv(params["block8"]["halving"], self.conv(params["block8"]["conv"], x), halves=True)
        pairs = x.reshape(2, 2, *x.shape[1:])
        spread = ((pairs - pairs.mean(1, keepdim=True)).square().mean(1) + 1e-8).sqrt().mean((1, 2, 3))
        channel = spread.repeat_interleave(2)[:, None, None, None].expand(-1, 1, 4, 4)
        x = self.conv(params["last"], self.torch.cat([x, channel], 1))
        features = self.act(self.dense(params["features"], x.permute(0, 2, 3, 1).flatten(1)))
        head = params["MappedProjection_0"]
        direction = self.mapped(head, self.embedding(head["embedding"], labels))
        linear = features / 6**0.5 @ head["linear"]["kernel"] + head["linear"]["bias"]
        return (linear * direction).sum(1) / 6**0.5

    def gradients(self, loss):
        """Of the loss, in the tree of the parameters."""
        leaves, tree = jax.tree.flatten(self.params, is_leaf=lambda x: isinstance(x, self.torch.Tensor))
        return jax.tree.unflatten(tree, [g.numpy() for g in self.torch.autograd.grad(loss, leaves)])


def assert_near(ours, theirs, relative=1e-5):
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True):
        assert np.abs(a - b).max() <= relative * np.abs(b).max(), jax.tree_util.keystr(path)


def channels_first(torch, images):
    return torch.tensor(images.transpose(0, 3, 1, 2), dtype=torch.float64, requires_grad=True)


def test_the_generator_is_its_statement_in_pytorch(torch):
    generator = make_generator()
    variables = random_variables(generator, LATENTS)

    def loss(params):
        given = {**variables, "params": params}
        images = generator.apply(given, LATENTS, LABELS, True)
        return jnp.sum(jnp.sin(images)), images

    reference = Reference(torch, variables["params"])
    latents, labels = torch.tensor(LATENTS).double(), torch.tensor(LABELS).long()
    expected = reference.generate(latents, labels)
    theirs = reference.gradients(expected.sin().sum())
    ours, images = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    assert_near(images, expected.detach().numpy().transpose(0, 2, 3, 1))
    assert_near(ours, theirs, 2e-5)


@pytest.fixture(scope="module")
def judged():
    """The small discriminator's parameters, its logits of IMAGES, R1, and the gradients of both together."""
    discriminator = make_discriminator()
    variables = random_variables(discriminator, IMAGES)

    def penalty(params):
        def discriminate(images, labels):
            return discriminator.apply({**variables, "params": params}, images, labels, True)

        batches = {"real": Batch(jnp.asarray(IMAGES), jnp.asarray(LABELS))}
        r1, _ = regularizers.r1().value(Pass(batches, {}, discriminate, None, (), KEY, jnp.int32(0)))
        logits = discriminate(IMAGES, LABELS).logits
        return jnp.mean(r1) + jnp.mean(jnp.sin(logits)), (logits, r1)

    gradients, seen = jax.jit(jax.grad(penalty, has_aux=True))(variables["params"])
    return variables["params"], gradients, seen


def test_the_discriminator_and_r1_are_their_statement_in_pytorch(torch, judged):
    params, gradients, (logits, r1) = judged
    reference, images = Reference(torch, params), channels_first(torch, IMAGES)
    expected = reference.discriminate(images, torch.tensor(LABELS).long())
    assert logits.dtype == jnp.float32
    assert_near(logits, expected.detach().numpy())
    (slopes,) = torch.autograd.grad(expected.sum(), images, create_graph=True)
    penalty = slopes.square().sum((1, 2, 3)) / 2
    assert_near(r1, penalty.detach().numpy(), 2e-5)
    assert_near(gradients, reference.gradients(penalty.mean() + expected.sin().mean()), 5e-5)


def deviations_of(x, group):
    groups = x.reshape(-1, group, *x.shape[1:])
    return jnp.repeat(jnp.mean(jnp.sqrt(jnp.var(groups, axis=1) + 1e-8), axis=(1, 2, 3)), group)


@pytest.mark.parametrize("way", FEW_WAYS, ids=str)
@pytest.mark.parametrize(("asked", "group"), [(2, 2), (12, 4), (32, 16)])
def test_a_deviation_and_its_slopes_are_of_groups_of_the_global_batch(way, asked, group):
    x = np.random.default_rng(0).normal(size=(16, 2, 2, 3)).astype(np.float32)
    weights = np.arange(16, dtype=np.float32)

    def on_one(x, weights):
        place = parallel.sample_indices(16 // parallel.count())

        def weighed(own):
            deviations = group_deviations(own, asked)
            return jnp.sum(deviations * weights[place]), deviations

        slopes, deviations = jax.grad(weighed, has_aux=True)(x[place])
        return deviations, slopes

    deviations, slopes = on_replicas(way, on_one, x, weights)
    np.testing.assert_allclose(np.ravel(deviations), deviations_of(x, group), rtol=1e-5)
    expected = jax.grad(lambda x: jnp.sum(deviations_of(x, group) * weights))(x)
    np.testing.assert_allclose(slopes.reshape(x.shape), expected, rtol=1e-4, atol=1e-5)


def test_a_group_across_parts_of_a_batch_is_refused():
    with parallel.part(jnp.int32(0), 2):
        assert group_deviations(jnp.asarray(IMAGES), 4).shape == (4,)
        with pytest.raises(UsageError, match="accumulate must be 1 with groups of 8 images"):
            group_deviations(jnp.asarray(IMAGES), 8)


def test_outside_of_training_an_image_is_judged_alone_by_the_mean_deviation_of_training():
    discriminator = make_discriminator(group=4)
    variables = random_variables(discriminator, IMAGES)
    trained, moved = apply(discriminator, variables, IMAGES, LABELS, mutable=("batch_stats",))
    (deviation,) = jax.tree.leaves(moved["batch_stats"])  # 0.995 * 0 + 0.005 * that of the one group
    given = {**variables, "batch_stats": {"deviation": {"deviation": deviation / 0.005}}}
    for n in (4, 1):
        alone, _ = apply(discriminator, given, IMAGES[:n], LABELS[:n], False)
        np.testing.assert_allclose(alone.logits, trained.logits[:n], rtol=1e-4)
    assert np.any(trained.logits != apply(discriminator, variables, IMAGES, LABELS, False)[0].logits)


@pytest.mark.parametrize("classes", [CLASSES, 0])
def test_truncation_pulls_styles_toward_the_mean_of_their_class_or_of_all(classes):
    generator = make_generator(classes)
    variables = random_variables(generator, LATENTS)
    for turn in range(3):
        _, moved = apply(generator, variables, LATENTS, LABELS, mutable=("styles",))
        variables = {**variables, "styles": moved["styles"]}
        share = np.bincount(LABELS if classes else np.zeros(4, int), minlength=max(1, classes)) / 4
        # A hundred and thirty-eight batches halve what was before: 0.995, as published.
        np.testing.assert_allclose(moved["styles"]["centre"]["shares"], (1 - 0.995 ** (turn + 1)) * share, rtol=1e-4)

    def kept(name, share):
        given = {**variables, "truncation": {"centre": {"share": np.float32(share)}}}
        _, seen = apply(generator, given, LATENTS, LABELS, False, mutable=("intermediates",))
        return np.asarray(seen["intermediates"][name]["__call__"][0])

    styles = kept("mapping", 1.0)
    groups = LABELS if classes else np.zeros(4, int)
    means = np.stack([styles[groups == group].mean(axis=0) for group in groups])
    np.testing.assert_allclose(kept("centre", 0.3), means + 0.3 * (styles - means), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(kept("centre", 1.0), styles)
    np.testing.assert_array_equal(kept("centre", np.inf), styles)


def test_noise_is_the_images_own_in_training_and_one_for_all_outside():
    generator = make_generator()
    variables = random_variables(generator, LATENTS)
    same, one = np.repeat(LATENTS[:1], 4, axis=0), np.zeros(4, np.int32)
    drawn, _ = apply(generator, variables, same, one, key=KEY)
    assert len(np.unique(np.asarray(drawn), axis=0)) == 4
    shorter, _ = apply(generator, variables, same[:2], one[:2], key=KEY)
    np.testing.assert_allclose(shorter, drawn[:2], rtol=1e-4, atol=1e-5)
    drawn, _ = apply(generator, variables, same, one)
    np.testing.assert_allclose(drawn, np.repeat(drawn[:1], 4, axis=0), rtol=1e-5, atol=1e-5)


def test_mixing_changes_the_last_layers_styles_of_its_share_of_images():
    latents, labels = np.repeat(LATENTS[:1], 64, axis=0), np.zeros(64, np.int32)
    variables = random_variables(make_generator(), LATENTS)
    layers = [("block4", "conv"), ("block4", "colours"), ("block8", "conv"), ("block8", "colours")]

    def styles(share):
        generator = make_generator(style_mixing=share)
        _, seen = apply(generator, variables, latents, labels, key=KEY, mutable=("intermediates",))
        blocks = [seen["intermediates"][block][layer]["style"]["__call__"][0] for block, layer in layers]
        return np.stack(blocks)  # [layers, N, width]: of the styles, the scales

    off, half, always = (styles(share) for share in (0.0, 0.5, 1.0))
    mixed = [np.any(scales != off, axis=2) for scales in (half, always)]
    assert not np.any(mixed[0][0]) and 16 < np.sum(mixed[0][-1]) < 48
    assert not np.any(mixed[1][0]) and np.all(mixed[1][-1])
    assert np.all(np.diff(mixed[1].astype(int), axis=0) >= 0) and len(np.unique(mixed[1], axis=1)[0]) > 1


def count(network, *inputs) -> int:
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), *inputs, False))["params"]
    return sum(x.size for x in jax.tree.leaves(shapes))


def test_the_networks_have_as_many_parameters_as_published():
    numbers = {"image_size": 32, "channels": 3, "num_classes": 10, "width": 512, "dtype": "bfloat16"}
    generator = Generator(**numbers, latent_dim=512, style_dim=512, mapping_layers=2, style_mixing=0.0)
    labels, dense, conv = jnp.zeros(1, jnp.int32), 513 * 512, 9 * 512 * 512 + 512
    # An embedding, 1024 to 512 to 512; 4x4; 7 convolutions with style and noise; 4 times colours with style
    expected = 11 * 512 + 1025 * 512 + dense + 16 * 512 + 7 * (conv + dense + 1) + 4 * (3 * 512 + 3 + dense)
    assert count(generator, jnp.zeros((1, 512)), labels) == expected == 20_215_315, MESSAGE  # published: 20.2 million
    discriminator = Discriminator(**numbers, group=32, head="mapped_projection")
    # Colours; 6 convolutions; one of 513; features; a dense layer and an embedding with 8 layers
    expected = 4 * 512 + 6 * conv + (9 * 513 * 512 + 512) + (16 * 512 + 1) * 512 + dense + 11 * 512 + 8 * dense
    assert count(discriminator, jnp.zeros((1, 32, 32, 3)), labels) == expected == 23_089_664, MESSAGE  # 23.1 million


def test_weights_start_as_published():
    generator = make_generator(width=64, style_dim=64)
    params = jax.jit(lambda: generator.init(jax.random.key(0), LATENTS, LABELS, False))()["params"]
    conv = params["block8"]["conv"]
    assert np.std(conv["kernel"]) == pytest.approx(1, rel=0.05)
    assert np.std(params["mapping"]["layer1"]["kernel"]) == pytest.approx(100, rel=0.05)
    assert np.all(conv["style"]["bias"] == 1) and conv["noise"] == 0 and not np.any(conv["bias"])


@pytest.mark.parametrize("head", ["projection", "class_proxies", "auxiliary_classifier"])
def test_other_heads_read_features_of_mean_square_1(head):
    """So that their normal weights give outputs of about 1, and Adam moves them as it moves the others."""
    discriminator = make_discriminator(head=head, width=64)
    images = np.random.default_rng(0).normal(size=(16, SIZE, SIZE, 2)).astype(np.float32)
    labels = np.zeros(16, np.int32)
    output, _ = jax.jit(lambda: discriminator.init_with_output(jax.random.key(1), images, labels, True))()
    assert 0.2 < np.std(output.logits) + np.abs(np.mean(output.logits)) < 5


def test_without_classes_labels_are_not_read():
    discriminator, generator = make_discriminator(0), make_generator(0)
    for network, x in ((discriminator, IMAGES), (generator, LATENTS)):
        variables = random_variables(network, x)
        first, other = (apply(network, variables, x, labels)[0] for labels in (LABELS, LABELS * 0))
        np.testing.assert_array_equal(jax.tree.leaves(first)[0], jax.tree.leaves(other)[0])


def test_in_bfloat16_images_logits_and_parameters_are_float32_and_nearly_the_same():
    for make, inputs in ((make_generator, LATENTS), (make_discriminator, IMAGES)):
        variables = random_variables(make(), inputs)
        results = (apply(make(dtype=dtype), variables, inputs, LABELS)[0] for dtype in ("float32", "bfloat16"))
        full, half = (jax.tree.leaves(result)[0] for result in results)
        assert half.dtype == jnp.float32
        assert 0 < np.abs(full - half).max() < 0.05 * np.abs(full).max()


@pytest.mark.parametrize(
    ("make", "numbers", "line"),
    [
        (make_generator, {"image_size": 12}, "stylegan2 draws images of 8 times a power of two pixels, given"),
        (make_generator, {"image_size": 4}, "stylegan2 draws images of 8 times a power of two pixels, given"),
        (make_discriminator, {"head": "proj"}, "unknown head 'proj'; there are: mapped_projection, projection, "),
    ],
)
def test_what_it_cannot_be_is_one_line(make, numbers, line):
    with pytest.raises(UsageError) as caught:
        x = LATENTS if make is make_generator else IMAGES
        jax.eval_shape(lambda: make(**numbers).init(jax.random.key(0), x, LABELS, False))
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)
