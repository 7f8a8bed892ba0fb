from report_rows import cells, demo, head, make_row, pair

from spatial_smoothing.report import comparisons
from spatial_smoothing.report.tables import differences
from spatial_smoothing.runs import labels


def difference(**values):
    return {"label": "a minus b", "num_samples": 50, "num_examples": 10000} | {
        "values": values
    }


def test_differences_that_exclude_zero_are_marked():
    table = differences.differences_table(
        [
            difference(ece=[0.001, -0.002, 0.004], nll=[-0.05, -0.07, -0.03]),
            difference(accuracy=[0.01, 0.002, 0.02], nll=[None, None, None]),
        ]
    )
    assert head(table) == ["Difference", "N", "NLL", "Accuracy", "ECE"]
    assert cells(table) == [
        ["−0.050* [−0.070, −0.030]", "–", "+0.10 [−0.20, 0.40]"],
        ["–", "+1.00* [0.20, 2.00]", "–"],
    ]
    assert "on the same 10,000 test images" in table.caption
    assert "paired bootstrap" in table.caption
    assert differences.differences_table([]) is None


def test_an_interval_that_ends_at_zero_does_not_exclude_it():
    assert not comparisons.excludes_zero([0.1, 0.0, 0.2])
    assert not comparisons.excludes_zero([-0.1, -0.2, 0.0])
    assert comparisons.excludes_zero([0.1, 1e-9, 0.2])
    assert not comparisons.excludes_zero([0.1, None, None])


def test_equivalent_size_is_the_smallest_that_reaches_the_largest():
    rows = pair({1: 0.9, 50: 0.85}, {1: 0.9, 2: 0.86, 5: 0.85, 50: 0.8})
    plain = rows[1]
    plain.update(accuracy=0.77, ece=0.03)
    for row, accuracy, ece in zip(
        rows[2:], (0.76, 0.77, 0.79, 0.79), (0.05, 0.04, 0.035, 0.031), strict=True
    ):
        row.update(accuracy=accuracy, ece=ece)
    table = differences.equivalents_table(rows)
    (line,) = cells(table)
    assert line == ["A", "50", "0.850", "5", "77.00", "2", "3.00", "not reached"]
    assert head(table)[:3] == ["Smoothed model", "Unsmoothed model", "at N"]


def test_equivalent_size_takes_no_missing_value():
    rows = pair({1: 0.9, 50: 0.85}, {1: 0.8, 2: 0.8})
    rows[1]["ece"] = rows[2]["nll"] = None
    (line,) = cells(differences.equivalents_table(rows))
    assert line[2:4] == ["0.850", "2"]
    assert "–" not in line
    assert len(line) == 6  # no target for the ECE


def test_baselines_are_those_of_the_same_ensemble():
    names = ("MC dropout", "Deep ensemble of MC dropout", "MC dropout + temporal")
    groups = {name: [make_row(name, 1)] for name in names}
    smooth = [n.replace("MC dropout", "MC dropout + smoothing") for n in names]
    model = "resnet_mcdo_smoothing_18"
    groups |= {name: [make_row(name, 1, model=model)] for name in smooth}
    expected = list(zip(smooth, names, strict=True))
    assert comparisons.smoothing_pairs(groups) == expected


def test_baselines_differ_in_nothing_but_smoothing():
    smooth = {"model": "resnet_mcdo_smoothing_18"}
    groups = {
        name: [make_row(name, 1, recipe=recipe, **changes)]
        for name, recipe, changes in (
            ("narrow", "a", {}),
            ("wide", "b", {}),
            ("narrow + smoothing", "a", smooth),
            ("long + smoothing", "c", smooth),
            ("wide, smoothed by its config", "b", {"smoothed": True}),
        )
    }
    assert comparisons.smoothing_pairs(groups) == [
        ("narrow + smoothing", "narrow"),
        ("wide, smoothed by its config", "wide"),
    ]


def test_equivalent_size_needs_a_pair():
    assert differences.equivalents_table([make_row("a", 1), make_row("a", 5)]) is None
    assert len(cells(differences.equivalents_table(demo()))) == 1


def test_only_models_of_equally_many_runs_are_compared():
    rows = pair({1: 0.9, 50: 0.85}, {1: 0.9, 50: 0.8})
    averaged = [{**row, "num_runs": 2, "spread": {}} for row in rows]
    table = differences.equivalents_table(averaged)
    assert head(table)[:4] == ["Smoothed model", "Unsmoothed model", "at N", "Runs"]
    assert cells(table)[0][:4] == ["A", "50", "2", "0.850"]
    assert differences.equivalents_table([*rows[:2], *averaged[2:]]) is None
    assert not comparisons.are_alike(rows[:2], averaged[2:])
    assert comparisons.are_alike(averaged[:2], averaged[2:])


def test_differences_of_means_count_their_runs():
    of_two = difference(nll=[-0.05, -0.07, -0.03]) | {"num_runs": 2}
    table = differences.differences_table([of_two])
    assert head(table) == ["Difference", "N", "Runs", "NLL"]
    assert cells(table) == [["2", "−0.050* [−0.070, −0.030]"]]


def test_reports_pair_models_by_the_name_that_runs_give_them():
    # Two constants, because reports know no runs, and runs start without reports.
    assert comparisons.SMOOTHED == labels.SMOOTHED
