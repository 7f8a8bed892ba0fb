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


def test_runs_and_images_are_shown_where_they_differ():
    rows = [make_row("a", 1), make_row("b", 1, num_examples=99, num_runs=3, spread={})]
    names = head(tables.results(rows))
    assert names[2:5] == ["Images", "Runs", "NLL"]
    assert "Runs" not in head(tables.results(rows[1:]))


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
