"""MS-SSIM against scikit-image's map at each scale, and what it says of a class."""

import numpy as np
import pytest

from cgan_jax.evaluation.metrics import Sample, ms_ssim

RNG = np.random.default_rng(0)
REASON = "the extra [reference] brings scikit-image, to compare with"
SMOOTH = np.kron(RNG.integers(0, 256, (12, 8, 8, 3)), np.ones((1, 4, 4, 1)))


def noisy(images, scale):
    return np.uint8(np.clip(images + scale * RNG.standard_normal(images.shape), 0, 255))


IMAGES, OTHERS = noisy(SMOOTH, 20), noisy(SMOOTH, 40)


def references(x, y):
    """scikit-image's mean of a channel's map where the window fits, and that part of its map."""
    metrics = pytest.importorskip("skimage.metrics", reason=REASON)
    options = {"use_sample_covariance": False, "data_range": 255, "full": True, "gaussian_weights": True, "sigma": 1.5}
    mean, full = metrics.structural_similarity(x.astype(np.float64), y.astype(np.float64), **options)
    return mean, full[5:-5, 5:-5]


def ssim_by_hand(x, y, window):
    """Wang et al. (2004), eq. 13 to 17, a window at a time, on a channel [H, W]."""
    taps = np.exp(-((np.arange(window) - window // 2) ** 2) / (2 * 1.5**2))
    weights = np.outer(taps, taps).ravel()
    values = []
    for i, j in np.ndindex(*(side - window + 1 for side in x.shape)):
        patches = np.stack([z[i : i + window, j : j + window].ravel().astype(np.float64) for z in (x, y)])
        mean_x, mean_y = np.average(patches, axis=1, weights=weights)
        (variance_x, covariance), (_, variance_y) = np.cov(patches, aweights=weights, ddof=0)
        values.append((2 * mean_x * mean_y + 6.5025) * (2 * covariance + 58.5225))
        values[-1] /= (mean_x**2 + mean_y**2 + 6.5025) * (variance_x + variance_y + 58.5225)
    return np.mean(values)


def channels_first(images):
    return np.moveaxis(images.astype(np.float64), -1, 1)


def test_the_map_of_one_scale_is_scikit_images():
    luminances, contrasts = ms_ssim.ssim_maps(channels_first(IMAGES), channels_first(OTHERS))
    assert luminances.shape == (12, 3, 22, 22)
    for n, c in np.ndindex(12, 3):
        _, expected = references(IMAGES[n, :, :, c], OTHERS[n, :, :, c])
        np.testing.assert_allclose(luminances[n, c] * contrasts[n, c], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("side", "window"), [(4, 3), (5, 5), (8, 7), (10, 9), (15, 11)])
def test_small_images_are_one_scale_with_the_largest_odd_window(side, window):
    x, y = IMAGES[:3, :side, :side], OTHERS[:3, :side, :side]
    pairs = zip(x, y, strict=True)
    expected = [np.mean([max(ssim_by_hand(a[..., c], b[..., c], window), 0) for c in range(3)]) for a, b in pairs]
    np.testing.assert_allclose(ms_ssim.ms_ssim(x, y), expected, rtol=1e-9)


def test_two_scales_by_hand():
    """Contrast and structure of the whole image, all of SSIM of the halved one, weights 0.0448 and 0.2856."""
    halved_x, halved_y = (
        (z[:, ::2, ::2] + z[:, 1::2, ::2] + z[:, ::2, 1::2] + z[:, 1::2, 1::2]) / 4
        for z in (IMAGES.astype(np.float64), OTHERS.astype(np.float64))
    )
    for n in range(4):
        values = []
        for c in range(3):
            luminance, _ = ms_ssim.ssim_maps(*(channels_first(z[n : n + 1, :, :, c : c + 1]) for z in (IMAGES, OTHERS)))
            _, whole = references(IMAGES[n, :, :, c], OTHERS[n, :, :, c])
            mean, _ = references(halved_x[n, :, :, c], halved_y[n, :, :, c])
            values.append(np.mean(whole / luminance[0, 0]) ** (0.0448 / 0.3304) * mean ** (0.2856 / 0.3304))
        assert ms_ssim.ms_ssim(IMAGES[n : n + 1], OTHERS[n : n + 1]) == pytest.approx(np.mean(values), rel=1e-9)


@pytest.mark.parametrize(
    ("side", "scales"), [(1, 1), (8, 1), (21, 1), (22, 2), (28, 2), (32, 2), (64, 3), (128, 4), (176, 5), (512, 5)]
)
def test_the_number_of_scales(side, scales):
    assert ms_ssim._scales(side) == scales


def test_an_image_is_like_itself_whatever_its_size():
    for shape in ((3, 32, 32, 3), (2, 8, 8, 1), (2, 28, 28, 1), (1, 33, 47, 2), (1, 4, 1, 1), (1, 176, 180, 1)):
        images = RNG.integers(0, 256, shape, dtype=np.uint8)
        np.testing.assert_allclose(ms_ssim.ms_ssim(images, images), 1, rtol=1e-12)
    assert np.allclose(ms_ssim.ms_ssim(np.zeros((1, 32, 32, 1), np.uint8), np.zeros((1, 32, 32, 1), np.uint8)), 1)


def test_more_noise_is_less_alike_and_an_inverted_image_not_at_all():
    values = [ms_ssim.ms_ssim(IMAGES, noisy(IMAGES, scale)).mean() for scale in (5, 20, 80)]
    assert 1 > values[0] > values[1] > values[2] > 0
    assert np.all(ms_ssim.ms_ssim(IMAGES, 255 - IMAGES) == 0)


def test_a_class_of_one_image_is_1_and_a_varied_one_far_below():
    labels = np.int32([0] * 8 + [1] * 12)
    images = np.concatenate([IMAGES[:1].repeat(8, axis=0), RNG.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)])
    found = ms_ssim.compute(Sample(labels, images), None, ("cat", "dog"))
    assert found["ms_ssim/cat"] == pytest.approx(1, rel=1e-12) and found["ms_ssim/dog"] < 0.2
    assert found["ms_ssim"] == pytest.approx((found["ms_ssim/cat"] + found["ms_ssim/dog"]) / 2)
    assert ms_ssim.compute(Sample(labels[:8], images[:8]), None, ("all",)).keys() == {"ms_ssim"}


def test_few_images_are_paired_in_all_ways_and_many_at_random():
    first, second = ms_ssim.pairs(5, np.random.default_rng(0))
    assert sorted(zip(first.tolist(), second.tolist(), strict=True)) == [
        (a, b) for a in range(5) for b in range(a + 1, 5)
    ]
    for count in (65, 1000):
        first, second = ms_ssim.pairs(count, np.random.default_rng(0))
        assert len(first) == len(second) == 2000 and not np.any(first == second)
    assert min(first.min(), second.min()) < 5 and max(first.max(), second.max()) > 994
    assert len(np.unique(first)) > 800
    again = ms_ssim.pairs(1000, np.random.default_rng(0))
    assert np.array_equal(again, (first, second))
