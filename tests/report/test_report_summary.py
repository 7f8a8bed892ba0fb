import math

import pytest
from report_rows import make_row, pair, with_intervals

from spatial_smoothing.report import summary


@pytest.mark.parametrize(
    ("plain", "smoothed", "sentence"),
    [
        (
            {1: 0.9, 50: 0.85},
            {1: 0.86, 2: 0.812, 50: 0.8},
            "A + smoothing with 2 samples has NLL 0.812, below that of A with 50 "
            "samples, 0.850.",
        ),
        (
            {1: 0.9, 50: 0.85},
            {1: 0.9, 20: 0.87, 50: 0.88},
            "A + smoothing does not reach the NLL of A with 50 samples, 0.850, at any "
            "evaluated size: its lowest is 0.870, with 20 samples.",
        ),
        (
            {1: 0.9, 50: 0.85},
            {1: 0.9, 50: 0.85},
            "A + smoothing with 50 samples has the same NLL as A with 50 samples, "
            "0.850.",
        ),
        (
            {1: 0.9},
            {1: 0.90001},
            "A + smoothing with 1 sample has the same NLL as A with 1 sample, 0.900.",
        ),
        (
            {1: 0.9, 50: None},
            {1: None, 50: 0.85},
            "A + smoothing with 50 samples has NLL 0.850, below that of A with 1 "
            "sample, 0.900.",
        ),
    ],
)
def test_summary_tells_which_way_it_goes(plain, smoothed, sentence):
    assert sentence in summary.paragraph(pair(plain, smoothed))


def test_summary_compares_accuracy_and_ece_at_the_same_size():
    rows = pair({1: 0.9, 5: 0.85}, {1: 0.9, 5: 0.7})
    rows[1].update(accuracy=0.8, ece=0.03)
    rows[3].update(accuracy=0.79, ece=0.01)
    words = summary.paragraph(rows)
    assert (
        "A + smoothing with 5 samples has the lowest NLL, 0.700 nats (accuracy "
        "79.00 %, ECE 1.00 %) on 2,000 images of shapes." in words
    )
    assert (
        "With 5 samples each, smoothing takes accuracy from 80.00 % to 79.00 % and "
        "ECE from 3.00 % to 1.00 %." in words
    )
    error = 100 * math.sqrt(0.79 * 0.21 / 2000)
    assert f"accuracy of 79.00 % is {error:.2f} percentage points." in words


def test_summary_pairs_models_of_one_name_by_label():
    labels = {"Deterministic": 0.95, "Deep ensemble": 0.9}
    rows = [make_row(k, 1, nll=v, model="resnet_dnn_18") for k, v in labels.items()]
    model = "resnet_dnn_smoothing_18"
    rows += [make_row("Deep ensemble + smoothing", 1, nll=0.8, model=model)]
    assert "below that of Deep ensemble with 1 sample" in summary.paragraph(rows)


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (0.8, "falls from 0.900 to 0.800."),
        (1.0, "rises from 0.900 to 1.000."),
        (0.9, "stays at 0.900."),
    ],
)
def test_summary_without_a_pair_tells_the_trend(last, words):
    rows = [make_row("A", 1, nll=0.9), make_row("A", 50, nll=last)]
    expected = f"From 1 to 50 samples, the NLL of A {words}"
    assert expected in summary.paragraph(rows)


def differences(**values):
    label = "A + smoothing minus A"
    return [{"label": label, "num_samples": 5, "values": values}]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"nll": [-0.1, -0.2, -0.05], "ece": [0.01, -0.01, 0.02]},
            "With 5 samples each, the 95 % interval of the paired difference in NLL "
            "excludes zero. With 5 samples each, smoothing does not clearly change "
            "ECE: the 95 % interval of the paired difference includes zero.",
        ),
        (
            {"nll": [-0.1, -0.2, 0.05]},
            "With 5 samples each, smoothing takes accuracy from 73.00 % to 74.00 % and "
            "ECE from 3.00 % to 9.00 %. With 5 samples each, smoothing does not "
            "clearly change NLL: the 95 % interval of the paired difference includes "
            "zero.",
        ),
        (
            {k: [0.1, 0.05, 0.2] for k in ("ece", "nll", "accuracy")},
            "With 5 samples each, smoothing takes accuracy from 73.00 % to 74.00 % and "
            "ECE from 3.00 % to 9.00 %. With 5 samples each, the 95 % intervals of the "
            "paired differences in NLL, accuracy and ECE exclude zero.",
        ),
    ],
)
def test_summary_says_which_differences_are_clear(values, words):
    rows = pair({1: 0.9, 5: 0.85}, {1: 0.9, 5: 0.7})
    rows[3].update(ece=0.09, accuracy=0.74)
    found = summary.paragraph(rows, differences=differences(**values))
    assert words in found
    other = [{**differences(**values)[0], "num_samples": 1}]
    for unknown in ((), other):
        words = summary.paragraph(rows, differences=unknown)
        assert "interval" not in words
        assert "ECE from 3.00 % to 9.00 %." in words


def test_noise_is_not_told_as_a_difference():
    rows = [make_row("A", 1, nll=1.96469), make_row("A", 50, nll=1.96474)]
    assert "the NLL of A stays at 1.965." in summary.paragraph(rows)
    rows = [make_row("A", 1, nll=1.90), make_row("A", 50, nll=1.92)]
    assert "rises from 1.900 to 1.920." in summary.paragraph(rows)
    wide = [with_intervals(row, half=0.011, keys=["nll"]) for row in rows]
    assert (
        "From 1 to 50 samples, the NLL of A does not clearly change (1.900 and 1.920): "
        "the bands overlap." in summary.paragraph(wide)
    )
    narrow = [with_intervals(row, half=0.009, keys=["nll"]) for row in rows]
    assert "rises from 1.900 to 1.920." in summary.paragraph(narrow)


def test_the_lowest_nll_is_not_told_as_lower_than_what_is_close():
    rows = [
        with_intervals(make_row(label, 1, nll=nll), half=0.01, keys=["nll"])
        for label, nll in (("A", 0.80), ("B", 0.81), ("C", 0.9))
    ]
    words = summary.paragraph(rows)
    assert "A with 1 sample has the lowest NLL, 0.800 nats" in words
    assert "It is not clearly lower than that of B (0.810)." in words


def test_a_pair_within_its_intervals_is_not_told_as_different():
    rows = pair({1: 0.9, 50: 0.85}, {1: 0.9, 50: 0.84})
    rows = [with_intervals(row, half=0.02, keys=["nll", "ece"]) for row in rows]
    words = summary.paragraph(rows)
    assert (
        "The NLL of A + smoothing with 50 samples, 0.840, is not clearly different "
        "from that of A with 50 samples, 0.850." in words
    )
    assert "smoothing does not clearly change NLL and ECE: the bands overlap." in words
    assert "below" not in words


def test_models_with_other_numbers_of_runs_are_not_compared():
    rows = pair({50: 0.85}, {50: 0.8})
    rows[1].update(num_runs=2, spread={})
    words = summary.paragraph(rows)
    assert "Of the models with 1 run, A with 50 samples has the lowest" not in words
    assert "Of the models with 1 run, A with 50 samples has an NLL of 0.850" in words
    assert "Of the models with 2 runs, A + smoothing with 50 samples has an" in words
    assert (
        "A + smoothing has 2 runs of 2,000 images and A has 1 run of 2,000 images: "
        "they are not compared." in words
    )
    assert "below" not in words
    assert "smoothing takes" not in words


def test_summary_says_that_values_are_means():
    row = make_row("A", 1, num_runs=3, spread={})
    assert "of shapes, as the mean of 3 runs." in summary.paragraph([row])
