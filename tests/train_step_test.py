"""The training step: which network moves when, and the same gradients for any number of replicas."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from cgan_jax import augment, train_state, train_step
from cgan_jax.build import Algorithm, ImageSpec, build
from cgan_jax.data.batches import on_host
from cgan_jax.errors import UsageError
from cgan_jax.losses import consistency
from cgan_jax.networks.heads import Output
from cgan_jax.parallel import PARALLELISMS, distribute, make_mesh, replicate

SPEC = ImageSpec(image_size=8, channels=1, num_classes=10)


def keep_gradients() -> optax.GradientTransformation:
    """An optimizer that changes no parameter and keeps the last gradient as its state."""
    return optax.GradientTransformation(
        lambda params: jax.tree.map(jnp.zeros_like, params),
        lambda gradients, state, params: (jax.tree.map(jnp.zeros_like, params), gradients),
    )


def keep_annealing() -> optax.GradientTransformationExtraArgs:
    """An optimizer that changes no parameter and keeps `annealed` and `time_share`."""
    return optax.GradientTransformationExtraArgs(
        lambda params: (jnp.zeros(()), jnp.zeros(())),
        lambda gradients, state, params, *, annealed, time_share: (
            jax.tree.map(jnp.zeros_like, params),
            (jnp.asarray(annealed, jnp.float32), time_share),
        ),
    )


def moved(a, b) -> list[bool]:
    """Whether each tensor differs."""
    return [not np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)]


def make_data(n: int = 64):
    rng = np.random.default_rng(0)
    return on_host(
        rng.integers(0, 256, (n, 8, 8, 1), dtype=np.uint8), rng.integers(0, SPEC.num_classes, n).astype(np.int32)
    )


def make_state(algorithm: Algorithm, devices: int) -> tuple[train_state.TrainState, jax.sharding.Mesh]:
    mesh = make_mesh(jax.devices()[:devices])
    return replicate(train_state.create(algorithm, SPEC, jax.random.key(0)), mesh), mesh


def run(algorithm: Algorithm, devices: int, parallelism: str = "shard_map", steps: int = 1):
    state, mesh = make_state(algorithm, devices)
    data = replicate(make_data(), mesh)
    step = distribute(functools.partial(train_step.train_steps, algorithm, steps), mesh, parallelism)
    state, scalars = step(state, data)
    # Typed keys do not convert to NumPy.
    return jax.device_get(state.replace(key=jax.random.key_data(state.key))), jax.device_get(scalars)


def assert_close(actual, expected, relative: float) -> None:
    """Asserts that each tensor agrees to `relative` times its largest entry."""
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(actual), jax.tree.leaves(expected), strict=True):
        scale = np.abs(b).max()
        assert np.abs(a - b).max() <= relative * scale, f"{jax.tree_util.keystr(path)}: {np.abs(a - b).max() / scale}"


@pytest.fixture
def gradients_recipe(recipe) -> dict:
    """Two discriminator steps of two updates, with a term that draws random numbers and one that reads real images."""
    recipe["train"]["d_steps_per_g_step"] = 2
    recipe["dataset"]["flip"] = True
    recipe["loss"]["d_updates"] = {
        "first": {"relativistic": {"weight": 1.0}, "r1": {"weight": 0.3, "every": 2}},
        "second": {"bce_fake": {"weight": 1.0}, "gradient_penalty": {"weight": 1.0}},
    }
    recipe["loss"]["g_terms"] = {"relativistic": {"weight": 1.0}, "l2": {"weight": 0.1}}
    return recipe


@pytest.fixture
def consistent_recipe(recipe) -> dict:
    """A recipe with all terms that have views or a memory, every augmentation, and annealing."""
    recipe["train"]["d_steps_per_g_step"] = 2
    listed = {name: {"weight": 1.0} for name in ("hinge_real_pseudo", "hinge_fake", *consistency.DISCRIMINATOR)}
    recipe["loss"] = {
        "d_updates": {"both": listed},
        "g_terms": {"hinge": {"weight": 1.0}, "latent_diversity": {"weight": 1.0}},
    }
    recipe["augment"] = {"policy": ",".join([*augment.OPERATIONS, "scale", "rotate", "contrast"]), "probability": 0.3}
    recipe["anneal"] = {
        "kimg": 0.1,
        "to": {"augment": {"probability": 0.9}, "loss": {"g_terms": {"hinge": {"weight": 3.0}}}},
    }
    return recipe


@pytest.fixture
def styled_recipe(recipe) -> dict:
    """StyleGAN2: noise, styles of two latents, deviations of groups of images, and R1 in a separate update."""
    recipe["architecture"] = "stylegan2"
    both = {"width": 3, "mapping_layers": 1, "dtype": "float32"}
    recipe["generator"] = {"latent_dim": 4, "style_dim": 3, "style_mixing": 0.5, **both}
    recipe["discriminator"] = {"group": 4, "head": "mapped_projection", **both}
    recipe["loss"]["d_updates"]["lazy"] = {"r1": {"weight": 0.3, "every": 2}}
    return recipe


@pytest.fixture(scope="module")
def on_one_device():
    return {}


@pytest.mark.parametrize("parallelism", PARALLELISMS)
def test_eight_devices_see_the_gradients_of_one(gradients_recipe, on_one_device, parallelism):
    algorithm = build(gradients_recipe, SPEC)._replace(g_optimizer=keep_gradients(), d_optimizer=keep_gradients())
    if "result" not in on_one_device:
        on_one_device["result"] = run(algorithm, 1)
    expected, expected_scalars = on_one_device["result"]
    actual, scalars = run(algorithm, 8, parallelism)
    assert max(np.abs(g).max() for g in jax.tree.leaves(expected.g_opt_state)) > 1e-4
    assert_close(actual.d_opt_state, expected.d_opt_state, 1e-5)
    assert_close(actual.g_opt_state, expected.g_opt_state, 1e-5)
    assert scalars.keys() == expected_scalars.keys()
    for name, value in expected_scalars.items():
        np.testing.assert_allclose(scalars[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("parallelism", PARALLELISMS)
def test_four_devices_see_the_same_views_augmentations_and_memories_as_one(
    consistent_recipe, on_one_device, parallelism
):
    algorithm = build(consistent_recipe, SPEC)._replace(g_optimizer=keep_gradients(), d_optimizer=keep_gradients())
    if "consistent" not in on_one_device:
        on_one_device["consistent"] = run(algorithm, 1, steps=2)
    expected, _ = on_one_device["consistent"]
    actual, scalars = run(algorithm, 4, parallelism, steps=2)
    assert scalars["g_latent_diversity"] < 0 and scalars["d_consistency"] > 0 and scalars["d_lecam"] > 0
    assert_close(actual.d_opt_state, expected.d_opt_state, 1e-5)
    assert_close(actual.g_opt_state, expected.g_opt_state, 1e-5)
    assert_close(actual.memory, expected.memory, 1e-5)


def test_eight_devices_see_the_noise_styles_and_deviations_of_one(styled_recipe):
    summed = keep_gradients()._replace(
        update=lambda gradients, state, params: (
            jax.tree.map(jnp.zeros_like, params),
            jax.tree.map(jnp.add, state, gradients),
        )
    )
    algorithm = build(styled_recipe, SPEC)._replace(g_optimizer=summed, d_optimizer=summed)
    expected, actual = (run(algorithm, devices)[0] for devices in (1, 8))
    for name in ("d_opt_state", "g_opt_state", "d_stats", "g_stats", "ema_stats"):
        assert_close(getattr(actual, name), getattr(expected, name), 2e-5)


def test_an_update_of_lazy_terms_happens_at_their_steps_and_leaves_the_moments_alone_between(recipe):
    recipe["loss"]["d_updates"]["lazy"] = {"r1": {"weight": 1.0, "every": 2}}
    lazy = build(recipe, SPEC)
    without = lazy._replace(d_updates={"both": lazy.d_updates["both"]})
    data = jax.device_put(make_data())

    def after(algorithm):
        state = train_state.create(algorithm, SPEC, jax.random.key(0))
        step = jax.jit(functools.partial(train_step.discriminator_step, algorithm))
        return [step(state, data, jnp.int32(index)) for index in (1, 2)]

    (between, nothing), (updated, scalars) = after(lazy)
    (expected, _), (not_updated, _) = after(without)
    assert_close((between.d_params, between.d_opt_state), (expected.d_params, expected.d_opt_state), 1e-6)
    assert between.d_opt_state[0].count == 1 and updated.d_opt_state[0].count == 2
    assert all(moved(updated.d_params, not_updated.d_params))
    assert nothing["d_r1"] == 0 < scalars["d_r1"]


@pytest.mark.parametrize(("devices", "parallelism"), [(1, "shard_map"), (2, "pmap")])
def test_a_batch_in_parts_has_the_gradients_memories_and_numbers_of_the_whole(
    consistent_recipe, on_one_device, devices, parallelism
):
    keep = {"g_optimizer": keep_gradients(), "d_optimizer": keep_gradients()}
    if "consistent" not in on_one_device:
        on_one_device["consistent"] = run(build(consistent_recipe, SPEC)._replace(**keep), 1, steps=2)
    expected, expected_scalars = on_one_device["consistent"]
    consistent_recipe["train"]["accumulate"] = 4
    actual, scalars = run(build(consistent_recipe, SPEC)._replace(**keep), devices, parallelism, steps=2)
    assert_close(actual.d_opt_state, expected.d_opt_state, 1e-5)
    assert_close(actual.g_opt_state, expected.g_opt_state, 1e-5)
    assert_close(actual.memory, expected.memory, 1e-5)
    for name, value in expected_scalars.items():
        np.testing.assert_allclose(scalars[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_what_depends_on_the_whole_batch_is_refused_in_parts(recipe):
    recipe["train"]["accumulate"] = 2
    recipe["architecture"] = "sngan"
    recipe["generator"] = {"latent_dim": 4, "width": 2, "dtype": "float32"}
    recipe["discriminator"] = {"width": 2, "head": "projection", "dtype": "float32"}
    spec = ImageSpec(image_size=32, channels=1, num_classes=10)
    algorithm = build(recipe, spec)
    state = jax.eval_shape(lambda: train_state.create(algorithm, spec, jax.random.key(0)))
    data = on_host(np.zeros((20, 32, 32, 1), np.uint8), np.arange(20) % 10)
    with pytest.raises(UsageError, match="accumulate must be 1 with batch normalisation"):
        jax.eval_shape(functools.partial(train_step.train_step, algorithm), state, data)


def test_groups_of_batch_normalisation_are_of_the_global_batch_whatever_the_devices(recipe):
    recipe |= {"architecture": "dcgan_upsample"}
    small = {"width": 4, "embedding_dim": 2, "dtype": "float32"}
    recipe["generator"] = {"latent_dim": 4, "batch_norm_momentum": 0.8, **small}
    recipe["discriminator"] = {"dropout": 0.25, **small}
    recipe["train"] |= {"batch_norm_groups": 4}
    keep = {"g_optimizer": keep_gradients(), "d_optimizer": keep_gradients()}
    algorithm = build(recipe, SPEC)._replace(**keep)
    expected, _ = run(algorithm, 1)
    actual, _ = run(algorithm, 8)
    whole, _ = run(algorithm._replace(batch_norm_groups=1), 1)
    for part in ("d_opt_state", "g_opt_state", "g_stats"):
        # In one vector, because the bias before a normalisation has a gradient of rounding alone.
        there, here, ungrouped = (ravel_pytree(getattr(state, part))[0] for state in (expected, actual, whole))
        assert_close(here, there, 1e-5)
        assert np.abs(ungrouped - there).max() > 1e-2 * np.abs(there).max()


def test_each_network_moves_in_its_own_step_only(recipe):
    algorithm = build(recipe, SPEC)
    state = train_state.create(algorithm, SPEC, jax.random.key(0))
    data = jax.device_put(make_data())
    after_d, _ = jax.jit(functools.partial(train_step.discriminator_step, algorithm))(state, data, jnp.int32(0))
    after_g, _ = jax.jit(functools.partial(train_step.generator_step, algorithm))(state, data)
    assert all(moved(after_d.d_params, state.d_params)) and not any(moved(after_d.g_params, state.g_params))
    assert all(moved(after_g.g_params, state.g_params)) and not any(moved(after_g.d_params, state.d_params))
    assert not any(moved(after_d.g_opt_state, state.g_opt_state)) and not any(
        moved(after_g.d_opt_state, state.d_opt_state)
    )


def test_two_entries_of_d_updates_are_two_optimizer_steps(recipe):
    recipe["loss"]["d_updates"] = {"first": {"bce_real": {"weight": 1.0}}, "second": {"bce_fake": {"weight": 1.0}}}
    recipe["discriminator"]["dropout"] = 0.0
    algorithm = build(recipe, SPEC)._replace(d_optimizer=optax.sgd(0.1), g_optimizer=optax.sgd(0.0))
    state = train_state.create(algorithm, SPEC, jax.random.key(3))
    data = jax.device_put(make_data())
    actual, scalars = jax.jit(functools.partial(train_step.discriminator_step, algorithm))(state, data, jnp.int32(0))

    real = train_step.draw(data, train_step._key(state, train_step.Purpose.D_DATA), jnp.int32(0), 16, False)
    latents = train_step._latents(
        algorithm, train_step._key(state, train_step.Purpose.D_LATENTS, jnp.int32(0)), real.labels
    )
    fakes = algorithm.generator.apply({"params": state.g_params}, latents, real.labels, True)

    def probabilities(params, images):
        output = algorithm.discriminator.apply({"params": params}, images, real.labels, train=False)
        return jax.nn.sigmoid(output.logits)

    def on_real(params):
        return jnp.mean(-jnp.log(probabilities(params, real.images)))

    def on_fake(params):
        return jnp.mean(-jnp.log(1 - probabilities(params, fakes)))

    expected = state.d_params
    for loss in (on_real, on_fake):
        expected = jax.tree.map(lambda p, g: p - 0.1 * g, expected, jax.jit(jax.grad(loss))(expected))
    assert_close(jax.device_get(actual.d_params), jax.device_get(expected), 1e-5)
    np.testing.assert_allclose(scalars["d_bce_real"], on_real(state.d_params), rtol=1e-5)
    np.testing.assert_allclose(scalars["d_loss"], scalars["d_bce_real"] + scalars["d_bce_fake"], rtol=1e-6)


@pytest.mark.parametrize(("loss", "boundary"), [("bce", 0.0), ("hinge", 0.0), ("least_squares", 0.5)])
def test_the_loss_decides_which_logits_count_as_correct(recipe, loss, boundary):
    recipe["loss"]["d_updates"] = {"both": {f"{loss}_real": {"weight": 1.0}, f"{loss}_fake": {"weight": 1.0}}}
    [terms] = build(recipe, SPEC).d_updates.values()
    logits = boundary + jnp.float32([-0.3, -0.1, 0.1, 0.2])
    outputs = {name: Output(logits + shift, {}) for name, shift in (("real", 0.2), ("fake", 0.0))}
    found = train_step._accuracies(terms, outputs)
    assert {name: float(value) for name, value in found.items()} == {"d_accuracy_real": 0.75, "d_accuracy_fake": 0.5}


@pytest.mark.parametrize("update", [("wasserstein_real", "wasserstein_fake"), ("relativistic",)], ids=len)
def test_a_loss_without_a_boundary_has_no_accuracy(recipe, update):
    recipe["loss"]["d_updates"] = {"both": {name: {"weight": 1.0} for name in update}}
    _, scalars = run(build(recipe, SPEC), 1)
    assert not any("accuracy" in name for name in scalars)


def test_a_term_of_two_updates_has_two_scalars(recipe):
    terms = {"first": ["bce_real", "r1"], "second": ["bce_fake", "r1"]}
    recipe["loss"]["d_updates"] = {update: {name: {"weight": 1.0} for name in of} for update, of in terms.items()}
    _, scalars = run(build(recipe, SPEC), 1)
    names = ("d_bce_real", "d_first_r1", "d_bce_fake", "d_second_r1")
    assert "d_r1" not in scalars
    assert float(scalars["d_loss"]) == pytest.approx(sum(float(scalars[name]) for name in names), rel=1e-5)


def test_the_average_follows_with_its_halflife_after_its_start(recipe):
    recipe["ema"] = {"halflife_kimg": 0.032, "start_kimg": 0.016}  # start after 1 step, half in 2 steps
    algorithm = build(recipe, SPEC)
    state = train_state.create(algorithm, SPEC, jax.random.key(0))
    state = state.replace(g_params=jax.tree.map(jnp.ones_like, state.g_params))
    started = train_step.averaged(algorithm, state)
    assert all(np.all(np.asarray(leaf) == 1.0) for leaf in jax.tree.leaves(started.ema_params))
    assert int(started.step) == 1
    moved = started.replace(g_params=jax.tree.map(jnp.zeros_like, state.g_params))
    for expected in (0.5**0.5, 0.5, 0.5**1.5):
        moved = train_step.averaged(algorithm, moved)
        for leaf in jax.tree.leaves(moved.ema_params):
            np.testing.assert_allclose(leaf, expected, rtol=1e-6)


def test_each_further_average_follows_with_its_own_halflife(recipe):
    recipe["ema"] = {"halflife_kimg": 0.032, "halflives_kimg": "0.016,0.064", "start_kimg": 0.016}  # 1 and 4 steps
    algorithm = build(recipe, SPEC)
    state = train_state.create(algorithm, SPEC, jax.random.key(0))
    state = state.replace(g_params=jax.tree.map(jnp.ones_like, state.g_params))
    state = train_step.averaged(algorithm, state)
    state = state.replace(g_params=jax.tree.map(jnp.zeros_like, state.g_params))
    for steps in (1, 2, 3):
        state = train_step.averaged(algorithm, state)
        trees = {2: state.ema_params, 1: state.further["0.016"]["params"], 4: state.further["0.064"]["params"]}
        for halflife, tree in trees.items():
            for leaf in jax.tree.leaves(tree):
                np.testing.assert_allclose(leaf, 0.5 ** (steps / halflife), rtol=1e-6)


def test_annealing_goes_with_the_steps_or_with_the_minutes_whichever_is_further(recipe):
    recipe["train"] |= {"total_kimg": 0.32, "d_steps_per_g_step": 2}  # 10 steps
    recipe["anneal"] = {"kimg": 0.128, "to": {"d_optimizer": {"b2": 0.5}}}  # 4 of them
    algorithm = build(recipe, SPEC)._replace(g_optimizer=keep_annealing(), d_optimizer=keep_annealing())
    state, data = train_state.create(algorithm, SPEC, jax.random.key(0)), jax.device_put(make_data())
    step = jax.jit(functools.partial(train_step.train_step, algorithm))

    def seen(steps, time_share):
        after, _ = step(state.replace(step=jnp.int32(steps), time_share=jnp.float32(time_share)), data)
        (in_d, d_share), (in_g, g_share) = after.d_opt_state, after.g_opt_state
        assert d_share == g_share == np.float32(time_share)
        return [float(in_d), float(in_g)]

    def half_cosine(share):
        return (1 - np.cos(np.pi * min(share, 1))) / 2

    # The second of two discriminator steps is half a generator step further.
    np.testing.assert_allclose(seen(1, 0.0), [half_cosine(1.5 / 4), half_cosine(1 / 4)], rtol=1e-5)
    np.testing.assert_allclose(seen(1, 0.3), [half_cosine(3 / 4)] * 2, rtol=1e-5)
    np.testing.assert_allclose(seen(3, 0.1), [half_cosine(3.5 / 4), half_cosine(3 / 4)], rtol=1e-5)
    np.testing.assert_allclose(seen(9, 0.0) + seen(0, 0.9), [1.0] * 4, rtol=1e-6)


def test_the_averages_halflife_may_be_annealed(recipe):
    recipe["ema"] = {"halflife_kimg": 0.0, "start_kimg": 0.0}
    recipe["anneal"] = {"kimg": 0.064, "to": {"ema": {"halflife_kimg": 0.032}}}  # from 0 to 2 steps within 4
    algorithm = build(recipe, SPEC)
    state = train_state.create(algorithm, SPEC, jax.random.key(0))
    state = state.replace(ema_params=jax.tree.map(jnp.ones_like, state.g_params))
    state = state.replace(g_params=jax.tree.map(jnp.zeros_like, state.g_params))
    for step, decay in ((0, 0.0), (2, 0.5), (4, 0.5**0.5), (9, 0.5**0.5)):  # halfway half a half-life: 1 step
        moved = train_step.averaged(algorithm, state.replace(step=jnp.int32(step)))
        for leaf in jax.tree.leaves(moved.ema_params):
            np.testing.assert_allclose(leaf, decay, rtol=1e-5, atol=1e-30)


def test_many_steps_in_one_call_equal_as_many_calls(recipe):
    algorithm = build(recipe, SPEC)
    expected, mesh = make_state(algorithm, 2)
    data = replicate(make_data(), mesh)
    one = distribute(functools.partial(train_step.train_steps, algorithm, 1), mesh)
    losses = []
    for _ in range(3):
        expected, scalars = one(expected, data)
        losses.append(float(scalars["g_loss"]))
    actual, scalars = run(algorithm, 2, steps=3)
    assert int(actual.step) == 3
    np.testing.assert_allclose(scalars["g_loss"], np.mean(losses), rtol=1e-5)
    # Adam's first steps amplify the rounding of a gradient near 0: 3 steps of 2e-4 bound it.
    assert_close(actual.ema_params, jax.device_get(expected.ema_params), 1e-3)


def test_the_state_is_donated(recipe):
    algorithm = build(recipe, SPEC)
    state, mesh = make_state(algorithm, 2)
    data = replicate(make_data(), mesh)
    step = distribute(functools.partial(train_step.train_steps, algorithm, 1), mesh)
    step(state, data)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.d_params))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(data))


def test_no_two_draws_of_a_run_share_a_key(recipe):
    """Splitting a key gives the keys that folding in 0, 1, ... gives, so the order of folding matters."""
    algorithm = build(recipe, SPEC)
    state = train_state.create(algorithm, SPEC, jax.random.key(0))
    of_the_run = [train_step.Purpose.D_DATA, train_step.Purpose.G_DATA]
    keys = [key for purpose in of_the_run for key in jax.random.split(train_step._key(state, purpose))]
    for purpose in set(train_step.Purpose) - set(of_the_run):
        keys += [train_step._key(state, purpose, jnp.int32(index)) for index in range(len(train_step.Purpose))]
    expected = 2 * 2 + (len(train_step.Purpose) - 2) * len(train_step.Purpose)
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == len(keys) == expected
