import jax
import numpy as np
import pytest
import scipy.linalg
import scipy.special
import scipy.stats
from sklearn.covariance import EmpiricalCovariance
from sklearn.neighbors import NearestNeighbors

from spatial_smoothing.metrics import feature_confidences as confidences
from spatial_smoothing.metrics import feature_statistics as statistics

RNG = np.random.default_rng(0)
CLASSES, DIMENSION = 4, 6
LABELS = RNG.integers(0, CLASSES, 300)
SPREAD = RNG.normal(0, 1, (DIMENSION, DIMENSION))
TRAIN = np.float32(
    3
    + RNG.normal(0, 2, (CLASSES, DIMENSION))[LABELS]
    + RNG.normal(0, 1, (300, DIMENSION)) @ SPREAD
)
TEST = np.float32(3 + RNG.normal(0, 3, (40, DIMENSION)))
KERNEL = np.float32(RNG.normal(0, 1, (DIMENSION, CLASSES)))
BIAS = np.float32(RNG.normal(0, 1, CLASSES))
LAST = confidences.LastLayer(KERNEL, BIAS)


def moments(features=TRAIN, labels=LABELS, *, part=70):
    """Sums of parts, the last of which is padded, added up in float64."""
    shift = np.float32(features.mean(0))
    add = jax.jit(statistics.sums, static_argnames="num_classes")
    total = None
    for start in range(0, len(features), part):
        x, y = features[start : start + part], labels[start : start + part]
        padding = part - len(x)
        x = np.pad(x, ((0, padding), (0, 0)), constant_values=99)
        mask = np.arange(part) < part - padding
        found = add(x, np.pad(y, (0, padding)), mask, shift, num_classes=CLASSES + 1)
        found = [np.float64(values) for values in found]
        total = (
            found
            if total is None
            else [a + b for a, b in zip(total, found, strict=True)]
        )
    return statistics.Moments(*total, np.float64(shift))


def assert_near(actual, expected, *, rtol=1e-5):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=1e-6 * scale)


def references():
    """Precision matrices by scikit-learn, as OpenOOD fits them; and class means."""
    means = np.stack([np.float64(TRAIN[c == LABELS]).mean(0) for c in range(CLASSES)])
    within = EmpiricalCovariance().fit(np.float64(TRAIN) - means[LABELS])
    return means, within.precision_, EmpiricalCovariance().fit(np.float64(TRAIN))


def squared_distances(points, means, precision):
    gaps = np.float64(points)[:, None] - means[None]
    return np.einsum("bcd,de,bce->bc", gaps, precision, gaps)


def test_moments_are_those_of_numpy():
    found = moments()
    assert_near(found.mean, np.float64(TRAIN).mean(0))
    assert_near(found.covariance, np.cov(np.float64(TRAIN).T, bias=True))
    means, precision, _ = references()
    assert_near(found.class_means, means)  # the class without features is left out
    assert_near(np.linalg.inv(found.covariance_within), precision)


def test_mahalanobis_distances_equal_scikit_learn():
    found = moments()
    means, precision, everything = references()
    expected = -squared_distances(TEST, means, precision).min(-1)
    classes = statistics.gaussians(found.class_means, found.covariance_within)
    whole = statistics.gaussians(found.mean[None], found.covariance)
    assert_near(jax.jit(confidences.mahalanobis)(TEST, classes), expected)
    relative = expected + everything.mahalanobis(np.float64(TEST))
    actual = jax.jit(confidences.relative_mahalanobis)(TEST, classes, whole)
    assert_near(actual, relative)


def test_directions_without_variation_are_left_out():
    """As by the pseudo-inverse: features that are constant say nothing."""
    features = np.concatenate([TRAIN, np.full((300, 2), 5, np.float32)], -1)
    found = moments(features)
    fitted = statistics.gaussians(found.class_means, found.covariance_within)
    assert fitted.whitening.shape == (DIMENSION + 2, DIMENSION)
    precision = scipy.linalg.pinvh(found.covariance_within)
    assert_near(fitted.whitening @ fitted.whitening.T, precision)


@pytest.mark.parametrize("count", [1, 7])
def test_neighbours_equal_scikit_learn(count):
    bank, queries = confidences.normalised(TRAIN), confidences.normalised(TEST)
    padded = np.concatenate([bank, np.full((5, DIMENSION), np.nan, np.float32)])
    found = confidences.most_similar(queries, padded, count=count)
    unit = lambda x: np.float64(x) / np.linalg.norm(np.float64(x), axis=-1)[:, None]
    distances, _ = (
        NearestNeighbors(n_neighbors=count).fit(unit(TRAIN)).kneighbors(unit(TEST))
    )
    actual = confidences.nearest_neighbour(found)
    np.testing.assert_allclose(actual, -(distances**2), atol=1e-6)
    assert np.isinf(confidences.most_similar(queries, padded, count=303)[:, -1]).all()


def test_react_cuts_features_off():
    logits = np.minimum(np.float64(TEST), 2.5) @ np.float64(KERNEL) + BIAS
    expected = scipy.special.logsumexp(logits, -1)
    assert_near(confidences.react(TEST, LAST, threshold=2.5), expected)
    whole = confidences.react(TEST, LAST, threshold=np.inf)
    energy = scipy.special.logsumexp(np.float64(TEST) @ np.float64(KERNEL) + BIAS, -1)
    assert_near(whole, energy)


def test_virtual_logit_equals_the_published_code():
    """OpenOOD's, with scikit-learn and SciPy; there is no exact origin here."""
    found = moments()
    origin = statistics.zero_logits(KERNEL, BIAS)
    assert_near(origin, -np.float64(scipy.linalg.pinv(np.float64(KERNEL).T) @ BIAS))
    assert_near(origin @ KERNEL + BIAS + 1, np.ones(CLASSES))
    centred = np.float64(TRAIN) - origin
    covariance = EmpiricalCovariance(assume_centered=True).fit(centred).covariance_
    values, vectors = np.linalg.eig(covariance)
    space = vectors.T[np.argsort(-values)[3:]].T
    logits = np.float64(TRAIN) @ np.float64(KERNEL) + BIAS
    norms = np.linalg.norm(centred @ space, axis=-1)
    scale = logits.max(-1).mean() / norms.mean()
    logits = np.float64(TEST) @ np.float64(KERNEL) + BIAS
    part = np.linalg.norm((np.float64(TEST) - origin) @ space, axis=-1)
    expected = scipy.special.logsumexp(logits, -1) - scale * part
    basis = statistics.residual_basis(found, origin, principal=3)
    residual = confidences.Residual(*map(np.float32, (origin, basis, scale)))
    assert_near(confidences.residual_norm(TRAIN, *residual[:2]), norms)
    assert_near(confidences.virtual_logit(TEST, LAST, residual), expected)


@pytest.mark.parametrize(("dimension", "principal"), [(6, 3), (512, 256), (800, 512)])
def test_the_principal_space_follows_the_rule_of_the_paper(dimension, principal):
    found = statistics.Moments(
        np.ones(1), np.zeros((1, dimension)), np.eye(dimension), np.zeros(dimension)
    )
    basis = statistics.residual_basis(found, np.zeros(dimension))
    assert basis.shape == (dimension, dimension - principal)


def test_log_density_is_that_of_a_mixture_with_a_covariance_for_each_class():
    rng = np.random.default_rng(8)
    train = rng.normal(size=(60, 4)) @ rng.normal(size=(4, 4))
    labels = np.repeat([0, 2, 3], (10, 20, 30))
    train[labels == 2] = 3 * train[labels == 2] + 1
    queries = rng.normal(size=(7, 4))
    found = statistics.densities(np.float32(train), labels)
    expected = np.logaddexp.reduce(
        [
            np.log((labels == label).mean())
            + scipy.stats.multivariate_normal(
                train[labels == label].mean(0), np.cov(train[labels == label].T)
            ).logpdf(queries)
            for label in (0, 2, 3)
        ]
    )
    actual = jax.jit(confidences.log_density)(np.float32(queries), found)
    np.testing.assert_allclose(actual, expected, rtol=1e-3)
    # A feature that never varies has no variance: it is given a little.
    dead = np.concatenate([train, np.zeros((60, 1))], 1)
    found = statistics.densities(np.float32(dead), labels)
    outside = np.float32([[*queries[0], 0.0], [*queries[0], 1.0]])
    inside, beyond = confidences.log_density(outside, found)
    assert np.isfinite([inside, beyond]).all()
    assert beyond < inside
    with pytest.raises(ValueError, match="class 3 has a single training image"):
        statistics.densities(np.float32(train[:31]), labels[:31])
    same = np.where(labels[:, None] == 2, 0.1, train)
    with pytest.raises(ValueError, match="images of class 2 have the same features"):
        statistics.densities(np.float32(same), labels)
