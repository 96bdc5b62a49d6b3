"""configs/cifar10_dcgan.py against the published networks in Keras 3: outputs, gradients of all three updates, Adam.

The published program, whose `trainable = False` is looked at too:

    discriminator.compile(...)
    discriminator.trainable = False
    combined = generator followed by discriminator; combined.compile(...)
    each step: discriminator.train_on_batch(real, 1), discriminator.train_on_batch(generated, 0),
               combined.train_on_batch(latents, 1)
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cgan_jax import optimizers, train_state, train_step
from cgan_jax.build import ImageSpec, build
from cgan_jax.data.batches import on_host
from tests.configs_test import CONFIGS, load
from tests.train_step_test import assert_close, keep_gradients, moved

SPEC = ImageSpec(image_size=32, channels=3, num_classes=10)
REAL, FAKE = 4, 8
"""Images a batch, in the recipe's proportion; the gradients of more take longer and say no more."""


@pytest.fixture(scope="module")
def keras(tmp_path_factory):
    """Keras on JAX. It writes a folder of settings when imported, and broadcasts between ranks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))
        patch.setenv("KERAS_BACKEND", "jax")
        keras = pytest.importorskip("keras", reason="the extra [reference] brings Keras, to compare with")
    assert keras.backend.backend() == "jax", "something imported Keras with another backend first"
    with jax.numpy_rank_promotion("allow"):
        yield keras


def published_discriminator(keras, size=32, width=128):
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((size, size, 3)),
            layers.Conv2D(width, 3, strides=2, padding="same"),
            layers.LeakyReLU(negative_slope=0.2),
            layers.Conv2D(width, 3, strides=2, padding="same"),
            layers.LeakyReLU(negative_slope=0.2),
            layers.Flatten(),
            layers.Dropout(0.4),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(loss="binary_crossentropy", optimizer=published_adam(keras))
    return model


def published_generator(keras, side=8, latent_dim=100, width=128):
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((latent_dim,)),
            layers.Dense(side * side * width),
            layers.LeakyReLU(negative_slope=0.2),
            layers.Reshape((side, side, width)),
            layers.Conv2DTranspose(width, 4, strides=2, padding="same"),
            layers.LeakyReLU(negative_slope=0.2),
            layers.Conv2DTranspose(width, 4, strides=2, padding="same"),
            layers.LeakyReLU(negative_slope=0.2),
            layers.Conv2D(3, 8, activation="tanh", padding="same"),
        ]
    )


def published_adam(keras):
    return keras.optimizers.Adam(learning_rate=2e-4, beta_1=0.5)


def weights(model) -> list[np.ndarray]:
    return [np.asarray(variable.value) for variable in model.weights]


def generator_params(tensors) -> dict:
    """Keras keeps the kernel of a transposed convolution as [kh, kw, out, in], for a convolution's transpose."""
    tensors = list(tensors)
    for place in (2, 4):
        tensors[place] = np.asarray(tensors[place])[::-1, ::-1].transpose(0, 1, 3, 2)
    names = ("Dense_0", "ConvTranspose_0", "ConvTranspose_1", "Conv_0")
    return {name: {"kernel": tensors[2 * i], "bias": tensors[2 * i + 1]} for i, name in enumerate(names)}


def discriminator_params(tensors) -> dict:
    first, first_bias, second, second_bias, last, last_bias = tensors
    return {
        "Conv_0": {"kernel": first, "bias": first_bias},
        "Conv_1": {"kernel": second, "bias": second_bias},
        "Unconditional_0": {"Dense_0": {"kernel": last, "bias": last_bias}},
    }


@pytest.fixture(scope="module")
def recipe():
    recipe = load(CONFIGS / "cifar10_dcgan.py").get_config().to_dict()
    assert recipe["train"]["g_batch_size"] == 2 * recipe["train"]["batch_size"]
    recipe["train"].update(batch_size=REAL, g_batch_size=FAKE)
    return recipe


def narrowed(recipe, width):
    return {**recipe, **{player: {**recipe[player], "width": width} for player in ("generator", "discriminator")}}


@pytest.fixture(
    scope="module",
    params=[
        16,
        pytest.param(128, marks=pytest.mark.slow),  # as published: a minute and more for the gradients in Keras
    ],
)
def both(keras, recipe, request):
    """The published pair, and the recipe's algorithm with a state that has its weights; dropout off in both."""
    width = request.param
    keras.utils.set_random_seed(0)
    generator, discriminator = published_generator(keras, width=width), published_discriminator(keras, width=width)
    rng = np.random.default_rng(0)
    for model in (generator, discriminator):
        # Biases start at 0, where a mistake in them would not show.
        model.set_weights([w if w.ndim > 1 else rng.normal(size=w.shape).astype(w.dtype) / 10 for w in weights(model)])
    assert recipe["discriminator"]["dropout"] == 0.4 and recipe["generator"]["width"] == 128
    algorithm = build(narrowed(recipe, width), SPEC)
    algorithm = algorithm._replace(discriminator=algorithm.discriminator.copy(dropout=0.0))
    bound = algorithm._replace(g_optimizer=keep_gradients(), d_optimizer=keep_gradients())
    state = jax.jit(lambda: train_state.create(bound, SPEC, jax.random.key(0)))()
    shapes = jax.tree.map(jnp.shape, (state.g_params, state.d_params))
    params = generator_params(weights(generator)), discriminator_params(weights(discriminator))
    assert jax.tree.map(jnp.shape, params) == shapes
    state = state.replace(g_params=jax.tree.map(jnp.asarray, params[0]), d_params=jax.tree.map(jnp.asarray, params[1]))
    return generator, discriminator, bound, state


@pytest.fixture(scope="module")
def data():
    """A seed whose real batch brings no unit of the discriminator within 6e-6 of its LeakyReLU's kink; seed 1 has one
    at 1e-8, where rounding chooses the slope."""
    rng = np.random.default_rng(6)
    return on_host(rng.integers(0, 256, (32, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, 32).astype(np.int32))


def test_the_published_pair_has_as_many_parameters_as_the_recipes(keras):
    from tests.configs_test import PARAMETERS

    published = published_generator(keras).count_params(), published_discriminator(keras).count_params()
    assert published == PARAMETERS["cifar10_dcgan"][1:]


def test_weights_start_alike(keras, recipe):
    """Every kernel of both with the same bounds and spread (Glorot uniform), every bias 0."""
    algorithm = build(recipe, SPEC)
    state = jax.jit(lambda: train_state.create(algorithm, SPEC, jax.random.key(0)))()
    published = (
        generator_params(weights(published_generator(keras))),
        discriminator_params(weights(published_discriminator(keras))),
    )
    for ours, theirs in zip(jax.tree.leaves((state.g_params, state.d_params)), jax.tree.leaves(published), strict=True):
        if theirs.ndim == 1:
            assert not np.any(ours) and not np.any(theirs)
        else:
            # The largest of so many uniform numbers is within a hundredth of the bound.
            np.testing.assert_allclose(np.abs(ours).max(), np.abs(theirs).max(), rtol=0.01)
            np.testing.assert_allclose(np.std(ours), np.std(theirs), rtol=0.03)


def test_outputs_agree(both, data):
    generator, discriminator, algorithm, state = both
    latents = np.random.default_rng(2).normal(size=(4, 100)).astype(np.float32)
    labels = jnp.zeros(4, jnp.int32)
    images = algorithm.generator.apply({"params": state.g_params}, latents, labels, True)
    np.testing.assert_allclose(images, generator(latents), atol=1e-4)
    assert np.std(images) > 0.05
    output = algorithm.discriminator.apply({"params": state.d_params}, images, labels, False)
    probabilities = np.asarray(discriminator(np.asarray(images), training=False))[:, 0]
    np.testing.assert_allclose(jax.nn.sigmoid(output.logits), probabilities, atol=1e-4)
    assert np.ptp(probabilities) > 1e-4


def published_gradients(keras, players, trained, inputs, target):
    """Of the mean binary cross-entropy of `players`, one after the other on `inputs`, against a constant target.

    A LeakyReLU whose input is 0 up to rounding may take either slope, which shows in its channel.
    """

    def loss(tensors):
        x = inputs
        for player in players:
            given = tensors if player is trained else [v.value for v in player.trainable_variables]
            x, _ = player.stateless_call(given, [v.value for v in player.non_trainable_variables], x, training=False)
        return jnp.mean(keras.losses.binary_crossentropy(jnp.full(x.shape, target), x))

    return jax.jit(jax.grad(loss))([variable.value for variable in trained.trainable_variables])


@pytest.mark.parametrize("update", ["first", "second"])
def test_the_gradients_of_both_discriminator_updates_agree(keras, both, data, update):
    generator, discriminator, algorithm, state = both
    only = algorithm._replace(d_updates={update: algorithm.d_updates[update]})
    after, _ = jax.jit(functools.partial(train_step.discriminator_step, only))(state, data, jnp.int32(0))
    real = train_step.draw(data, train_step._key(state, train_step.Purpose.D_DATA), jnp.int32(0), REAL, False)
    if update == "first":
        images, target = real.images, 1.0
    else:
        key = train_step._key(state, train_step.Purpose.D_LATENTS, jnp.int32(0))
        images, target = generator(train_step._latents(algorithm, key, real.labels)), 0.0
    expected = published_gradients(keras, [discriminator], discriminator, images, target)
    assert len(expected) == 6
    assert_close(jax.device_get(after.d_opt_state), discriminator_params(np.asarray(g) for g in expected), 1e-5)


def test_the_gradients_of_the_generator_update_agree(keras, both, data):
    generator, discriminator, algorithm, state = both
    after, _ = jax.jit(functools.partial(train_step.generator_step, algorithm))(state, data)
    key = train_step._key(state, train_step.Purpose.G_LATENTS, state.step)
    latents = train_step._latents(algorithm, key, jnp.zeros(FAKE, jnp.int32))
    expected = published_gradients(keras, [generator, discriminator], generator, latents, 1.0)
    assert len(expected) == 8
    assert_close(jax.device_get(after.g_opt_state), generator_params(np.asarray(g) for g in expected), 1e-5)


def test_dropout_scales_alike(keras):
    layer = keras.layers.Dropout(0.4)
    theirs = np.unique(layer(np.ones((16, 256), np.float32), training=True))
    from cgan_jax.networks.layers import Dropout

    ours = Dropout(0.4).apply({}, jnp.ones((16, 256)), True, rngs={"dropout": jax.random.key(0)})
    np.testing.assert_allclose(np.unique(ours), theirs, rtol=1e-6)


def test_our_updates_move_what_the_author_meant_to_move(recipe, data):
    """All of the discriminator by its first and by its second update, all of the generator by its own, nothing else."""
    algorithm = build(narrowed(recipe, 2), SPEC)
    assert list(algorithm.d_updates) == ["first", "second"]
    state = jax.jit(lambda: train_state.create(algorithm, SPEC, jax.random.key(0)))()
    for update, terms in algorithm.d_updates.items():
        only = algorithm._replace(d_updates={update: terms})
        after, _ = jax.jit(functools.partial(train_step.discriminator_step, only))(state, data, jnp.int32(0))
        assert all(moved(after.d_params, state.d_params)) and not any(moved(after.g_params, state.g_params))
    after, _ = jax.jit(functools.partial(train_step.generator_step, algorithm))(state, data)
    assert all(moved(after.g_params, state.g_params)) and not any(moved(after.d_params, state.d_params))


def published_combination(keras, generator, discriminator):
    discriminator.trainable = False
    combined = keras.Sequential([generator, discriminator])
    combined.compile(loss="binary_crossentropy", optimizer=published_adam(keras))
    return combined


def test_the_published_trick_freezes_the_discriminator_for_good_in_keras_3(keras):
    """It was meant to freeze it in the combined model alone, as compile() once remembered what was trainable.

    Keras 3 asks at every step: its discriminator is never trained, and nothing says so.
    """
    rng = np.random.default_rng(3)
    images = rng.uniform(-1, 1, (6, 8, 8, 3)).astype(np.float32)
    latents = rng.normal(size=(12, 5)).astype(np.float32)
    generator = published_generator(keras, side=2, latent_dim=5, width=4)
    discriminator = published_discriminator(keras, size=8, width=4)
    combined = published_combination(keras, generator, discriminator)
    before = weights(generator), weights(discriminator)
    for target in (1, 0):
        discriminator.train_on_batch(images, np.full((6, 1), target))
    assert not any(moved(weights(discriminator), before[1]))
    combined.train_on_batch(latents, np.ones((12, 1)))
    assert all(moved(weights(generator), before[0]))
    assert not any(moved(weights(discriminator), before[1]))


def test_the_published_trick_stops_keras_3_where_the_discriminator_was_trained_before(keras):
    images = np.random.default_rng(3).uniform(-1, 1, (6, 8, 8, 3)).astype(np.float32)
    generator = published_generator(keras, side=2, latent_dim=5, width=4)
    discriminator = published_discriminator(keras, size=8, width=4)
    before = weights(discriminator)
    discriminator.train_on_batch(images, np.ones((6, 1)))
    assert all(moved(weights(discriminator), before))
    published_combination(keras, generator, discriminator)
    with pytest.raises(ValueError, match="the optimizer was built with 6 variables"):
        discriminator.train_on_batch(images, np.ones((6, 1)))


def trajectories(keras, ours, scale):
    """The places of 200 numbers after each of 5 updates by the same gradients: ours, and those of Keras."""
    gradients = (np.random.default_rng(4).normal(size=(5, 200)) * scale).astype(np.float32)
    variable, theirs = keras.Variable(np.zeros(200, np.float32)), published_adam(keras)
    place, state, places = jnp.zeros(200), ours.init(jnp.zeros(200)), []
    for gradient in gradients:
        theirs.apply([jnp.asarray(gradient)], [variable])
        update, state = ours.update(jnp.asarray(gradient), state)
        place = optax.apply_updates(place, update)
        places.append((np.asarray(place), np.asarray(variable.value)))
    return [np.stack(each) for each in zip(*places, strict=True)]


@pytest.mark.parametrize("scale", [1.0, 1e-2, 1e-4, 1e-6])
def test_the_recipes_adam_is_that_of_keras(keras, recipe, scale):
    ours, theirs = trajectories(keras, optimizers.make(recipe["d_optimizer"], 1), scale)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-7)
    assert np.abs(theirs[-1]).max() > 1e-4


def test_the_adam_of_algorithm_1_is_not(keras, recipe):
    """Why the recipe asks for keras_adam: a gradient near 1e-4 is as small as eps is before its correction."""
    ours, theirs = trajectories(keras, optimizers.make({**recipe["d_optimizer"], "name": "adam"}, 1), 1e-4)
    assert 1e-5 < np.abs(ours - theirs).max() < 5 * 2e-4
