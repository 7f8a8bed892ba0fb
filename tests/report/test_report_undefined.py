"""What is undefined is not zero: on the page, in the files and in comparisons."""

import csv
import json
import math

from report_rows import Page, make_row, write

from spatial_smoothing import report
from spatial_smoothing.report.comparisons import checked_differences
from spatial_smoothing.report.tables import differences


def rows():
    """A model without a prediction above 90 %, and one with two right ones."""
    none = {"accuracy_90": math.nan, "iou_90": math.nan, "frequency_90": 0.0}
    none["intervals"] = {"accuracy_90": [math.nan, math.nan]}
    two = {"accuracy_90": 1.0, "iou_90": 1.0, "frequency_90": 0.001}
    return [make_row("none", 1, **none), make_row("two", 1, **two)]


def test_pages_have_a_dash_and_the_number_of_images(tmp_path):
    page = Page(write(tmp_path, rows()).read_text())
    assert page.texts.count("n = 0") == 2  # of Acc-90 and IoU-90
    assert page.texts.count("n = 2") == 2
    assert page.texts.count("–") == 2
    assert not {"nan", "None", "0.00 [0.00, 0.00]"} & {*page.texts}
    assert not page.all("strong")  # all else is alike


def test_files_are_empty_or_null(tmp_path):
    write(tmp_path, rows())
    found = json.loads((tmp_path / "metrics.json").read_text())["rows"]
    assert found[0]["accuracy_90"] is None
    assert found[0]["intervals"] == {}
    assert found[1]["accuracy_90"] == 1.0
    with open(tmp_path / "metrics.csv", newline="") as file:
        first, second = csv.DictReader(file)
    assert first["accuracy_90"] == first["iou_90"] == ""
    assert second["accuracy_90"] == "1.0"


def test_means_over_runs_are_undefined_where_a_run_is(tmp_path):
    pair = [
        {**row, "label": "a", "run": run} for row, run in zip(rows(), "ab", strict=True)
    ]
    other = make_row("b", 1)
    page = Page(write(tmp_path, [*pair, other]).read_text())
    assert page.texts.count("–") == 2
    assert page.texts.count("n = 1") == 2  # the mean of none and two
    pair[1]["frequency_90"] = 0.0005
    page = Page(write(tmp_path, [*pair, other]).read_text())
    assert page.texts.count("n = 0.5") == 2


def test_no_difference_of_what_is_undefined():
    given = {"label": "a minus b", "num_samples": 1, "num_examples": 5}
    values = {"accuracy_90": [math.nan] * 3, "nll": [-0.1, -0.2, -0.05]}
    (found,) = checked_differences([{**given, "values": values}])
    (line,) = differences.differences_table([found]).groups[0]
    assert [cell.text for cell in line.cells] == ["−0.100*", "–"]


def test_zeros_of_earlier_versions_are_undefined(tmp_path):
    old = rows()[0] | {"accuracy_90": 0.0, "iou_90": 0.0}
    old["intervals"] = {"accuracy_90": [0.0, 0.0], "nll": [0.8, 0.9]}
    page = Page(write(tmp_path, [old, make_row("other", 1)]).read_text())
    assert page.texts.count("–") == 2
    (found, _), _ = report.read(tmp_path / "metrics.json")
    assert found["accuracy_90"] is found["iou_90"] is None
    assert found["intervals"] == {"nll": [0.8, 0.9]}
    assert found["unconfidence_90"] == old["unconfidence_90"]


def test_terminal_has_a_dash():
    columns = report.table(rows(), columns=("label", "accuracy_90")).columns
    cells = list(columns[1].cells)
    assert [cell.plain.strip() for cell in cells] == ["–", "100.00"]
    assert {cell.style for cell in cells} == {""}
