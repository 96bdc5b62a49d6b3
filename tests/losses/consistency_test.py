"""Consistency regularizers against NumPy, and their views against what they promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from cgan_jax import parallel
from cgan_jax.data.batches import Batch
from cgan_jax.errors import UsageError
from cgan_jax.losses import consistency, terms
from cgan_jax.losses.terms import Pass, with_views
from cgan_jax.networks.heads import Output
from tests.replicas import FEW_WAYS, on_replicas

SHAPE = (8, 16, 2)  # moves of up to 1 and 2 pixels at a share of 1/8
IMAGES = np.random.default_rng(0).normal(size=(64, *SHAPE)).astype(np.float32)
LABELS = np.arange(64, dtype=np.int32) % 3
TABLE = consistency.DISCRIMINATOR | consistency.GENERATOR


def candidates(image: np.ndarray, most: tuple[int, int]) -> dict[tuple[bool, int, int], np.ndarray]:
    """All possible twins, by (mirrored, rows, columns), through np.pad."""
    rows, columns = most
    padded = np.pad(image, [(rows, rows), (columns, columns), (0, 0)], mode="reflect")
    height, width = image.shape[:2]
    windows = {
        (i, j): padded[i + rows : i + rows + height, j + columns : j + columns + width]
        for i in range(-rows, rows + 1)
        for j in range(-columns, columns + 1)
    }
    return {(flip, i, j): w[:, ::-1] if flip else w for (i, j), w in windows.items() for flip in (False, True)}


def moves(images, twins, most):
    """The (mirrored, rows, columns) that made each twin from its image."""
    found = []
    for image, twin in zip(images, twins, strict=True):
        (move,) = [move for move, candidate in candidates(image, most).items() if np.array_equal(candidate, twin)]
        found.append(move)
    return found


def test_a_twin_is_its_image_mirrored_or_not_and_moved_with_its_border_reflected():
    found = moves(IMAGES, consistency.twins(jax.random.key(0), IMAGES, 0.125), (1, 2))
    assert len(set(found)) > 20  # of 30


def test_twins_move_by_no_more_than_the_share_and_further_if_asked():
    found = moves(IMAGES[:16], consistency.twins(jax.random.key(0), IMAGES[:16], 0.1), (0, 1))
    assert {i for _, i, _ in found} == {0}
    assert len(set(moves(IMAGES[:16], consistency.twins(jax.random.key(0), IMAGES[:16], 0.25), (2, 4)))) > 12


@pytest.mark.parametrize("shift", [-0.1, 1.0])
def test_a_shift_out_of_the_image_is_refused(shift):
    with pytest.raises(UsageError, match="must be at least 0 and less than 1, given"):
        consistency.consistency(shift)


def test_every_move_is_as_likely_as_any_other():
    images = np.broadcast_to(IMAGES[:1], (3000, *SHAPE))
    twins = np.asarray(jax.jit(consistency.twins, static_argnums=2)(jax.random.key(1), images, 0.125))
    by_pixels = {candidate.tobytes(): move for move, candidate in candidates(IMAGES[0], (1, 2)).items()}
    counts = dict.fromkeys(by_pixels.values(), 0)
    for twin in twins:
        counts[by_pixels[twin.tobytes()]] += 1
    assert len(counts) == 30 and scipy.stats.chisquare(list(counts.values())).pvalue > 0.01


def generate(latents, labels):
    """Images whose every number is the latents' sum, times the label's."""
    return jnp.broadcast_to((jnp.sum(latents, axis=1) * (labels + 1))[:, None, None, None], (latents.shape[0], 4, 4, 1))


def discriminate(images, labels):
    weights = jnp.asarray(np.random.default_rng(5).normal(size=images.shape[1:]), jnp.float32)
    return Output(jnp.sum(jnp.sin(images) * weights[None], axis=(1, 2, 3)) + labels, {})


def evaluated(term, batches, memory=(), step=0):
    """The term's batches with its views, its values and its memory."""
    seen = term.views(jax.random.key(3), batches, generate)
    seen = {**batches, **seen}
    outputs = {name: discriminate(seen[name].images, seen[name].labels) for name in term.reads}
    passed = Pass(seen, outputs, discriminate, generate, memory, jax.random.key(4), jnp.int32(step))
    return seen, *term.value(passed)


@pytest.mark.parametrize(("name", "of"), [("consistency", "real"), ("consistency_fake", "fake")])
def test_consistency_is_the_squared_difference_between_an_image_and_its_twin(name, of):
    batches = {of: Batch(jnp.asarray(IMAGES), jnp.asarray(LABELS))}
    seen, values, memory = evaluated(TABLE[name](), batches)
    twin = seen[f"{of}/twin"]
    assert set(TABLE[name]().reads) == {of, f"{of}/twin"} and memory == ()
    assert len(set(moves(IMAGES, np.asarray(twin.images), (1, 2)))) > 20
    np.testing.assert_array_equal(twin.labels, LABELS)
    weights = np.random.default_rng(5).normal(size=SHAPE).astype(np.float32).astype(np.float64)
    logits = [np.sum(np.sin(x.astype(np.float64)) * weights, axis=(1, 2, 3)) for x in (IMAGES, np.asarray(twin.images))]
    np.testing.assert_allclose(values, (logits[0] - logits[1]) ** 2, rtol=1e-4, atol=1e-6)


def latent_batch(n=2000):
    latents = np.random.default_rng(2).normal(size=(n, 3)).astype(np.float32)
    labels = np.arange(n, dtype=np.int32) % 3
    return {"fake": Batch(generate(latents, labels), jnp.asarray(labels), jnp.asarray(latents))}


@pytest.mark.parametrize("sigma", [0.05, 0.5])
def test_near_latents_are_normal_about_their_own(sigma):
    batches = latent_batch()
    seen, _, _ = evaluated(consistency.latent_consistency(sigma), batches)
    fake, near = batches["fake"], seen["fake/near"]
    moved = np.asarray(near.latents - fake.latents)
    assert scipy.stats.kstest(moved.ravel() / sigma, "norm").pvalue > 0.01
    np.testing.assert_array_equal(near.labels, fake.labels)
    np.testing.assert_allclose(near.images, generate(near.latents, near.labels), rtol=1e-6)


def test_latent_consistency_is_the_squared_difference_of_the_logits_and_diversity_minus_that_of_the_images():
    batches = latent_batch(8)
    seen, values, _ = evaluated(consistency.latent_consistency(), batches)
    fake, near = (np.asarray(seen[name].images, np.float64) for name in ("fake", "fake/near"))
    weights = np.random.default_rng(5).normal(size=(4, 4, 1)).astype(np.float32).astype(np.float64)
    differences = np.sum((np.sin(fake) - np.sin(near)) * weights, axis=(1, 2, 3))
    np.testing.assert_allclose(values, differences**2, rtol=1e-3, atol=1e-8)  # differences of 0.05 between float32 sums
    term = consistency.latent_diversity()
    assert term.reads == () and set(term.images) == {"fake", "fake/near"}
    seen, values, _ = evaluated(term, batches)
    np.testing.assert_allclose(values, -np.mean((fake - near) ** 2, axis=(1, 2, 3)), rtol=1e-4)


def test_the_generator_is_led_by_both_of_its_images():
    """With images t (z + e), the term is -t^2 e^2 and its slope -2 t e^2."""
    latents, labels = np.ones((4, 3), np.float32), np.zeros(4, np.int32)

    def mean(t):
        def scaled(latents, labels):
            return t * generate(latents, labels)

        batches = {"fake": Batch(scaled(latents, labels), labels, latents)}
        term = consistency.latent_diversity()
        seen = {**batches, **term.views(jax.random.key(3), batches, scaled)}
        return jnp.mean(term.value(Pass(seen, {}, None, scaled, (), jax.random.key(0), jnp.int32(0)))[0])

    at_one, slope = jax.value_and_grad(mean)(1.0)
    assert at_one < 0
    np.testing.assert_allclose(slope, 2 * at_one, rtol=1e-4)


def lecam(term, real, fake, memory, step):
    batches = {name: Batch(jnp.zeros((len(real), 1, 1, 1)), None) for name in ("real", "fake")}
    outputs = {"real": Output(jnp.float32(real), {}), "fake": Output(jnp.float32(fake), {})}
    return term.value(Pass(batches, outputs, None, None, memory, jax.random.key(0), jnp.int32(step)))


def test_lecam_is_the_squared_excess_over_the_moving_averages():
    term = consistency.lecam(decay=0.9)
    assert set(term.reads) == {"real", "fake"}
    real, fake = np.array([2.0, -1.0, 0.5]), np.array([-0.5, 1.5, 0.0])
    memory = {"real": jnp.float32(1.0), "fake": jnp.float32(0.25)}
    values, memory = lecam(term, real, fake, memory, step=1)
    np.testing.assert_allclose(values, np.maximum(real - 0.25, 0) ** 2 + np.maximum(1.0 - fake, 0) ** 2, rtol=1e-6)
    np.testing.assert_allclose(memory["real"], 0.9 * 1.0 + 0.1 * 0.5, rtol=1e-6)
    np.testing.assert_allclose(memory["fake"], 0.9 * 0.25 + 0.1 / 3, rtol=1e-6)


def test_lecam_is_0_until_it_starts_and_its_averages_are_the_last_means():
    term = consistency.lecam(decay=0.9, start_kimg=0.03)  # updates 0 to 10 at 3 images each
    memory = {"real": jnp.float32(5.0), "fake": jnp.float32(-5.0)}
    for step in (0, 10):
        values, kept = lecam(term, [2.0, 0.0, 1.0], [0.0, -1.0, -2.0], memory, step)
        np.testing.assert_array_equal(values, np.zeros(3))
        np.testing.assert_allclose([kept["real"], kept["fake"]], [1.0, -1.0], rtol=1e-6)
    values, kept = lecam(term, [2.0, 0.0, 1.0], [0.0, -1.0, -2.0], memory, 11)
    assert np.all(values > 0)
    np.testing.assert_allclose(kept["real"], 0.9 * 5 + 0.1, rtol=1e-6)


@pytest.mark.parametrize("way", [*FEW_WAYS, ("shard_map", 4)], ids=str)
def test_views_and_lecams_averages_do_not_depend_on_the_number_of_replicas(way):
    section = {name: {"weight": 1.0} for name in consistency.DISCRIMINATOR}
    listed = terms.from_recipe(section, consistency.DISCRIMINATOR)

    def run(images, labels, latents):
        n = 8 // parallel.count()
        own = parallel.index() * n
        images, labels, latents = (jax.lax.dynamic_slice_in_dim(x, own, n) for x in (images, labels, latents))
        batches = {"real": Batch(images, labels), "fake": Batch(generate(latents, labels), labels, latents)}
        seen = with_views(listed, jax.random.key(0), batches, generate)
        assert set(seen) == {"real", "fake", "real/twin", "fake/twin", "fake/near"}
        logits = {name: discriminate(seen[name].images, labels).logits for name in ("real", "fake")}
        outputs = {name: Output(x, {}) for name, x in logits.items()}
        zero = {"real": jnp.zeros(()), "fake": jnp.zeros(())}
        passed = Pass(seen, outputs, None, None, zero, None, jnp.int32(3))
        _, memory = consistency.lecam(start_kimg=0.02).value(passed)
        return {name: seen[name].images for name in seen}, parallel.mean(memory)

    arguments = IMAGES[:8, :4, :4, :1], LABELS[:8], np.asarray(latent_batch(8)["fake"].latents)
    views, memory = on_replicas(way, run, *arguments)
    expected_views, expected_memory = on_replicas(("alone", 1), run, *arguments)
    for name, images in views.items():
        np.testing.assert_allclose(images.reshape(8, 4, 4, 1), expected_views[name][0], rtol=1e-5, err_msg=name)
    for name, average in memory.items():
        np.testing.assert_allclose(average, [expected_memory[name][0]] * way[1], rtol=1e-5, err_msg=name)


def test_every_term_is_tested_here():
    assert set(consistency.DISCRIMINATOR) == {"consistency", "consistency_fake", "latent_consistency", "lecam"}
    assert set(consistency.GENERATOR) == {"latent_diversity"}
