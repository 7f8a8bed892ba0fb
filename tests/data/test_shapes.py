"""The embedded data set: reproducible, balanced, drawn right, and not trivial."""

import math
import tracemalloc
import zlib

import numpy as np
import pytest
from scipy import ndimage

from spatial_smoothing.data import shapes

STEP = 0.005  # of the grid on which the figures are measured
AXIS = np.arange(-1.2, 1.2, STEP, dtype=np.float32)
X, Y = np.meshgrid(AXIS, AXIS)


@pytest.fixture(scope="module")
def train():
    return shapes.generate("train")


@pytest.fixture(scope="module")
def test():
    return shapes.generate("test")


def lens(r, s, d):
    """Common area of two discs of radii r and s whose centres are d apart."""
    sector_r = r * r * math.acos((d * d + r * r - s * s) / (2 * d * r))
    sector_s = s * s * math.acos((d * d + s * s - r * r) / (2 * d * s))
    product = (r + s - d) * (d + r - s) * (d - r + s) * (d + r + s)
    return sector_r + sector_s - math.sqrt(product) / 2


AREAS = {
    "disc": math.pi,
    "ring": math.pi * (1 - 0.55**2),
    "crescent": math.pi - lens(1, 0.8, 0.45),
    "heart": 0.5607**2 * (4 + math.pi),
    "triangle": 3 * math.sqrt(3) / 4,
    "square": 2,
    "pentagon": 5 / 2 * math.sin(math.tau / 5),
    "star": 5 * 0.42 * math.sin(math.tau / 10),
    "cross": 2 * (2 * 0.94) * (2 * 0.34) - (2 * 0.34) ** 2,
    "arrow": 0.9 * 0.85 + 1.05 * 0.56,
}
TURNS = {"disc": 7, "ring": 7, "triangle": 3, "square": 4, "pentagon": 5, "star": 5}
TURNS |= {"cross": 4, "crescent": 1, "heart": 1, "arrow": 1}


def turned(x, y, angle):
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    return cos * x + sin * y, cos * y - sin * x


def test_the_names_and_sizes():
    assert tuple(AREAS) == shapes.CLASS_NAMES
    assert shapes.NUM_CLASSES == len(set(shapes.CLASS_NAMES)) == 10


def test_images_and_labels_are_what_the_docstring_says(train, test):
    for (images, labels), size in [(train, 10_000), (test, 2_000)]:
        assert images.shape == (size, 32, 32, 3)
        assert images.dtype == np.uint8
        assert labels.shape == (size,)
        assert labels.dtype == np.int32
        assert (images.min(), images.max()) == (0, 255)
        np.testing.assert_array_equal(np.bincount(labels), [size // 10] * 10)


def test_mean_and_std_are_those_of_the_training_split(train):
    scale = np.arange(256) / 255
    for channel in range(3):
        counts = np.bincount(train[0][..., channel].ravel(), minlength=256)
        mean = np.average(scale, weights=counts)
        variance = np.average((scale - mean) ** 2, weights=counts)
        assert mean.round(4) == shapes.MEAN[channel]
        assert np.sqrt(variance).round(4) == shapes.STD[channel]


def test_the_pixels_belong_to_this_version(train, test):
    checksums = tuple(
        zlib.crc32(images.tobytes() + labels.tobytes())
        for images, labels in (train, test)
    )
    assert {shapes.VERSION: checksums} == {2: (1639759480, 2775118648)}


def test_a_smaller_size_is_a_prefix_of_a_larger_one(train):
    # 250 images are drawn at once: sizes on either side of that and amid the second.
    for size in (1, 13, 250, 251):
        images, labels = shapes.generate("train", size=size)
        np.testing.assert_array_equal(images, train[0][:size])
        np.testing.assert_array_equal(labels, train[1][:size])
        counts = np.bincount(labels, minlength=10)
        assert counts.max() - counts.min() <= 1


def test_splits_seeds_and_chunks_are_different(train, test):
    other, _ = shapes.generate("train", seed=1, size=250)
    sets = [train[0][:250], train[0][250:500], test[0][:250], test[0][250:500], other]
    assert len({image.tobytes() for images in sets for image in images}) == 5 * 250


def test_memory_does_not_grow_with_size():
    def peak_beyond_result(size):
        tracemalloc.start()
        images, _ = shapes.generate("test", size=size)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak - images.nbytes

    assert peak_beyond_result(1000) < 1.1 * peak_beyond_result(250) < 50e6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "val"}, "unknown split 'val'; choose 'train' or 'test'"),
        ({"split": "train", "size": 0}, "size must be at least 1, not 0"),
        ({"split": "train", "seed": -1}, "seed must be at least 0, not -1"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        shapes.generate(**arguments)


@pytest.mark.parametrize("name", shapes.CLASS_NAMES)
def test_a_figure_has_its_area_and_touches_the_unit_circle(name):
    distance = shapes.SIGNED_DISTANCES[name](X, Y)
    area = shapes.coverage(distance / STEP).sum(dtype=float) * STEP**2
    assert area == pytest.approx(AREAS[name], rel=2e-3)
    assert np.hypot(X, Y)[distance < 0].max() == pytest.approx(1, abs=2 * STEP)


@pytest.mark.parametrize("name", shapes.CLASS_NAMES)
def test_a_signed_distance_is_the_distance_to_the_edge(name):
    distance = shapes.SIGNED_DISTANCES[name](X, Y)
    inside = distance < 0
    # The nearest point on the other side is about half a step beyond the edge.
    outward = ndimage.distance_transform_edt(~inside) - 0.5
    inward = ndimage.distance_transform_edt(inside) - 0.5
    expected = np.where(inside, -inward, outward) * STEP
    near = np.abs(distance) < 0.08  # as wide as an edge of the smallest figure
    error = np.abs(distance - expected)[near]
    assert np.quantile(error, 0.9) < STEP  # the rest: horns of the crescent, corners


@pytest.mark.parametrize("name", shapes.CLASS_NAMES)
def test_a_figure_has_its_symmetries(name):
    signed_distance = shapes.SIGNED_DISTANCES[name]
    distance = signed_distance(X, Y)
    mirrored = signed_distance(-X, Y) if name == "heart" else signed_distance(X, -Y)
    np.testing.assert_allclose(mirrored, distance, atol=1e-5)
    same = signed_distance(*turned(X, Y, math.tau / TURNS[name]))
    np.testing.assert_allclose(same, distance, atol=1e-5)
    if name not in ("disc", "ring"):
        half = signed_distance(*turned(X, Y, math.pi / TURNS[name]))
        assert np.mean((half < 0) != (distance < 0)) > 0.03


def test_coverage_falls_linearly_over_one_pixel():
    distance = np.float32([-1, -0.5, -0.25, 0, 0.25, 0.5, 1])
    expected = [1, 1, 0.75, 0.5, 0.25, 0, 0]
    np.testing.assert_array_equal(shapes.coverage(distance), expected)


@pytest.mark.parametrize("name", shapes.CLASS_NAMES)
def test_pixel_coverage_keeps_the_area_at_every_angle_and_place(name):
    rng = np.random.default_rng(0)
    radius, grid = 10, np.arange(32, dtype=np.float32) - 15.5
    for _ in range(20):
        dx, dy = np.float32(rng.uniform(-4, 4, 2))
        points = turned(*np.meshgrid(grid - dx, grid - dy), rng.uniform(0, math.tau))
        distance = shapes.SIGNED_DISTANCES[name](*(p / radius for p in points))
        area = shapes.coverage(radius * distance).sum() / radius**2
        assert area == pytest.approx(AREAS[name], rel=0.03)


def test_images_show_the_figures_of_their_labels(train):
    # Figures are brighter than the ground, so that the excess of the mean over the
    # darker pixels grows in proportion to the area.
    images, labels = train[0].reshape(len(train[0]), -1, 3), train[1]
    excess = images.mean(axis=1) - np.percentile(images, 25, axis=1)
    means = [excess[labels == label].mean() for label in range(10)]
    assert np.corrcoef(means, list(AREAS.values()))[0, 1] > 0.99


def test_a_linear_classifier_stays_near_chance(train, test):
    def features(images):
        pooled = images.reshape(-1, 16, 2, 16, 2, 3).mean(axis=(2, 4))
        pooled = pooled.reshape(len(images), -1) / 255 - 0.4
        return np.concatenate([pooled, np.ones((len(images), 1))], axis=1)

    inputs, targets = features(train[0]), np.eye(10)[train[1]]
    penalty = 10 * np.eye(inputs.shape[1])
    weights = np.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ targets)
    accuracy = np.mean((features(test[0]) @ weights).argmax(axis=1) == test[1])
    assert accuracy < 0.25
