import pytest
from report_rows import best_cells, cells, demo, head, make_row, scored, with_intervals

from spatial_smoothing.report.columns import COLUMNS
from spatial_smoothing.report.tables import scores as tables


@pytest.mark.parametrize(
    ("table", "names", "values"),
    [
        (
            tables.calibration,
            "MCE,Adaptive ECE,Class-wise ECE,Reliability,Resolution,Uncertainty",
            "20.00,4.00,0.123,0.0123,0.6500,0.9900",
        ),
        (
            tables.uncertainty,
            "Entropy,Mutual inf.,Var. ratio,AURC,E-AURC,Cov. at 5 %",
            "0.700,0.080,8.00,52.1,21.3,61.00",
        ),
        (
            tables.streams,
            "Consistency,CEC,CEC sum",
            "93.00,0.0121,1.210",
        ),
    ],
)
def test_scores_stand_in_their_table(table, names, values):
    found = table([make_row("without", 1), scored("a", 5)])
    assert head(found) == ["Model", "N", *names.split(",")]
    assert cells(found) == [values.split(",")]
    assert table(demo()) is None
    results = tables.results([scored("a", 5)])
    assert not set(names.split(",")) & set(head(results))


def test_every_score_of_a_group_has_a_note_that_says_which_way_is_better():
    for key, column in COLUMNS.items():
        if column.group in ("calibration", "uncertainty", "streams"):
            assert column.note, key
            found = getattr(tables, column.group)([{**scored("a", 5), key: 0.5}])
            notes = [n for n in found.notes if n.startswith(f"{column.heading}: ")]
            assert len(notes) == 1
            assert (f"{column.better} is better." in notes[0]) == bool(column.better)


def test_results_have_their_intervals_in_brackets():
    row = with_intervals(make_row("a", 5, nll=0.85), half=0.0121, keys=["nll"])
    row["signed_ece"], row["intervals"]["signed_ece"] = -0.01, [-0.02, 0.005]
    (line,) = cells(tables.results([row]))
    assert line[0] == "0.850 [0.838, 0.862]"
    assert "−1.00 [−2.00, 0.50]" in line
    row["intervals"] = {"nll": [None, None], "accuracy": None}
    assert cells(tables.results([row]))[0][0] == "0.850"


def test_temperature_is_before_and_after():
    table = tables.temperature([make_row("a", 1), scored("a", 5, nll=0.8, brier=0.3)])
    assert head(table)[:6] == ["Model", "N", "T", "NLL", "ECE", "Brier"]
    (line,) = cells(table)
    assert line == ["1.250", "0.800", "0.770", "3.00", "1.10", "0.300", "0.290"]
    assert tables.temperature(demo()) is None


def test_detection_has_the_scores_side_by_side():
    rows = [scored("a", 1), scored("a", 5, shift=0.01), make_row("b", 1)]
    table = tables.detection(rows)
    assert head(table)[2:6] == ["Confidence", "Entropy", "Mutual information", "Energy"]
    first, second = cells(table)
    assert second == ["81.00", "71.00", "61.00"] * 4
    assert first == ["80.00", "70.00", "60.00"] * 2 + ["–"] * 3 + first[:3]
    assert "81.00" in best_cells(table)
    assert "60.00" in best_cells(table)  # FPR95: lower is better
    expected = "Telling 3,000 images of noise (test split) from those of shapes."
    assert table.caption.startswith(expected)
    assert tables.detection(demo()) is None


def test_runs_and_images_are_counted():
    rows = [make_row("a", 1), make_row("b", 1, num_examples=99, num_runs=3, spread={})]
    assert head(tables.results(rows))[1:5] == ["N", "Runs", "Images", "NLL"]
    assert [line[:2] for line in cells(tables.results(rows))] == [
        ["1", "2000"],
        ["3", "99"],
    ]
    assert "Runs" not in head(tables.results(rows[:1]))
    averages = [
        scored(label, 1, num_runs=runs, spread={})
        for label, runs in (("a", 2), ("b", 3))
    ]
    kinds = ("results", "calibration", "temperature", "uncertainty", "detection")
    for name in (*kinds, "streams"):
        table = getattr(tables, name)(averages)
        assert head(table)[:3] == ["Model", "N", "Runs"], name
        assert [line[0] for line in cells(table)] == ["2", "3"], name


def test_only_like_rows_are_ranked():
    rows = [make_row("a", 1, nll=0.5), make_row("b", 1, nll=0.6)]
    assert "0.500" in best_cells(tables.results(rows))
    for change in ({"num_runs": 2, "spread": {}}, {"num_examples": 9}, {"split": "x"}):
        table = tables.results([rows[0], {**rows[1], **change}])
        assert best_cells(table) == []
        assert "no value is bold" in table.caption
    # Rows without a score do not keep the others from being ranked by it.
    table = tables.results(
        [*rows, make_row("c", 1, num_runs=2, spread={}) | {"nll": None}]
    )
    assert best_cells(table) == ["0.500"]


def test_ranges_over_runs_and_intervals_have_brackets_of_their_own():
    spread = {"nll": [0.7, 0.9]}
    rows = [
        make_row("a", 1, nll=0.8, num_runs=2, spread=spread),
        with_intervals(make_row("b", 1, nll=0.8), half=0.1, keys=["nll"]),
    ]
    table = tables.results(rows)
    assert [line[1] for line in cells(table)] == [
        "0.800 (0.700 … 0.900)",
        "0.800 [0.700, 0.900]",
    ]
    assert (
        "In round brackets, the range over 2 runs; in square brackets, the 95 % "
        "bootstrap interval over the test images." in table.caption
    )


def test_conditional_scores_have_their_number_of_images_and_no_best():
    row = make_row("a", 1, frequency_90=0.001, accuracy_90=1.0, accuracy=0.7)
    row["intervals"] = {"accuracy_90": [1.0, 1.0]}
    other = make_row("b", 1, frequency_90=0.0, accuracy_90=None, accuracy=0.8)
    table = tables.results([row, other])
    names = head(table)[2:]
    first, second = (dict(zip(names, line, strict=True)) for line in cells(table))
    assert first["Acc-90"] == "100.00 [100.00, 100.00] n = 2"
    assert second["Acc-90"] == "– n = 0"
    assert first["Unc-90"] == "82.00 n = 600"
    assert "100.00" not in best_cells(table)
    assert "82.00" not in best_cells(table)
    assert "80.00" in best_cells(table)  # the accuracy is of all images
    assert any("so that no value is bold" in note for note in table.notes)
    defined = {"accuracy_90": 0.99, "iou_90": 0.98, "unconfidence_90": 0.97}
    table = tables.results(
        [make_row("a", 1), make_row("b", 1, accuracy=0.8, **defined)]
    )
    assert best_cells(table) == ["80.00"]


def test_definitions_show_only_entries_that_differ():
    rows = [{**row, "reliability": None} for row in demo()]
    assert "They agree on every entry" in tables.definitions(rows).lead
    assert not tables.definitions(rows).head
    rows[3]["reference"]["ece"] = 0.30303
    rows[5]["reference"]["nll"] = 1.23456
    rows[6]["reference"]["nll"] += 1e-9
    table = tables.definitions(rows)
    assert head(table)[2:] == ["NLL", "ECE", *["fixed", "reference"] * 2]
    assert cells(table) == [
        ["", "", "3.67", "30.30"],
        [f"{rows[5]['nll']:.3f}", "1.235", "", ""],
    ]
    without = [{**row, "reference": None} for row in rows]
    assert tables.definitions(without) is None
