import functools

import jax
import numpy as np
import pytest
import scipy.stats

from spatial_smoothing.data import shapes
from spatial_smoothing.data.corruption import perturbations, transforms
from spatial_smoothing.data.corruption.transforms import noise

# All batches have one size, since each further one would be compiled.
IMAGES, _ = shapes.generate("test", size=8)
FLAT = np.full_like(IMAGES, 128)


def corrupt(images, name, severity, *, seed=0, **options):
    key = jax.random.key(seed)
    return np.asarray(transforms.corrupt(key, images, name, severity, **options))


def truncated(values):
    return np.floor(255 * np.clip(values, 0, 1) + 1e-9).astype(np.uint8)


def test_names_are_those_of_the_files():
    names = (
        "gaussian_noise shot_noise impulse_noise defocus_blur glass_blur motion_blur"
    )
    names += " zoom_blur snow frost fog brightness contrast elastic_transform pixelate"
    assert [*names.split(), "jpeg_compression"] == [*transforms.NAMES]
    extra = {"speckle_noise", "gaussian_blur", "spatter", "saturate"}
    assert {*transforms.EXTRA} == extra
    assert not extra & {*transforms.NAMES}


def test_those_that_are_not_the_official_ones_say_so():
    expected = {"motion_blur": "emulated", "snow": "emulated", "frost": "procedural"}
    assert expected == transforms.DEVIATIONS


@pytest.mark.parametrize("name", transforms.CORRUPTIONS)
def test_an_image_is_corrupted_alike_in_any_batch(name):
    batch = corrupt(IMAGES, name, 3)
    assert batch.shape == (8, 32, 32, 3)
    assert batch.dtype == np.uint8
    later = corrupt(np.roll(IMAGES, -5, axis=0), name, 3, numbers=5 + np.arange(8))
    np.testing.assert_array_equal(later[:3], batch[5:])


def test_an_image_is_corrupted_alike_alone():
    for name in ("gaussian_noise", "motion_blur"):
        batch = corrupt(IMAGES, name, 3)
        alone = corrupt(IMAGES[3:4], name, 3, numbers=[3])
        np.testing.assert_array_equal(alone[0], batch[3])


RANDOM = "gaussian_noise shot_noise impulse_noise glass_blur motion_blur snow frost fog"
RANDOM = [*RANDOM.split(), "elastic_transform", "speckle_noise", "spatter"]


@pytest.mark.parametrize("name", transforms.CORRUPTIONS)
def test_the_key_decides_and_only_where_there_is_chance(name):
    same = np.broadcast_to(IMAGES[:1], IMAGES.shape).copy()
    first, again, other = (corrupt(same, name, 3, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    is_random = name in RANDOM
    assert np.any(first != other) == is_random
    assert np.any(first[0] != first[1]) == is_random


# The constants of the others do not all grow in one direction.
MIXED = {"glass_blur", "frost", "elastic_transform", "saturate"}
GROWING = {*transforms.CORRUPTIONS} - MIXED


@pytest.mark.parametrize("name", sorted(GROWING))
def test_severities_move_away_from_the_image(name):
    severities = (1, 3) if name == "spatter" else (1, 3, 5)  # spatter: 4 and 5 are mud
    changes = [
        np.abs(corrupt(IMAGES, name, severity).astype(float) - IMAGES).mean()
        for severity in severities
    ]
    assert changes[0] > 0.1
    assert np.all(np.diff(changes) > 0), changes


def test_errors_name_the_choices():
    with pytest.raises(ValueError, match="'gaussian_nois'; did you mean 'gaussian_n"):
        corrupt(IMAGES, "gaussian_nois", 1)
    with pytest.raises(ValueError, match="unknown severity '6'; choices: 1, 2, 3, 4"):
        corrupt(IMAGES, "fog", 6)
    with pytest.raises(ValueError, match="unknown severity '0'"):
        corrupt(IMAGES, "fog", 0)
    with pytest.raises(ValueError, match="choices: cifar, imagenet"):
        corrupt(IMAGES, "fog", 1, constants="tiny")
    with pytest.raises(ValueError, match=r"uint8\[B, H, H, 3\], not float32\[8, 32"):
        corrupt(IMAGES.astype(np.float32), "fog", 1)
    with pytest.raises(ValueError, match=r"not uint8\[8, 30, 32, 3\]"):
        corrupt(IMAGES[:, :30], "fog", 1)
    with pytest.raises(ValueError, match=r"not uint8\[32, 32, 3\]"):
        corrupt(IMAGES[0], "fog", 1)
    wide = np.zeros((1, 128, 128, 3), np.uint8)
    with pytest.raises(ValueError, match="frost is made for images of less than 102"):
        corrupt(wide, "frost", 1)


@pytest.mark.parametrize("name", ["glass_blur", "zoom_blur", "snow", "frost", "fog"])
def test_imagenet_constants_serve_large_images(name):
    image = IMAGES[:1].repeat(2, axis=1).repeat(2, axis=2)[:, :48, :48]
    result = corrupt(image, name, 3, constants="imagenet")
    assert result.shape == image.shape
    assert np.abs(result.astype(float) - image).mean() > 1


def test_imagenet_elastic_constants_are_in_units_of_244_pixels():
    values = transforms.constants_of("elastic_transform", 1, constants="imagenet")
    np.testing.assert_allclose(values, (488, 170.8, 24.4))


@pytest.mark.parametrize(("severity", "sigma"), [(1, 0.04), (5, 0.10)])
def test_gaussian_noise_is_normal(severity, sigma):
    noise = (corrupt(FLAT, "gaussian_noise", severity) + 0.5 - 128) / 255
    assert abs(noise.mean()) < 4 * sigma / np.sqrt(noise.size)
    # Truncation to 8 bits widens the noise by a uniform error.
    expected = np.sqrt(sigma**2 + 1 / 12 / 255**2)
    np.testing.assert_allclose(noise.std(), expected, rtol=0.02)
    dither = np.random.default_rng(0).uniform(-0.5, 0.5, noise.shape) / 255
    normal = scipy.stats.norm(scale=expected).cdf
    test = scipy.stats.kstest((noise + dither).ravel(), normal)
    assert test.pvalue > 1e-3


def test_speckle_noise_is_proportional_to_the_value():
    levels = np.array([0, 40, 80], np.uint8)  # per channel
    images = np.broadcast_to(levels, FLAT.shape).copy()
    noise = corrupt(images, "speckle_noise", 5) - images.astype(float) + 0.5
    assert np.all(noise[..., 0] == 0.5)
    deviations = noise.std(axis=(0, 1, 2))
    np.testing.assert_allclose(deviations[1:], 0.2 * levels[1:], rtol=0.03)


@pytest.mark.parametrize(("severity", "photons"), [(1, 500), (5, 50)])
@pytest.mark.parametrize("level", [3, 128, 250])
def test_shot_noise_is_poisson(severity, photons, level):
    images = np.full_like(FLAT, level)
    noisy = corrupt(images, "shot_noise", severity).ravel()
    counts = np.arange(photons + 400)
    grey = truncated(counts / photons)
    masses = scipy.stats.poisson.pmf(counts, photons * level / 255)
    expected = np.bincount(grey, masses, minlength=256) * noisy.size
    observed = np.bincount(noisy, minlength=256)
    assert np.all(observed[expected == 0] == 0)
    often = expected > 5
    rest = observed[~often].sum(), expected[~often].sum()
    chi = np.sum((observed - expected)[often] ** 2 / expected[often])
    chi += (rest[0] - rest[1]) ** 2 / max(rest[1], 1)
    assert scipy.stats.chi2.sf(chi, often.sum()) > 1e-3


SHOT_NOISE = transforms.CORRUPTIONS["shot_noise"]
PHOTONS = {photons for (photons,) in (*SHOT_NOISE.cifar, *SHOT_NOISE.imagenet)}
PHOTONS.add(700)  # of the perturbation


@pytest.mark.parametrize("photons", sorted(PHOTONS))
def test_tables_of_shot_noise_are_poisson(photons):
    keep, alias = (table.astype(float) for table in noise.poisson_tables(photons))
    counts = np.arange(photons + 1)
    for level in (0, 1, 15, 77, 128, 254, 255):
        # A slot is drawn uniformly, and gives its own count or its alias.
        found = keep[level].copy()
        np.add.at(found, alias[level].astype(int), 1 - keep[level])
        found /= photons + 1
        mean = photons * level / 255
        expected = scipy.stats.poisson.pmf(counts, mean)
        expected[-1] = scipy.stats.poisson.sf(photons - 1, mean)  # and all above
        np.testing.assert_allclose(found, expected, atol=1e-6)
        if expected[-1] < 1e-9:  # so few are above that mean and variance are known
            np.testing.assert_allclose(found @ counts, mean, rtol=1e-4, atol=1e-6)
            variance = found @ (counts - mean) ** 2
            np.testing.assert_allclose(variance, mean, rtol=2e-3, atol=1e-6)


def test_shot_noise_leaves_black_alone():
    assert np.all(corrupt(np.zeros_like(FLAT), "shot_noise", 1) == 0)


def test_impulse_noise_replaces_values_by_black_and_white():
    noisy = corrupt(FLAT, "impulse_noise", 5)
    shares = [np.mean(noisy == value) for value in (0, 255)]
    np.testing.assert_allclose(shares, 0.035, rtol=0.1)
    assert np.mean(noisy == 128) == 1 - sum(shares)
    # Values change on their own, not whole pixels.
    changed = noisy != 128
    np.testing.assert_allclose(changed.all(axis=-1).mean(), 0.07**3, atol=1e-3)


def program(function, *arguments):
    """The computation of a function, as it is before it is compiled."""
    return str(jax.make_jaxpr(function)(*arguments))


PROGRAMS = {
    **{
        f"{name} {severity}": functools.partial(
            transforms.corrupt, name=name, severity=severity
        )
        for name in transforms.CORRUPTIONS
        for severity in (3, 5)
    },
    **{
        f"{name} sequence": functools.partial(perturbations.sequence, name=name)
        for name in perturbations.NAMES
    },
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_types_do_not_depend_on_jaxs_settings(name):
    arguments = jax.random.key(0), np.zeros((1, 32, 32, 3), np.uint8)
    with jax.enable_x64(True):
        assert "f64[" not in program(PROGRAMS[name], *arguments)
    with jax.numpy_dtype_promotion("strict"):
        program(PROGRAMS[name], *arguments)
