"""Training the classifier: the order and augmentation of images, the optimizer by hand, that it learns and goes on."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cgan_jax.data.sources import Dataset
from cgan_jax.evaluation import classifier_training as training

RNG = np.random.default_rng(0)
PLAN = training.Plan(epochs=3, batch_size=4, flip=True, seed=0)


def numbered(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images that are one colour each, their number, with labels that are it too."""
    numbers = np.arange(count)
    return np.broadcast_to(numbers[:, None, None, None], (count, 8, 8, 1)).astype(np.uint8), numbers.astype(np.int32)


def bars(count: int) -> Dataset:
    """Lying and standing bars in noise."""
    labels = np.arange(count) % 2
    images = RNG.integers(0, 100, (count, 8, 8, 1))
    for image, label in zip(images, labels, strict=True):
        place = RNG.integers(1, 7)
        (image if label else image.transpose(1, 0, 2))[place] += 150
    return Dataset(images.astype(np.uint8), labels.astype(np.int32), ("standing", "lying"))


def test_every_epoch_shows_every_image_once_with_its_label_in_another_order():
    images, labels = numbered(12)
    seen = list(training.batches(PLAN, images, labels, 0))
    assert len(seen) == PLAN.total_steps(12) == 9
    orders = [np.concatenate([y for _, y in seen[3 * epoch : 3 * epoch + 3]]) for epoch in range(3)]
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert any(np.any(orders[0] != order) for order in orders[1:])
    assert all(np.array_equal(x[:, 0, 0, 0], y) for x, y in seen)


def test_batches_from_a_step_on_are_those_of_the_whole():
    images = RNG.integers(0, 256, (13, 8, 8, 1), dtype=np.uint8)
    whole = list(training.batches(PLAN, images, np.arange(13, dtype=np.int32), 0))
    rest = list(training.batches(PLAN, images, np.arange(13, dtype=np.int32), 4))
    assert len(rest) == len(whole) - 4
    for (x, a), (y, b) in zip(rest, whole[4:], strict=True):
        assert np.array_equal(x, y) and np.array_equal(a, b)


def test_images_are_mirrored_and_shifted_into_their_reflection():
    image = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    both = np.concatenate([image, image])
    found = training.augmented(both, np.array([[2, 2], [4, 1]]), np.array([True, False]))
    assert np.array_equal(found[0], image[0, :, ::-1])
    padded = np.pad(image[0, :, :, 0], 2, "reflect")
    assert np.array_equal(found[1, :, :, 0], padded[4:20, 1:17])


def test_each_image_is_mirrored_in_every_second_epoch_or_never():
    images = np.broadcast_to(np.arange(8, dtype=np.uint8)[:, None], (12, 8, 8, 1))

    def mirrored(plan):
        rows = {epoch: {} for epoch in range(3)}
        for step, (x, labels) in enumerate(training.batches(plan, images, np.arange(12, dtype=np.int32), 0)):
            for picture, label in zip(x, labels, strict=True):
                rows[step // 3][int(label)] = int(picture[4, 5, 0]) < int(picture[4, 2, 0])
        return rows

    of_epochs = mirrored(PLAN)
    assert all(of_epochs[0][i] != of_epochs[1][i] and of_epochs[0][i] == of_epochs[2][i] for i in range(12))
    assert 0 < sum(of_epochs[0].values()) < 12
    assert not any(any(rows.values()) for rows in mirrored(PLAN._replace(flip=False)).values())


def test_biases_and_the_last_layer_move_by_nesterovs_momentum_with_decay():
    """Two steps by hand: v = b v + g + decay p / r; p -= r batch (1 - step / n) (g + decay p / r + b v)."""
    plan = training.Plan(epochs=10, batch_size=10, flip=False, seed=0)
    optimizer = training.make_optimizer(plan, 100)
    params = {
        "_Whitening_0": {"bias": jnp.float32(1.0)},
        "BatchNorm_0": {"bias": jnp.float32(3.0)},
        "Dense_0": {"kernel": jnp.float32(2.0)},
    }
    state = optimizer.init(params)
    by_hand = {layer: [float(jax.tree.leaves(leaf)[0]), 0.0] for layer, leaf in params.items()}
    # Rate per image and the steps, of 100, until it is 0.
    rates = {"_Whitening_0": (0.053, 38), "BatchNorm_0": (0.053, 100), "Dense_0": (0.67, 100)}
    for step in range(2):
        gradients = jax.tree.map(lambda _: jnp.float32(0.5), params)
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        for layer, numbers in by_hand.items():
            (p, v), (rate, steps) = numbers, rates[layer]
            g = 0.5 + 2e-6 / rate * p
            v = 0.85 * v + g
            numbers[:] = p - rate * 10 * (1 - step / steps) * (g + 0.85 * v), v
            assert float(jax.tree.leaves(params[layer])[0]) == pytest.approx(numbers[0], rel=1e-6)


def test_kernels_are_normed_and_move_by_nearly_orthogonal_matrices():
    """The first step of a kernel whose gradient has known singular values: all of them come out near 1."""
    rng = np.random.default_rng(1)
    left, _ = np.linalg.qr(rng.normal(size=(27, 5)))
    right, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    gradient = (left * [8.0, 4.0, 2.0, 1.0, 0.5] @ right.T).reshape(3, 3, 3, 5).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 3, 5)).astype(np.float32)
    optimizer = training.muon(optax.constant_schedule(0.1))
    updates, _ = optimizer.update({"k": jnp.asarray(gradient)}, optimizer.init({"k": kernel}), {"k": kernel})
    moved = optax.apply_updates({"k": jnp.asarray(kernel)}, updates)["k"]
    step = (np.sqrt(5) * kernel / np.linalg.norm(kernel) - moved).reshape(27, 5) / 0.1
    inner = left.T @ step @ right
    assert np.allclose(inner - np.diag(np.diag(inner)), 0, atol=1e-4)
    assert np.all((np.diag(inner)[:3] > 0.6) & (np.diag(inner)[:3] < 1.3)) and np.all(np.diag(inner) > 0.2)


def test_the_loss_is_cross_entropy_with_smoothed_labels():
    logits = RNG.normal(size=(3, 4)).astype(np.float32)
    labels = np.int32([0, 3, 1])
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -0.8 * logs[np.arange(3), labels] - 0.2 * logs.mean(axis=1)
    assert np.allclose(training.loss_of(jnp.asarray(logits), labels), expected, rtol=1e-5)


def test_a_plan_suits_the_number_of_images():
    many, few = (Dataset(np.zeros((n, 8, 8, 1), np.uint8), np.zeros(n, np.int32), ("a",)) for n in (50_000, 1_000))
    assert training.plan_for(many, None, True, 0) == training.Plan(14, 2000, True, 0)
    assert training.plan_for(few, None, True, 0) == training.Plan(30, 128, True, 0)
    assert training.plan_for(few, 3, True, 0).epochs == 3


def test_it_learns_and_goes_on_from_the_middle_as_if_it_had_not_been_interrupted():
    plan, dataset = training.Plan(epochs=12, batch_size=32, flip=False, seed=0), bars(128)
    description = training.describe(plan, dataset, "bars")._replace(widths=(8, 8))
    network = description.network
    start = training.create(description, plan, dataset.images)
    states = []
    for step, (state, _) in enumerate(training.fit(plan, network, dataset, start)):
        if step == 9:
            states.append(jax.tree.map(np.array, state))
    others = bars(60)
    assert np.mean(training.predicted(network, state.variables, others.images) == others.labels) > 0.9
    *_, (again, _) = training.fit(plan, network, dataset, jax.tree.map(jnp.asarray, states[0]))
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(again), strict=True):
        assert np.array_equal(a, b)
