import functools
import math

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spatial_smoothing import models, ops
from spatial_smoothing.analysis import features, fourier, frequency
from spatial_smoothing.data import batches

KEY = jax.random.key(0)
scaled = lambda images: images.astype(jnp.float32) / 64 - 2


@pytest.mark.parametrize("tag", ["8", "7", "9"])
def test_spectra_equal_the_reference(x64, tag):
    reference = golden.arrays("maps")
    maps = reference[f"x{tag}"].transpose(0, 2, 3, 1)
    spectrum = np.asarray(fourier.log_amplitude(maps).mean((0, 3)))
    np.testing.assert_allclose(spectrum, reference[f"map{tag}"], atol=1e-9)
    _, values = fourier.diagonal(spectrum)
    np.testing.assert_allclose(values, reference[f"diag{tag}"], atol=1e-9)
    np.testing.assert_allclose(
        fourier.delta(values), reference[f"delta{tag}"], atol=1e-9
    )
    clipped = np.asarray(fourier.log_amplitude(maps, clip=True).mean((0, 3)))
    _, values = fourier.diagonal(clipped)
    np.testing.assert_allclose(values, reference[f"clip{tag}"], atol=2e-6)


@pytest.mark.parametrize("size", [8, 9])
def test_a_box_blur_has_the_response_of_its_closed_form(x64, size):
    """cos(u / 2) cos(v / 2), exactly so where the map wraps around."""
    x = np.random.default_rng(0).normal(size=(1, size, size, 2))
    blurred = ops.blur(x, (1, 1), padding="wrap")
    change = fourier.log_amplitude(blurred) - fourier.log_amplitude(x)
    w = 2 * np.pi * np.fft.fftshift(np.fft.fftfreq(size))
    response = np.cos(w[:, None] / 2) * np.cos(w[None] / 2)
    seen = response > 1e-3  # nothing is left at pi
    expected = np.log(response, where=seen, out=np.zeros_like(response))
    np.testing.assert_allclose(
        np.asarray(change)[0, seen, 0], expected[seen], atol=1e-3
    )
    frequencies, values = fourier.diagonal(np.asarray(change)[0, :, :, 0])
    expected = 2 * np.log(np.cos(np.pi * frequencies / 2))
    np.testing.assert_allclose(values, expected, atol=1e-3)


@pytest.mark.parametrize("shape", [(8, 8), (7, 7), (6, 10)])
def test_rings_equal_a_plain_loop(shape):
    spectrum = np.random.default_rng(0).normal(size=shape)
    frequencies, values = fourier.radial(spectrum)
    size = min(shape)
    rings = {}
    for i in range(shape[0]):
        for j in range(shape[1]):
            y = (i - shape[0] // 2) * 2 / shape[0]
            x = (j - shape[1] // 2) * 2 / shape[1]
            ring = round(math.sqrt(x * x + y * y) * size / 2)
            rings.setdefault(ring, []).append(spectrum[i, j])
    expected = [np.mean(rings[ring]) for ring in range(size // 2 + 1)]
    np.testing.assert_allclose(values, expected)
    np.testing.assert_allclose(frequencies, 2 * np.arange(size // 2 + 1) / size)


@pytest.fixture(scope="module")
def network():
    model = models.build(
        "resnet_mcdo_smoothing_18", num_classes=3, width=4, stages=(1,)
    )
    variables = golden.variables(model, jnp.zeros((1, 8, 8, 3)))
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (7, 8, 8, 3)).astype(np.uint8)
    labels = rng.integers(0, 3, 7).astype(np.int32)
    return model, variables, (images, labels)


def test_spectra_of_a_network_are_means_over_all_its_examples(network):
    model, variables, (images, labels) = network
    found = fourier.spectra(
        model,
        variables,
        batches.sequential(images, labels, batch_size=4),
        prepare=scaled,
    )
    maps = jax.jit(lambda x: features.taps(model, variables, x))(scaled(images))
    assert list(found) == ["stem", "stage1", "smooth1"]
    for name, spectrum in found.items():
        x = np.float64(maps[name])
        log = np.log(np.abs(np.fft.fft2(x, axes=(1, 2))) + 1e-6)
        expected = np.fft.fftshift(log, axes=(1, 2)).mean((0, 3))
        np.testing.assert_allclose(spectrum, expected, rtol=1e-3, atol=1e-3)
    arrays = fourier.arrays(found)
    assert arrays["smooth1/spectrum"].shape == (9, 9)
    assert arrays["smooth1/diagonal"].shape == (2, 5)
    assert arrays["smooth1/delta"].shape == (5,)
    assert arrays["smooth1/radial"].shape == (2, 5)


def test_samples_of_spectra_follow_the_key(network):
    model, variables, (images, labels) = network
    data = list(batches.sequential(images, labels, batch_size=7))
    live = fourier.spectra(model, variables, data, prepare=scaled, key=KEY)
    sample = jax.random.fold_in(KEY, 0)
    maps = jax.jit(lambda x: features.taps(model, variables, x, key=sample))
    expected = fourier.log_amplitude(maps(scaled(images))["stage1"]).mean((0, 3))
    np.testing.assert_allclose(live["stage1"], expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="nothing to analyse: no batches"):
        fourier.spectra(model, variables, [], prepare=scaled)


@pytest.fixture(scope="module")
def reference():
    return golden.arrays("frequency")


def test_rings_of_frequencies_equal_the_reference(reference):
    for index, f in enumerate(reference["freqs"]):
        half_width = float(reference["s"])
        ring = frequency.ring(f, size=16, half_width=half_width)
        np.testing.assert_array_equal(ring, reference["masks"][index])
        sides = frequency.sides(f, size=16, half_width=half_width)
        assert sides == tuple(reference["widths"][index])
    for size in (32, 224):
        sides = [
            frequency.sides(f, size=size, half_width=0.2) for f in frequency.FREQUENCIES
        ]
        np.testing.assert_array_equal(sides, reference[f"widths_h{size}_s02"])


def test_noise_of_one_frequency_equals_the_reference(reference, x64):
    nhwc = lambda x: jnp.asarray(x.transpose(0, 2, 3, 1))
    signs = float(reference["eps"]) * jnp.sign(nhwc(reference["noise"]))
    for index, f in enumerate(reference["freqs"]):
        mask = frequency.ring(f, size=16, half_width=float(reference["s"]))
        found = nhwc(reference["x"]) + frequency.limit(signs, mask)
        expected = nhwc(reference["out"][index])
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_noise_is_random_signs_limited_to_the_ring():
    images = jnp.ones((4, 9, 9, 3))
    options = {"frequency": math.pi, "half_width": math.pi, "epsilon": 0.5}
    noisy = frequency.noise(KEY, images, **options)  # the ring holds all frequencies
    np.testing.assert_allclose(jnp.abs(noisy - images), 0.5, rtol=1e-4)
    assert abs(float((noisy - images).mean())) < 0.1
    other = frequency.noise(jax.random.key(1), images, **options)
    assert not np.allclose(noisy, other)


def test_unusable_frequencies_are_refused():
    with pytest.raises(ValueError, match=r"frequency must be in \(0, pi\], got 4"):
        frequency.ring(4.0, size=32)
    with pytest.raises(ValueError, match="no pixel of 8x8 has a frequency within 0"):
        frequency.ring(1.0, size=8, half_width=0.01)


def test_robustness_compiles_once_and_equals_a_plain_loop(network):
    model, variables, data = network
    traces = []

    def counted(images):
        traces.append(images)
        return scaled(images)

    robustness = functools.partial(
        frequency.robustness,
        model,
        variables,
        list(batches.sequential(*data, batch_size=7)),
        key=KEY,
        prepare=counted,
        frequencies=(1.0, 2.0),
        half_width=0.5,
        epsilon=2.0,
    )
    rows = list(robustness())
    assert len(traces) == 1
    # Scores above a confidence that no prediction reaches are NaN in both.
    np.testing.assert_equal(list(robustness(done={None, 1.0})), rows[2:])
    noise_key = jax.random.split(jax.random.fold_in(KEY, 0))[0]
    apply = jax.jit(lambda x: jax.nn.log_softmax(model.apply(variables, x)))
    for f, row in zip((None, 1.0, 2.0), rows, strict=True):
        x = scaled(data[0])
        if f is not None:
            x = frequency.noise(noise_key, x, frequency=f, half_width=0.5, epsilon=2.0)
        nll = -np.asarray(apply(x))[np.arange(7), data[1]].mean()
        assert row["frequency"] == f
        assert row["nll"] == pytest.approx(nll, rel=1e-4)
    arrays = frequency.arrays(rows)
    np.testing.assert_array_equal(arrays["frequency"], [1.0, 2.0])
    assert arrays["clean_nll"] == rows[0]["nll"]
    np.testing.assert_array_equal(arrays["nll"], [row["nll"] for row in rows[1:]])
