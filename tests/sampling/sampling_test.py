"""Images by seed, class and index."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from cgan_jax import build, train_state
from cgan_jax.errors import UsageError
from cgan_jax.networks.architectures.dcgan import Generator
from cgan_jax.run import workdir
from cgan_jax.run.checkpoint import Checkpoints
from cgan_jax.sampling import request, sampling

SPEC = build.ImageSpec(image_size=8, channels=1, num_classes=3)


@pytest.fixture(scope="module")
def generator():
    return Generator(*SPEC, latent_dim=4, width=4, embedding_dim=3, output_kernel_size=4, dtype="float32")


@pytest.fixture(scope="module")
def variables(generator):
    return random_like(jax.eval_shape(lambda: train_state.init_generator(generator, jax.random.key(0))))


@pytest.fixture(scope="module")
def sampler(generator):
    return sampling.make_sampler(generator)


def random_like(shapes):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) / 3, jnp.float32), shapes)


def ints(*values):
    return np.asarray(values, np.int32)


def test_a_latent_hangs_on_seed_label_and_index_alone():
    latents = np.asarray(sampling.latents_for(jnp.uint32(5), ints(0, 1, 1, 2), ints(0, 0, 7, 3), 6))
    assert latents.shape == (4, 6) and latents.dtype == np.float32
    for place, label, index in [(2, 1, 7), (0, 0, 0)]:
        key = jax.random.key(5)
        for number in (sampling._SAMPLES, label, index):
            key = jax.random.fold_in(key, number)
        np.testing.assert_array_equal(latents[place], jax.random.normal(key, (6,)))
    assert len({latent.tobytes() for latent in latents}) == 4
    other = np.asarray(sampling.latents_for(jnp.uint32(6), ints(0), ints(0), 6))
    assert np.all(other[0] != latents[0])


def test_latents_are_normal():
    latents = np.asarray(sampling.latents_for(jnp.uint32(0), np.zeros(1000, np.int32), np.arange(1000), 4))
    assert scipy.stats.kstest(latents.ravel(), "norm").pvalue > 0.01
    assert np.abs(np.corrcoef(latents.T) - np.eye(4)).max() < 5 / np.sqrt(1000)


def truncated(t, n=1000, first=0):
    indices = np.arange(first, first + n, dtype=np.int32)
    return np.asarray(sampling.latents_for(jnp.uint32(0), np.zeros(n, np.int32), indices, 4, t))


@pytest.mark.parametrize("t", [0.05, 0.7, 2.0])
def test_truncated_latents_are_normal_ones_that_were_drawn_until_inside(t):
    plain, latents = truncated(None), truncated(t)
    inside = np.abs(plain) <= t
    np.testing.assert_array_equal(latents[inside], plain[inside])
    assert np.abs(latents).max() <= t
    assert scipy.stats.kstest(latents.ravel(), scipy.stats.truncnorm(-t, t).cdf).pvalue > 0.01
    if t > 0.1:
        assert scipy.stats.kstest(latents[~inside], scipy.stats.truncnorm(-t, t).cdf).pvalue > 0.01
    np.testing.assert_array_equal(truncated(t, 3, first=500), latents[500:503])


def test_a_truncation_beyond_all_is_none():
    np.testing.assert_array_equal(truncated(np.float32(np.inf)), truncated(None))


@pytest.mark.parametrize(
    ("num_images", "chosen", "labels", "indices"),
    [
        (6, [4, 2], [4, 4, 4, 2, 2, 2], [0, 1, 2, 0, 1, 2]),
        (7, [0, 1, 2], [0, 0, 0, 1, 1, 2, 2], [0, 1, 2, 0, 1, 0, 1]),
        (8, [0, 1, 2], [0, 0, 0, 1, 1, 1, 2, 2], [0, 1, 2, 0, 1, 2, 0, 1]),
        (2, [5, 6, 7], [5, 6], [0, 0]),
        (1, [9], [9], [0]),
    ],
)
def test_images_are_spread_evenly_and_the_first_labels_get_the_remainder(num_images, chosen, labels, indices):
    spread = request.spread(num_images, chosen)
    np.testing.assert_array_equal(spread, [labels, indices])
    assert [part.dtype for part in spread] == [np.int32, np.int32]


def drawn(sampler, variables, num_images, batch_size, seed=3):
    labels, indices = request.spread(num_images, [0, 2])
    batches = list(sampling.draw_images(sampler, variables, seed, labels, indices, batch_size))
    assert all(batch.dtype == np.uint8 and batch.shape[1:] == (8, 8, 1) for batch in batches)
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    images = sampling.gathered(iter(batches))
    assert len(images) == num_images
    return {(int(label), int(index)): image for label, index, image in zip(labels, indices, images, strict=True)}


def test_an_image_is_the_generators_output_for_its_latents_and_label_in_grey_levels(generator, sampler, variables):
    images, (labels, indices) = drawn(sampler, variables, 4, 4).values(), request.spread(4, [0, 2])
    latents = sampling.latents_for(jnp.uint32(3), labels, indices, 4)
    outputs = np.asarray(jax.jit(generator.apply, static_argnums=3)(variables, latents, labels, False), np.float64)
    for image, expected in zip(images, (outputs + 1) * 127.5, strict=True):
        assert np.abs(image - expected).max() < 0.51
        assert image.std() > 5, "an image with nothing on it proves nothing"


@pytest.mark.parametrize(("num_images", "batch_size"), [(12, 4), (6, 6), (21, 4)])
def test_an_image_is_the_same_whatever_is_drawn_with_it(sampler, variables, num_images, batch_size):
    alone = drawn(sampler, variables, 12, 1)
    images = drawn(sampler, variables, num_images, batch_size)
    common = alone.keys() & images.keys()
    assert len(common) >= 6
    for name in common:
        assert np.abs(alone[name].astype(int) - images[name]).max() <= 1  # a grey level, where sums round differently


def test_the_largest_seed_is_a_seed_and_seeds_differ(sampler, variables):
    images = [drawn(sampler, variables, 2, 2, seed)[(0, 0)].tobytes() for seed in (0, 1, 2**31, 2**32 - 1)]
    assert len(set(images)) == 4


NAMES = ["Cat", "dog", "tree frog", "5", "crane", "crane"]


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("all", [0, 1, 2, 3, 4, 5]),
        (" ALL ", [0, 1, 2, 3, 4, 5]),
        ("3", [3]),
        ("2,0", [2, 0]),
        ("cat", [0]),
        ("Dog , TREE FROG", [1, 2]),
        ("dog,0", [1, 0]),
        ("4", [4]),
        ("4,3", [4, 3]),
        ("02", [2]),
        ("5", [3]),
        ("#5,#0", [5, 0]),
    ],
)
def test_labels_are_asked_for_by_number_or_name_in_any_case(text, labels):
    assert request.parse_labels(text, NAMES) == labels


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cow", "unknown class 'cow'; there are 6: 0 Cat, 1 dog, 2 tree frog, 3 5, 4 crane, 5 crane"),
        ("6", "unknown class '6'; there are 6: 0 Cat"),
        ("-1", "unknown class '-1'; there are 6: 0 Cat"),
        ("1.0", "unknown class '1.0'; there are 6: 0 Cat"),
        ("", "unknown class ''; there are 6: 0 Cat"),
        ("cat,", "unknown class ''; there are 6: 0 Cat"),
        ("all,cat", "unknown class 'all'; there are 6: 0 Cat"),
        ("cat,0", "class '0' is asked for twice"),
        ("dog,Dog", "class 'dog' is asked for twice"),
        ("#6", "unknown class '#6'; there are 6: 0 Cat"),
        ("5,#3", "class '#3' is asked for twice"),
        ("crane", "several classes are named 'crane'; give a number: #4, #5"),
    ],
)
def test_what_is_no_class_is_one_line(text, message):
    with pytest.raises(UsageError) as caught:
        request.parse_labels(text, NAMES)
    assert str(caught.value).startswith(message)


def test_of_many_classes_the_first_twenty_are_listed():
    with pytest.raises(UsageError, match=r"18 c18, 19 c19 and 980 more$"):
        request.parse_labels("cow", [f"c{i}" for i in range(1000)])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with checkpoints at steps 4 and 8 of a state that is all random numbers: (folder, {step: state})."""
    from tests.conftest import small_recipe

    recipe, folder = small_recipe(), tmp_path_factory.mktemp("run")
    shapes = jax.eval_shape(
        lambda: train_state.create(build.build(recipe, SPEC), SPEC, jax.random.key(0)).replace(key=jnp.zeros(2))
    )
    workdir.write_info(folder, workdir.RunInfo(recipe, SPEC.channels, ["a", "b", "c"], 100))
    checkpoints, states = Checkpoints(folder), {}
    for step in (4, 8):
        state = random_like(shapes)
        states[step] = state.replace(
            step=jnp.int32(step), ema_params=jax.tree.map(lambda x, by=step: x * by / 8, state.ema_params)
        )
        checkpoints.save(states[step])
    checkpoints.close()
    return folder, states


@pytest.mark.parametrize("step", [None, 4])
def test_a_sampler_draws_from_the_averaged_generator_of_the_step_asked_for_or_the_latest(run, sampler, step):
    folder, states = run
    restored = sampling.Sampler(folder, step, batch_size=4)
    assert restored.step == (step or 8) and restored.info.class_names == ["a", "b", "c"]
    labels, indices = request.spread(6, [0, 2])
    images = sampling.gathered(restored.images(3, labels, indices))
    state = states[step or 8]
    averaged = drawn(sampler, {"params": state.ema_params}, 6, 6)
    np.testing.assert_allclose(images.astype(int), np.stack(list(averaged.values())).astype(int), atol=1)
    latest = drawn(sampler, {"params": state.g_params}, 6, 6)
    assert np.abs(images.astype(int) - np.stack(list(latest.values()))).max() > 10


def test_a_run_is_sampled_by_all_devices_alike(run):
    restored = sampling.Sampler(run[0], batch_size=20)
    labels, indices = request.spread(21, [0, 2])
    batches = list(restored.images(3, labels, indices))
    assert [len(batch) for batch in batches] == [21], "batches are whole multiples of the 8 devices: 24"
    latents = np.asarray(restored.latents(3, labels, indices))
    for place in (0, 7, 20):
        alone = sampling.gathered(restored.images(3, labels[place : place + 1], indices[place : place + 1]))
        assert np.abs(alone[0].astype(int) - batches[0][place]).max() <= 1
        np.testing.assert_array_equal(
            latents[place],
            sampling.latents_for(jnp.uint32(3), labels[place : place + 1], indices[place : place + 1], 4)[0],
        )


def test_a_generator_without_normalisation_has_no_standing_statistics(run):
    with pytest.raises(UsageError, match="the generator of dcgan has no batch normalisation"):
        sampling.Sampler(run[0], batch_stats="standing")


def test_a_step_without_a_checkpoint_is_one_line_that_lists_the_steps(run):
    with pytest.raises(UsageError, match=r"^no checkpoint at step 5; there are: 4, 8$"):
        sampling.Sampler(run[0], 5)


def test_a_folder_without_a_run_is_one_line(tmp_path):
    with pytest.raises(UsageError, match="holds no run"):
        sampling.Sampler(tmp_path)


def test_every_class_can_be_asked_for_whatever_numbers_they_are_called():
    """Folders that other tools numbered: 0, 1, 10, 11, 2, ..."""
    names = sorted(map(str, range(12)))
    for label, name in enumerate(names):
        assert request.parse_labels(name, names) == [label], "the name wins"
        assert request.parse_labels(f"#{label}", names) == [label]


@pytest.mark.parametrize(("word", "names"), [("33", 10), ("cat", 10), ("-1", 3)])
def test_numbered_classes_are_named_by_their_range(word, names):
    with pytest.raises(UsageError) as caught:
        request.parse_labels(word, [str(label) for label in range(names)])
    assert str(caught.value) == f"unknown class {word!r}; there are {names}: 0 to {names - 1}"


def test_fewer_images_than_classes_are_told():
    assert request.uncovered(3, list(range(10)), 10) == "note: 3 images cover the first 3 of all 10 classes"
    assert request.uncovered(1, [4, 7], 10) == "note: 1 images cover the first 1 of the 2 classes"
    assert request.uncovered(10, list(range(10)), 10) == ""
