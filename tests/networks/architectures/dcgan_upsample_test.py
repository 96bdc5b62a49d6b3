"""dcgan_upsample against the same network written out in NumPy; its statistics through training steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgan_jax import build, train_state, train_step
from cgan_jax.data.batches import on_host
from cgan_jax.errors import UsageError
from cgan_jax.networks.architectures.dcgan_upsample import Discriminator, Generator
from cgan_jax.parallel import distribute, make_mesh, replicate
from cgan_jax.sampling.sampling import make_sampler
from tests import by_hand, half_precision

LATENTS = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
LABELS = np.array([0, 2, 2], np.int32)
IMAGES = np.random.default_rng(1).uniform(-1, 1, size=(3, 8, 8, 1)).astype(np.float32)
SPEC = build.ImageSpec(image_size=8, channels=1, num_classes=10)


def make_generator(num_classes=3, image_size=8):
    return Generator(
        image_size, 1, num_classes, latent_dim=4, width=4, embedding_dim=3, batch_norm_momentum=0.9, dtype="float32"
    )


def random_variables(module, *inputs):
    """Variables of the shapes that the module makes, none of them 0 and every variance positive."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, False))
    rng = np.random.default_rng(2)
    return jax.tree.map(lambda leaf: np.abs(rng.normal(size=leaf.shape)).astype(np.float32) / 3 + 0.1, shapes)


def random_params(module, *inputs):
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, False))["params"]
    rng = np.random.default_rng(2)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32) / 3, shapes)


@pytest.mark.parametrize("num_classes", [0, 3])
def test_the_generator_doubles_once_by_transposing_and_once_by_repeating(num_classes):
    generator = make_generator(num_classes)
    params = random_params(generator, LATENTS, LABELS)
    stats = random_variables(generator, LATENTS, LABELS)["batch_stats"]

    def activated(x, number):
        return by_hand.leaky_relu(by_hand.batch_norm(x, **params[f"BatchNorm_{number}"]))

    x = activated(by_hand.dense(LATENTS, params["Dense_0"]).reshape(3, 2, 2, 4), 0)
    if num_classes:
        x = np.concatenate([x, by_hand.label_map(LABELS, params["LabelMap_0"], 2)], axis=-1)
    x = activated(by_hand.conv_transpose(x, **params["ConvTranspose_0"], stride=2), 1)
    x = activated(by_hand.conv(by_hand.upsample(x), **params["UpsampledConv_0"], stride=1), 2)
    expected = np.tanh(by_hand.conv(x, **params["Conv_0"], stride=1))
    variables = {"params": params, "batch_stats": stats}
    images = jax.jit(generator.apply, static_argnums=3)(variables, LATENTS, LABELS, True)
    assert images.shape == (3, 8, 8, 1) and images.dtype == jnp.float32
    np.testing.assert_allclose(images, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected).mean() < 0.9, "a tanh that is not saturated everywhere"


@pytest.mark.parametrize("num_classes", [0, 3])
def test_the_discriminator_is_three_halvings_with_dropout_after_each(num_classes):
    discriminator = Discriminator(8, 1, num_classes, width=2, embedding_dim=3, dropout=0.5, dtype="float32")
    params = random_params(discriminator, IMAGES, LABELS)
    x = IMAGES
    if num_classes:
        x = np.concatenate([x, by_hand.label_map(LABELS, params["LabelMap_0"], 8)], axis=-1)
    for name in ("Conv_0", "Conv_1", "Conv_2"):
        x = by_hand.leaky_relu(by_hand.conv(x, **params[name], stride=2))
    expected = by_hand.dense(x.reshape(3, -1), params["Unconditional_0"]["Dense_0"])[:, 0]
    output = jax.jit(discriminator.apply, static_argnums=3)({"params": params}, IMAGES, LABELS, False)
    np.testing.assert_allclose(output.logits, expected, rtol=1e-5, atol=1e-5)
    _, kept = discriminator.apply(
        {"params": params},
        IMAGES,
        LABELS,
        True,
        rngs={"dropout": jax.random.key(0)},
        capture_intermediates=lambda module, _: type(module).__name__ == "Dropout",
        mutable=["intermediates"],
    )
    shares = [np.mean(np.asarray(layer["__call__"][0]) == 0) for layer in kept["intermediates"].values()]
    assert len(shares) == 3 and 0.2 < min(shares) < max(shares) < 0.8


def count(module, *inputs):
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, False))["params"]
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


MESSAGE = "a change of the architecture makes old checkpoints useless; if it is meant, count anew here"


@pytest.mark.parametrize(
    ("num_classes", "expected"),
    [
        # dense 100 -> 8*8*128, transposed 4x4 128 -> 128, 3x3 128 -> 64 -> 3, and biases; a scale and a bias for each
        # of 128, 128 and 64 features
        (
            0,
            (100 + 1) * 8192 + (16 * 128 * 128 + 128) + (9 * 128 * 64 + 64) + (9 * 64 * 3 + 3) + 2 * (128 + 128 + 64),
        ),
        # one more channel in; the map: 10 embeddings of 50, dense 50 -> 8*8
        (
            10,
            (100 + 1) * 8192
            + (16 * 129 * 128 + 128)
            + (9 * 128 * 64 + 64)
            + (9 * 64 * 3 + 3)
            + 2 * (128 + 128 + 64)
            + 10 * 50
            + (50 + 1) * 64,
        ),
    ],
)
def test_the_generator_has_as_many_parameters_as_by_hand(num_classes, expected):
    generator = Generator(
        32, 3, num_classes, latent_dim=100, width=128, embedding_dim=50, batch_norm_momentum=0.9, dtype="float32"
    )
    assert count(generator, jnp.zeros((1, 100)), jnp.zeros(1, jnp.int32)) == expected, MESSAGE


@pytest.mark.parametrize(
    ("num_classes", "expected"),
    [
        # 3x3 convolutions 3 -> 64 -> 128 -> 256, dense 4*4*256 -> 1, and biases
        (0, 9 * (3 * 64 + 64 * 128 + 128 * 256) + 64 + 128 + 256 + 4096 + 1),
        # one more channel in; the map: 10 embeddings of 50, dense 50 -> 32*32
        (10, 9 * (4 * 64 + 64 * 128 + 128 * 256) + 64 + 128 + 256 + 4096 + 1 + 10 * 50 + (50 + 1) * 1024),
    ],
)
def test_the_discriminator_has_as_many_parameters_as_by_hand(num_classes, expected):
    discriminator = Discriminator(32, 3, num_classes, width=64, embedding_dim=50, dropout=0.25, dtype="float32")
    assert count(discriminator, jnp.zeros((1, 32, 32, 3)), jnp.zeros(1, jnp.int32)) == expected, MESSAGE


@pytest.mark.parametrize("image_size", [2, 10, 30])
def test_a_side_that_doublings_cannot_reach_is_refused(image_size):
    generator = make_generator(image_size=image_size)
    with pytest.raises(UsageError) as caught:
        jax.eval_shape(lambda: generator.init(jax.random.key(0), LATENTS, LABELS, False))
    line = f"dcgan_upsample draws images whose side is a multiple of 4, given image_size {image_size}"
    assert str(caught.value) == line


@pytest.fixture
def built(recipe):
    recipe["architecture"] = "dcgan_upsample"
    recipe["generator"] = {
        "latent_dim": 4,
        "width": 4,
        "embedding_dim": 3,
        "batch_norm_momentum": 0.5,
        "dtype": "float32",
    }
    recipe["ema"] = {"halflife_kimg": 0.016, "start_kimg": 0.0}  # half in one step
    return build.build(recipe, SPEC)


def make_data():
    rng = np.random.default_rng(0)
    return on_host(rng.integers(0, 256, (64, 8, 8, 1), dtype=np.uint8), rng.integers(0, 10, 64).astype(np.int32))


def test_the_running_statistics_move_in_the_generators_step_alone_and_the_average_follows(built):
    state, data = train_state.create(built, SPEC, jax.random.key(0)), make_data()
    after_d, _ = jax.jit(functools.partial(train_step.discriminator_step, built))(state, data, jnp.int32(0))
    jax.tree.map(np.testing.assert_array_equal, after_d.g_stats, state.g_stats)
    after, _ = jax.jit(functools.partial(train_step.train_step, built))(state, data)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    before, moved, average = (jax.tree.leaves(s) for s in (state.g_stats, after.g_stats, after.ema_stats))
    assert len(moved) == 6
    for a, b, c in zip(before, moved, average, strict=True):
        assert np.all(np.asarray(a) != np.asarray(b))
        np.testing.assert_allclose(c, (np.asarray(a) + np.asarray(b)) / 2, rtol=1e-5)


def test_the_generators_step_moves_the_statistics_by_those_of_its_batch(built):
    """Checked for the first layer, a dense one, whose statistics need only the latents."""
    state, data = train_state.create(built, SPEC, jax.random.key(0)), make_data()
    after, _ = jax.jit(functools.partial(train_step.generator_step, built))(state, data)
    key = train_step._key(state, train_step.Purpose.G_LATENTS, state.step)
    latents = train_step._latents(built, key, jnp.zeros(16, jnp.int32))
    features = by_hand.dense(np.asarray(latents), state.g_params["Dense_0"]).reshape(-1, 4)
    stats = after.g_stats["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(stats["mean"], features.mean(axis=0) / 2, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(stats["variance"], (1 + features.var(axis=0)) / 2, rtol=1e-5)


@pytest.mark.parametrize("parallelism", ["shard_map", "pmap"])
def test_eight_devices_see_the_gradients_and_statistics_of_one(built, parallelism):
    from tests.train_step_test import assert_close, keep_gradients

    bound = built._replace(g_optimizer=keep_gradients(), d_optimizer=keep_gradients())

    def run(devices):
        mesh = make_mesh(jax.devices()[:devices])
        state = replicate(train_state.create(bound, SPEC, jax.random.key(0)), mesh)
        step = distribute(functools.partial(train_step.train_steps, bound, 1), mesh, parallelism)
        state, _ = step(state, replicate(make_data(), mesh))
        return jax.device_get((state.g_opt_state, state.d_opt_state, state.g_stats))

    expected, actual = run(1), run(8)
    # A convolution's bias before batch normalisation changes nothing: its gradient is rounding alone.
    for gradients in (expected[0], actual[0]):
        for layer in ("ConvTranspose_0", "UpsampledConv_0"):
            assert np.abs(gradients[layer].pop("bias")).max() < 1e-6
    assert_close(actual, expected, 1e-5)


def test_sampling_uses_the_running_statistics_so_an_image_does_not_depend_on_its_batch():
    generator = make_generator()
    stats = random_variables(generator, LATENTS, LABELS)["batch_stats"]
    variables = {"params": random_params(generator, LATENTS, LABELS), "batch_stats": stats}
    sampler, seed = make_sampler(generator), np.uint32(3)
    together = np.asarray(sampler(variables, seed, np.int32([0, 1, 2]), np.int32([5, 6, 7])))
    alone = np.asarray(sampler(variables, seed, np.int32([1]), np.int32([6])))
    assert np.abs(together[1].astype(int) - alone[0]).max() <= 1  # a rounded pixel
    assert np.ptp(together) > 10


def test_in_bfloat16_images_logits_and_variables_are_float32_and_nearly_the_same():
    half_precision.assert_nearly_the_same(
        lambda dtype: Generator(8, 1, 3, latent_dim=4, width=4, embedding_dim=3, batch_norm_momentum=0.9, dtype=dtype),
        LATENTS,
        LABELS,
    )
    half_precision.assert_nearly_the_same(
        lambda dtype: Discriminator(8, 1, 3, width=2, embedding_dim=3, dropout=0.5, dtype=dtype), IMAGES, LABELS
    )
