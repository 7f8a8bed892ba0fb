import numpy as np
import pytest
from report_rows import demo, make_row, scored

from spatial_smoothing.report.rows import band
from spatial_smoothing.report.runs import averaged

SHIFTS = {"seed0": 0.0, "seed1": 0.03, "seed2": 0.09}


def runs(*sizes):
    return [
        scored("a", n, shift=s, run=run) for run, s in SHIFTS.items() for n in sizes
    ]


def test_rows_that_are_alone_stay_as_they_are():
    rows = [*demo(), make_row("one", 1, run="seed0")]
    assert averaged(rows) == rows
    assert averaged(averaged(runs(1))) == averaged(runs(1))


def test_runs_become_a_mean_with_the_spread():
    one, five = averaged(runs(1, 5))
    single = scored("a", 1)
    assert (one["num_samples"], five["num_samples"]) == (1, 5)
    assert one["num_runs"] == 3
    assert one["nll"] == pytest.approx(single["nll"] + 0.04)
    assert one["spread"]["nll"] == pytest.approx([single["nll"], single["nll"] + 0.09])
    assert band(one, "nll") == tuple(one["spread"]["nll"])
    for key in ("label", "model", "dataset", "split", "num_examples", "num_samples"):
        assert one[key] == single[key]
        assert key not in one["spread"]
    assert one["reference"]["brier"] == pytest.approx(single["reference"]["brier"])
    detected = one["detection"]["scores"]["entropy"]
    assert detected["auroc"] == pytest.approx(0.84)
    assert band(detected, "auroc") == pytest.approx((0.8, 0.89))
    assert one["detection"]["dataset"] == "noise"


def test_intervals_of_single_runs_are_no_band_of_the_mean():
    rows = [{**row, "intervals": {"nll": [0, 9]}} for row in runs(1)]
    (row,) = averaged(rows)
    assert band(row, "nll") != (0, 9)
    assert band(rows[0], "nll") == (0, 9)


def test_other_data_sets_and_splits_are_no_runs():
    rows = [make_row("a", 1, run="x"), make_row("a", 1, run="y", dataset="other")]
    rows += [make_row("a", 1, run="z", split="train")]
    assert averaged(rows) == rows


def test_a_score_that_a_run_lacks_has_no_mean():
    rows = runs(1)
    rows[1]["nll"] = None
    del rows[2]["detection"]
    (row,) = averaged(rows)
    assert row["nll"] is None
    assert "nll" not in row["spread"]
    assert "detection" not in row


def test_bins_are_pooled():
    rows = [make_row("a", 1, run=run) for run in "xy"]
    first, second = (row["reliability"] for row in rows)
    first.update(edges=[0, 0.5, 1], count=[0, 10], accuracy=[None, 0.9])
    first.update(confidence=[None, 0.8])
    second.update(edges=[0, 0.5, 1], count=[0, 30], accuracy=[None, 0.5])
    second.update(confidence=[None, 0.6])
    (row,) = averaged(rows)
    assert row["reliability"]["count"] == [0, 40]
    assert row["reliability"]["accuracy"][1] == pytest.approx(0.6)
    assert row["reliability"]["confidence"][1] == pytest.approx(0.65)
    second["edges"] = [0, 0.6, 1]
    assert averaged(rows)[0]["reliability"] is None


def test_curves_are_averaged_on_the_same_coverages():
    rows = runs(1)
    coarse = rows[1]["risk_coverage"]
    coarse["coverage"], coarse["risk"] = [0.01, 1.0], [0.1, 0.3]
    (row,) = averaged(rows)
    found = row["risk_coverage"]
    coverage = np.linspace(0.01, 1, 100)
    curves = np.array(
        [
            0.2 * coverage**2,
            0.1 + 0.2 * (coverage - 0.01) / 0.99,
            0.2 * coverage**2 + 0.09,
        ]
    )
    np.testing.assert_allclose(found["risk"], curves.mean(0))
    np.testing.assert_allclose(found["low"], curves.min(0))
    np.testing.assert_allclose(found["high"], curves.max(0))


def test_two_rows_of_one_run_are_refused():
    rows = [*runs(1), scored("a", 1, run="seed1")]
    with pytest.raises(ValueError, match="two rows for 'a' have num_samples 1"):
        averaged(rows)
