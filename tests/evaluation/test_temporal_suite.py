import jax
import numpy as np
import pytest
import scipy.special

from spatial_smoothing import metrics, models, report
from spatial_smoothing.data import shapes, sources, streams
from spatial_smoothing.ensembles import mc_dropout
from spatial_smoothing.evaluation import suites
from spatial_smoothing.runs import workdirs

PAST, FRAMES, SAMPLES, SEED = 2, 4, 3, 5
RNG = np.random.default_rng(0)
DATASET = sources.Dataset(
    RNG.integers(0, 256, (13, 8, 8, 3)).astype(np.uint8),
    RNG.integers(0, 10, 13).astype(np.int32),
)


def build(name, *, seed=1, **options):
    """A run with random variables that was never trained."""
    model = models.build(name, num_classes=10, width=4, stages=(1,), **options)
    shapes_of = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 8, 8, 3)))
    rng = np.random.default_rng(seed)
    variables = jax.tree.map(
        lambda leaf: np.float32(np.abs(rng.normal(0, 0.3, leaf.shape))), shapes_of
    )
    variables["params"] = jax.tree.map(
        lambda leaf: np.float32(rng.normal(0, 0.3, leaf.shape)), variables["params"]
    )
    config = {"model": name, "dataset": "shapes"}
    return workdirs.Run(f"run{seed}", config, model, variables, 0)


def evaluate(*runs, temporal=(SAMPLES,), **options):
    fields = {"num_samples": SAMPLES, "batch_size": 8, "seed": SEED}
    fields |= {"num_replicates": 0}
    window = {"past": PAST, "num_frames": FRAMES}
    for name, value in options.items():
        (fields if name in fields else window)[name] = value
    setting = suites.Setting(DATASET, **fields)
    rows = suites.ensemble(runs, setting, temporal=temporal, **window)
    report.checked(rows)
    return {(row["label"], row["run"], row["num_samples"]): row for row in rows}


def samples(run, *, members=1, member=0, num_samples=SAMPLES, batch_size=8):
    """Probabilities f64[T, S, n, K] of all frames, batch by batch, padded as they."""
    frames = np.asarray(streams.moving_crop(DATASET.images, num_frames=FRAMES))
    predict = jax.jit(
        lambda key, images: mc_dropout(
            key, run.model, run.variables, images, num_samples=num_samples
        )
    )
    stream = jax.random.split(jax.random.key(SEED), 4)[0]
    result = []
    for index, start in enumerate(range(0, 13, batch_size)):
        key = jax.random.fold_in(stream, index)
        keys = [jax.random.fold_in(key, members + age) for age in (3, 2, 1)] + [key]
        part = frames[:, start : start + batch_size]
        padding = [(0, 0), (0, batch_size - part.shape[1])] + [(0, 0)] * 3
        images = np.pad(part, padding, mode="edge") / 255
        images = np.float32((images - shapes.MEAN) / shapes.STD)
        probs = [
            predict(jax.random.fold_in(key, member), frame)
            for key, frame in zip(keys, images, strict=True)
        ]
        result.append(np.float64(np.stack(probs))[:, :, : part.shape[1]])
    return np.concatenate(result, axis=2)


def smoothed(probs):
    """Weighted means over PAST + 1 frames of f64[T, ...]."""
    weights = scipy.special.softmax(0.8 * np.arange(PAST + 1))
    starts = range(FRAMES - PAST)
    return np.stack(
        [np.tensordot(weights, probs[t : t + PAST + 1], axes=1) for t in starts]
    )


def assert_scores(row, probs):
    """`probs` f64[n, K], of the last frames."""
    of_label = probs[np.arange(13), DATASET.labels]
    assert row["nll"] == pytest.approx(-np.log(of_label).mean(), rel=1e-4)
    assert row["accuracy"] == np.mean(probs.argmax(-1) == DATASET.labels)
    others = metrics.summary(metrics.tally(np.float32(probs), DATASET.labels))
    for name in ("brier", "ece", "top5"):
        assert row[name] == pytest.approx(others[name], rel=1e-4)
    assert row["num_examples"] == 13


def assert_steadiness(row, probs):
    """`probs` f64[T, n, K]."""
    classes = probs.argmax(-1)
    assert row["consistency"] == pytest.approx(np.mean(classes[1:] == classes[:-1]))
    entropy = -(probs[1:] * np.log(probs[:-1])).sum(-1).mean()
    assert row["cec_sum"] == pytest.approx(entropy, rel=1e-4)
    assert row["cec"] == pytest.approx(entropy / 10, rel=1e-4)


STEADINESS = {"consistency", "cec", "cec_sum"}


def test_rows_equal_a_recomputation_frame_by_frame():
    run = build("resnet_mcdo_smoothing_18", rate=0.5)
    rows = evaluate(run)
    alone, over_time = "MC dropout + smoothing", "MC dropout + smoothing + temporal"
    assert [key[::2] for key in rows] == [
        *((alone, size) for size in (1, 2, 3)),
        *((over_time, size) for size in (1, 3)),
    ]
    probs = samples(run)
    assert_scores(rows[alone, "run1", 2], probs[-1, :2].mean(0))
    assert STEADINESS.isdisjoint(rows[alone, "run1", 2])
    for size in (1, 3):
        frames = probs[:, :size].mean(1)
        now, mean = rows[alone, "run1", size], rows[over_time, "run1", size]
        assert_scores(now, frames[-1])
        assert_scores(mean, smoothed(frames)[-1])
        assert_steadiness(now, frames[PAST:])
        assert_steadiness(mean, smoothed(frames))
        assert mean["milliseconds"] == now["milliseconds"]
        entropies = scipy.special.entr(probs[:, :size]).sum(-1).mean(1)
        of_mean = scipy.special.entr(smoothed(frames)[-1]).sum(-1)
        information = (of_mean - smoothed(entropies)[-1]).mean()
        assert mean["mutual_information"] == pytest.approx(information, rel=1e-3)


def test_deep_ensembles_are_smoothed_over_time_too():
    runs = [build("resnet_mcdo_18", rate=0.5, seed=seed) for seed in (1, 2)]
    rows = evaluate(*runs, temporal=(1,), num_samples=2)
    deep = "Deep ensemble of MC dropout"
    assert [key for key in rows if "temporal" in key[0]] == [
        (f"{deep} + temporal", "run1, run2", 1),
        (f"{deep} + temporal", "run1, run2", 2),
        ("MC dropout + temporal", "run1", 1),
        ("MC dropout + temporal", "run2", 1),
    ]
    first, second = (
        samples(run, members=2, member=index, num_samples=1)[:, 0]
        for index, run in enumerate(runs)
    )
    both = (first + second) / 2
    assert_scores(rows[deep, "run1, run2", 2], both[-1])
    assert_scores(rows[f"{deep} + temporal", "run1, run2", 2], smoothed(both)[-1])
    assert_scores(rows["MC dropout + temporal", "run2", 1], smoothed(second)[-1])


def test_networks_without_dropout_are_smoothed_alike():
    run = build("resnet_dnn_18")
    rows = evaluate(run)
    assert [key[0] for key in rows] == ["Deterministic", "Deterministic + temporal"]
    single = samples(run)[:, 0]
    now, mean = rows.values()
    assert_scores(now, single[-1])
    assert_scores(mean, smoothed(single)[-1])
    assert_steadiness(now, single[PAST:])


def test_a_sequence_of_one_window_has_no_pairs():
    for row in evaluate(build("resnet_dnn_18"), num_frames=PAST + 1).values():
        assert STEADINESS.isdisjoint(row)


def test_one_frame_that_is_smoothed_alone_is_a_single_frame():
    now, mean = evaluate(build("resnet_dnn_18"), past=0, num_frames=1).values()
    assert now["nll"] == pytest.approx(mean["nll"], rel=1e-6)


def test_steadiness_has_intervals():
    (row, *_) = evaluate(build("resnet_dnn_18"), num_replicates=50).values()
    low, high = row["intervals"]["cec"]
    assert low < row["cec"] < high


def test_unusable_numbers_are_refused():
    run = build("resnet_mcdo_18")
    for options, message in [
        ({"past": -1}, "past must be at least 0, got -1"),
        ({"num_frames": 2}, "num_frames must be at least 3, one more than past, got 2"),
        ({"decay": -1.0}, r"decay must be at least 0 and finite, got -1\.0"),
        ({"temporal": (1, 7)}, "temporal must be some of the sizes 1,2,3, got 1,7"),
        ({"sizes": (1, 7)}, "sizes must be between 1 and num_samples, 3, got 1,7"),
        ({"batch_size": 7}, "batch_size 7 cannot be divided by 8 devices"),
    ]:
        with pytest.raises(ValueError, match=message):
            evaluate(run, **options)
