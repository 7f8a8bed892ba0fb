import jax
import numpy as np
import pytest
import scipy.special

from spatial_smoothing import metrics, models, report, suites, workdirs
from spatial_smoothing.data import shapes, sources, streams
from spatial_smoothing.ensembles import mc_dropout

PAST, FRAMES, SAMPLES, SEED = 2, 4, 3, 5
RNG = np.random.default_rng(0)
DATASET = sources.Dataset(
    RNG.integers(0, 256, (13, 8, 8, 3)).astype(np.uint8),
    RNG.integers(0, 10, 13).astype(np.int32),
)


def build(name, **options):
    """A run with random variables that was never trained."""
    model = models.build(name, num_classes=10, width=4, stages=(1,), **options)
    shapes_of = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 8, 8, 3)))
    rng = np.random.default_rng(1)
    variables = jax.tree.map(
        lambda leaf: np.float32(np.abs(rng.normal(0, 0.3, leaf.shape))), shapes_of
    )
    variables["params"] = jax.tree.map(
        lambda leaf: np.float32(rng.normal(0, 0.3, leaf.shape)), variables["params"]
    )
    config = {"model": name, "dataset": "shapes"}
    return workdirs.Run(None, config, model, variables, 0)


def evaluate(run, **options):
    fields = {"num_samples": SAMPLES, "batch_size": 8, "seed": SEED}
    window = {"past": PAST, "num_frames": FRAMES}
    for name, value in options.items():
        (fields if name in ("num_samples", "batch_size") else window)[name] = value
    rows = suites.temporal([run], suites.Setting(DATASET, **fields), **window)
    return {row["label"]: row for row in rows}


def samples(run, *, batch_size=8):
    """Probabilities f64[T, S, N, K] of all frames, batch by batch, padded as they."""
    frames = np.asarray(streams.moving_crop(DATASET.images, num_frames=FRAMES))
    predict = jax.jit(
        lambda key, images: mc_dropout(
            key, run.model, run.variables, images, num_samples=SAMPLES
        )
    )
    result = []
    for index, start in enumerate(range(0, 13, batch_size)):
        key = jax.random.fold_in(jax.random.key(SEED), index)
        part = frames[:, start : start + batch_size]
        padding = [(0, 0), (0, batch_size - part.shape[1])] + [(0, 0)] * 3
        images = np.pad(part, padding, mode="edge") / 255
        images = np.float32((images - shapes.MEAN) / shapes.STD)
        probs = [
            predict(jax.random.fold_in(key, t), frame) for t, frame in enumerate(images)
        ]
        result.append(np.float64(np.stack(probs))[:, :, : part.shape[1]])
    return np.concatenate(result, axis=2)


def assert_scores(row, probs):
    """`probs` f64[N, K], of the last frames."""
    of_label = probs[np.arange(13), DATASET.labels]
    assert row["nll"] == pytest.approx(-np.log(of_label).mean(), rel=1e-4)
    assert row["accuracy"] == np.mean(probs.argmax(-1) == DATASET.labels)
    others = metrics.summary(metrics.tally(np.float32(probs), DATASET.labels))
    for name in ("brier", "ece", "top5"):
        assert row[name] == pytest.approx(others[name], rel=1e-4)
    assert row["num_examples"] == 13


def assert_steadiness(row, probs):
    """`probs` f64[T, N, K]."""
    classes = probs.argmax(-1)
    assert row["consistency"] == pytest.approx(np.mean(classes[1:] == classes[:-1]))
    entropy = -(probs[1:] * np.log(probs[:-1])).sum(-1).mean()
    assert row["cec_sum"] == pytest.approx(entropy, rel=1e-4)
    assert row["cec"] == pytest.approx(entropy / 10, rel=1e-4)


def test_rows_equal_a_recomputation_frame_by_frame():
    run = build("resnet_mcdo_smoothing_18", rate=0.5)
    rows = evaluate(run)
    methods = ("Single frame", "MC dropout", "Temporal smoothing")
    assert list(rows) == [f"{method} + smoothing" for method in methods]
    alone, dropout, smoothed = rows.values()
    probs = samples(run)
    single = probs[:, 0]
    weights = scipy.special.softmax(0.8 * np.arange(PAST + 1))
    means = np.stack(
        [np.tensordot(weights, single[t : t + PAST + 1], axes=1) for t in range(2)]
    )
    assert_scores(alone, single[-1])
    assert_scores(dropout, probs[-1].mean(0))
    assert_scores(smoothed, means[-1])
    assert len({row["nll"] for row in rows.values()}) == 3
    assert_steadiness(alone, single[PAST:])
    assert_steadiness(smoothed, means)
    assert [row["passes"] for row in rows.values()] == [1, SAMPLES, 1]
    assert [row["num_samples"] for row in rows.values()] == [1, SAMPLES, 1]
    assert {"consistency", "cec", "cec_sum"}.isdisjoint(dropout)
    report.checked(list(rows.values()))


def test_networks_without_dropout_have_two_rows():
    run = build("resnet_dnn_18")
    rows = evaluate(run)
    assert list(rows) == ["Single frame", "Temporal smoothing"]
    single = samples(run)[:, 0]
    assert_scores(rows["Single frame"], single[-1])
    assert_steadiness(rows["Single frame"], single[PAST:])
    assert rows["Single frame"]["passes"] == 1


def test_a_sequence_of_one_window_has_no_pairs():
    rows = evaluate(build("resnet_dnn_18"), num_frames=PAST + 1)
    for row in rows.values():
        assert {"consistency", "cec", "cec_sum"}.isdisjoint(row)


def test_one_frame_that_is_smoothed_alone_is_a_single_frame():
    rows = evaluate(build("resnet_mcdo_18"), past=0, num_frames=1)
    alone, _, smoothed = rows.values()
    assert alone["nll"] == pytest.approx(smoothed["nll"], rel=1e-6)


def test_batches_of_any_size_count_every_example_once():
    run = build("resnet_dnn_18")
    rows, others = evaluate(run), evaluate(run, batch_size=16)
    for label, row in rows.items():
        for name in ("nll", "accuracy", "ece", "consistency", "cec"):
            assert row[name] == pytest.approx(others[label][name], rel=1e-5)


def test_unusable_numbers_are_refused():
    run = build("resnet_dnn_18")
    with pytest.raises(ValueError, match="takes one run, got 2; evaluate one by one"):
        suites.temporal([run, run], suites.Setting(DATASET))
    for options, message in [
        ({"num_samples": 0}, "num_samples must be at least 1, got 0"),
        ({"past": -1}, "past must be at least 0, got -1"),
        ({"num_frames": 2}, "num_frames must be at least 3, got 2"),
        ({"decay": -1.0}, r"decay must be at least 0 and finite, got -1\.0"),
        ({"batch_size": 7}, "batch_size 7 cannot be divided by 8 devices"),
    ]:
        with pytest.raises(ValueError, match=message):
            evaluate(run, **options)
    empty = sources.Dataset(DATASET.images[:0], DATASET.labels[:0])
    with pytest.raises(ValueError, match="nothing to evaluate: no images"):
        suites.temporal([run], suites.Setting(empty, batch_size=8))
