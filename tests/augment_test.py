"""Augmentation against its definitions in NumPy; when it is the identity, and that only the discriminator has it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from cgan_jax import augment, augment_probability, parallel, train_state
from cgan_jax.annealing import Annealed
from cgan_jax.build import ImageSpec, build
from cgan_jax.data.batches import Batch
from cgan_jax.errors import UsageError
from cgan_jax.losses.look import Look
from cgan_jax.networks.heads import Output
from cgan_jax.sampling import sampling
from tests.replicas import on_replicas

SHAPE = (8, 16, 3)
IMAGES = np.random.default_rng(0).uniform(-1, 1, (32, *SHAPE)).astype(np.float32)
ALL = ",".join([*augment.OPERATIONS, *augment.TOGETHER])


def applied(policy, images=IMAGES, probability=1.0, annealed=0.0, key=0):
    function = augment.from_recipe({"policy": policy})
    chance = augment_probability.fixed(probability)
    return np.asarray(jax.jit(lambda a: function(jax.random.key(key), images, chance.at({}, a)))(annealed))


def test_colors_are_moved_and_stretched_about_their_means():
    """Brightness, saturation and contrast, read back from the images, are in their ranges."""
    found = []
    for image, seen in zip(IMAGES.astype(np.float64), applied("color").astype(np.float64), strict=True):
        brightness = seen.mean() - image.mean()
        greys, seen_greys = image.mean(axis=2), seen.mean(axis=2)
        contrast = np.std(seen_greys) / np.std(greys)
        np.testing.assert_allclose(seen_greys - seen.mean(), contrast * (greys - image.mean()), atol=1e-5)
        hues, seen_hues = image - greys[..., None], seen - seen_greys[..., None]
        saturation = np.std(seen_hues) / np.std(hues) / contrast
        np.testing.assert_allclose(seen_hues, contrast * saturation * hues, atol=1e-5)
        found.append([brightness + 0.5, saturation / 2, contrast - 0.5])
    assert np.min(found) > -1e-5 and np.max(found) < 1 + 1e-5
    for share in np.array(found).T:
        assert scipy.stats.kstest(share, "uniform").pvalue > 0.01
    assert len(np.unique(found, axis=0)) == 32, "every image has its own"


def test_a_translation_moves_by_whole_pixels_and_brings_in_zeros():
    counts = {}
    for image, seen in zip(IMAGES, applied("translation"), strict=True):
        padded = np.pad(image, [(1, 1), (2, 2), (0, 0)])
        windows = {(i, j): padded[i : i + 8, j : j + 16] for i in range(3) for j in range(5)}
        (move,) = [move for move, window in windows.items() if np.array_equal(window, seen)]
        counts[move] = counts.get(move, 0) + 1
    assert len(counts) > 10  # of 15


def test_every_move_is_as_likely_as_any_other():
    one = np.zeros((3000, *SHAPE), np.float32)
    one[:, 4, 8] = 1.0
    places = np.argwhere(applied("translation", one)[..., 0] == 1.0)[:, 1:] - [4 - 1, 8 - 2]
    counts = np.zeros((3, 5))
    np.add.at(counts, tuple(places.T), 1)
    assert counts.sum() == 3000 and scipy.stats.chisquare(counts.ravel()).pvalue > 0.01


def test_a_cutout_is_a_box_of_half_the_sides_about_any_pixel():
    ones = np.ones((4000, *SHAPE), np.float32)
    seen = applied("cutout", ones)
    boxes = set()
    for image in seen:
        rows, columns = np.nonzero(image[..., 0] == 0)
        top, bottom, left, right = rows.min(), rows.max(), columns.min(), columns.max()
        assert np.all(image[top : bottom + 1, left : right + 1] == 0)
        assert np.sum(image == 0) == 3 * (bottom + 1 - top) * (right + 1 - left)
        boxes.add((top, bottom, left, right))
    # The box has 4 rows and 8 columns, half of them before its centre, which is any of 0..8 and 0..16.
    rows = {(max(0, c - 2), min(7, c + 1)) for c in range(9)}
    columns = {(max(0, c - 4), min(15, c + 3)) for c in range(17)}
    assert boxes == {(*r, *c) for r in rows for c in columns}


@pytest.mark.parametrize("policy", ["", ALL])
def test_nothing_happens_at_probability_0_or_without_a_policy(policy):
    probability = 0.0 if policy else 1.0
    np.testing.assert_array_equal(applied(policy, probability=probability), IMAGES)
    np.testing.assert_array_equal(applied(policy, probability=Annealed(0.0, probability), annealed=0.0), IMAGES)


@pytest.mark.parametrize(("policy", "share"), [("cutout", 1.0), ("cutout:0.5", 0.5)])
@pytest.mark.parametrize("annealed", [0.0, 0.5, 1.0])
def test_each_operation_happens_with_its_share_of_the_probability_which_may_be_annealed(annealed, policy, share):
    ones = np.ones((4000, *SHAPE), np.float32)
    seen = applied(policy, ones, probability=Annealed(0.2, 0.6), annealed=annealed)
    touched = np.sum(np.any(seen == 0, axis=(1, 2, 3)))
    assert scipy.stats.binomtest(int(touched), 4000, share * (0.2 + annealed * 0.4)).pvalue > 0.01


def test_an_operation_that_does_not_exist_is_one_line():
    with pytest.raises(
        UsageError, match=r"^unknown operation in augment.policy 'blur'; there are: color, trans.*saturation$"
    ):
        augment.from_recipe({"policy": "color, blur"})


@pytest.mark.parametrize("share", ["0", "1.5", "half", "nan", ""])
def test_a_share_is_a_number_up_to_1(share):
    with pytest.raises(UsageError, match=rf"^the share of hue in augment.policy must be above 0 .* given '{share}'$"):
        augment.from_recipe({"policy": f"color, hue:{share}"})


@pytest.mark.parametrize("policy", [*augment.OPERATIONS, ",".join(augment.OPERATIONS)])
def test_gradients_flow_through(policy):
    """Against differences: each operation is linear in the image, except for the constant that brightness adds."""
    function = augment.from_recipe({"policy": policy})
    weights = np.random.default_rng(1).normal(size=(4, *SHAPE)).astype(np.float32)

    def scored(images):
        return jnp.sum(function(jax.random.key(1), images, 1.0) * weights)

    gradient = np.asarray(jax.jit(jax.grad(scored))(IMAGES[:4]), np.float64)
    for direction in np.random.default_rng(2).normal(size=(3, 4, *SHAPE)).astype(np.float32):
        change = scored(IMAGES[:4] + direction) - scored(IMAGES[:4])
        np.testing.assert_allclose(np.sum(gradient * direction), change, rtol=1e-4, atol=1e-3)
    assert np.abs(gradient).max() > 0.1


@pytest.mark.parametrize("way", [("shard_map", 4), ("pmap", 8)], ids=str)
def test_the_same_image_is_treated_alike_however_many_replicas_there_are(way):
    function = augment.from_recipe({"policy": "translation,xfrac,hue"})

    def run(images):
        n = 16 // parallel.count()
        own = jax.lax.dynamic_slice_in_dim(images, parallel.index() * n, n)
        return function(jax.random.key(2), own, 0.5)

    seen = np.asarray(on_replicas(way, run, IMAGES[:16])).reshape(16, *SHAPE)
    alone = np.asarray(jax.jit(function)(jax.random.key(2), IMAGES[:16], 0.5))
    np.testing.assert_allclose(seen, alone, atol=1e-6)
    assert not np.array_equal(alone, IMAGES[:16])


SPEC = ImageSpec(image_size=8, channels=1, num_classes=10)


def test_reals_and_fakes_are_augmented_for_both_players_and_under_r1(recipe):
    """A discriminator that counts black pixels shows what it sees: only a cutout makes them."""
    recipe["augment"] = {"policy": "cutout", "probability": 1.0}
    algorithm = build(recipe, SPEC)

    class Counting:
        couples_samples = False

        def apply(self, variables, images, labels, train, rngs, mutable):
            return Output(jnp.sum(images == 0, axis=(1, 2, 3)).astype(jnp.float32), {}), {}

    algorithm = algorithm._replace(discriminator=Counting())
    batch = Batch(jnp.ones((6, 8, 8, 1)), jnp.zeros(6, jnp.int32))
    look = Look(algorithm.discriminator, algorithm.augment, jax.random.key(1), jax.random.key(2), 1.0)

    @jax.jit
    def looked():
        outputs, _ = look.outputs({}, {}, {"real": batch, "fake": batch}, update_stats=False)
        return outputs, look.discriminate({}, {})(batch.images, batch.labels)

    outputs, alone = looked()
    for output in (*outputs.values(), alone):
        assert np.all(np.asarray(output.logits) >= 16 / 4) and len(np.unique(output.logits)) > 1
    assert np.any(outputs["real"].logits != outputs["fake"].logits), "each image its own"


def test_samples_are_never_augmented(recipe, monkeypatch):
    """Sampling does not use the recipe's augmentation: it works with one that cannot be called."""

    def refuse(key, image):
        raise AssertionError("augmented")

    monkeypatch.setattr(augment, "OPERATIONS", {"cutout": refuse})
    recipe["augment"] = {"policy": "cutout", "probability": 1.0}
    algorithm = build(recipe, SPEC)
    with pytest.raises(AssertionError, match="augmented"):
        algorithm.augment(jax.random.key(0), IMAGES, 1.0)
    variables = jax.jit(lambda: train_state.init_generator(algorithm.generator, jax.random.key(0)))()
    labels, indices = np.zeros(4, np.int32), np.arange(4, dtype=np.int32)
    drawn = sampling.make_sampler(algorithm.generator)(variables, np.uint32(0), labels, indices)
    assert drawn.shape == (4, 8, 8, 1)
