import csv
import json
import math
import resource

import numpy as np
import pytest
from report_rows import PROVENANCE, Page, curve, demo, with_intervals, write

from spatial_smoothing import report
from spatial_smoothing.report.files import npz_bytes


@pytest.fixture(scope="module")
def demo_report(tmp_path_factory):
    numpy_rows = [
        {
            key: np.float64(value) if isinstance(value, float) else value
            for key, value in row.items()
        }
        for row in demo()
    ]
    return write(tmp_path_factory.mktemp("demo") / "new" / "report", numpy_rows)


def test_json_round_trip_is_exact(demo_report):
    assert demo_report.parts[-3:] == ("new", "report", "report.html")
    assert report.read(demo_report.with_name("metrics.json")) == (demo(), PROVENANCE)


def test_csv_round_trip_is_exact(tmp_path):
    rows = curve("a, b", sizes=(1,)) + curve('"c"', sizes=(1,))
    write(tmp_path, rows)
    with open(tmp_path / "metrics.csv", newline="") as file:
        found = list(csv.DictReader(file))
    flat = [key for key in rows[0] if key not in ("reference", "reliability")]
    assert list(found[0]) == flat
    kinds = {key: type(rows[0][key]) for key in flat}
    assert [{key: kinds[key](line[key]) for key in flat} for line in found] == [
        {key: row[key] for key in flat} for row in rows
    ]


def test_numbers_that_are_not_finite_are_null(tmp_path):
    rows = curve("a")
    rows[1]["nll"], rows[2]["ece"], rows[3]["brier"] = math.nan, math.inf, np.nan
    rows[4]["reliability"]["accuracy"][0] = math.nan
    page = write(tmp_path, rows).read_text()

    def refuse(constant):
        raise AssertionError(constant)

    text = (tmp_path / "metrics.json").read_text()
    found = json.loads(text, parse_constant=refuse)["rows"]
    assert found[1]["nll"] is found[2]["ece"] is found[3]["brier"] is None
    with open(tmp_path / "metrics.csv", newline="") as file:
        assert list(csv.DictReader(file))[1]["nll"] == ""
    texts = Page(page).texts
    assert texts.count("–") == 3
    assert not {"nan", "inf", "None"} & {text.strip() for text in texts}
    line = report.ensemble_size_figure(rows).axes[0].lines[0]
    np.testing.assert_array_equal(np.isnan(line.get_ydata()), np.arange(8) == 1)
    write(tmp_path, found)


def test_rows_without_any_metric_still_make_a_report(tmp_path):
    page = write(tmp_path, [{"label": "a", "num_samples": size} for size in (1, 2)])
    assert "No row has a finite NLL." in page.read_text()
    assert not (tmp_path / "reliability.png").exists()


def test_single_deterministic_row(tmp_path):
    rows = curve("Deterministic", sizes=(1,), model="resnet_dnn_18", nll=0.9)
    (tmp_path / "ensemble_size.png").write_bytes(b"of an earlier report")
    document = write(tmp_path, rows).read_text()
    assert len(Page(document).all("img")) == 2
    assert "Deterministic with 1 sample has an NLL of 0.900 nats" in document
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "confidence.png",
        "metrics.csv",
        "metrics.json",
        "reliability.png",
        "report.html",
    ]
    lines = report.ensemble_size_figure(rows).axes[0].lines
    np.testing.assert_array_equal(lines[0].get_ydata(), 0.9)


def test_unknown_keys_are_carried_along(tmp_path):
    rows = [{**row, "sharp": 0.98765, "note": "text"} for row in curve("a", sizes=(1,))]
    texts = Page(write(tmp_path, rows).read_text()).texts
    assert "sharp" in texts
    assert texts.count("0.9877") == len(rows)
    assert report.read(tmp_path / "metrics.json")[0] == rows
    header = (tmp_path / "metrics.csv").read_text().splitlines()[0]
    assert header.endswith("sharp,note")


@pytest.mark.parametrize("below", ["", "sub"])
def test_output_that_cannot_be_written_is_one_clear_line(tmp_path, below):
    blocker = tmp_path / "file"
    blocker.write_text("kept")
    output = blocker / below
    with pytest.raises(OSError, match="cannot write the report to") as error:
        write(output, curve("a", sizes=(1,)))
    assert str(output) in str(error.value)
    assert "\n" not in str(error.value)
    assert blocker.read_text() == "kept"
    assert list(tmp_path.iterdir()) == [blocker]


def test_failed_report_leaves_the_earlier_one_alone(tmp_path):
    write(tmp_path, curve("old", sizes=(1,)))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(TypeError, match="not JSON serializable"):
        write(tmp_path, curve("new", sizes=(1,)), provenance={"path": tmp_path})
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))  # as a full disk
    try:
        with pytest.raises(OSError, match=r"cannot write the report .* too large"):
            write(tmp_path, curve("new", sizes=(1,)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "at least one row, got none"),
        ([{"num_samples": 1}], "row 0 has label None"),
        ([{"label": "a", "num_samples": 0}], "'a'.* has num_samples 0; expected an"),
        ([{"label": "a"}], "has num_samples None"),
        (curve("a") + curve("a", sizes=(5,)), "two rows for 'a' have num_samples 5"),
    ],
)
def test_rows_that_are_none_are_refused(rows, message, tmp_path):
    for call in (report.table, report.ensemble_size_figure):
        with pytest.raises(ValueError, match=message):
            call(rows)
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "new", rows)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "record",
    [
        {"rows": None, "provenance": {}},
        {"rows": [1], "provenance": {}},
        {"rows": {"a": 1}, "provenance": {}},
        {"rows": [{}], "provenance": None},
    ],
)
def test_read_refuses_what_is_no_list_of_rows(record, tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"is not the metrics.json of a report"):
        report.read(path)


def test_read_says_which_arrays_are_damaged(tmp_path):
    rows = [{"suite": "hessian", "label": "A", "run": "a"}]
    page = report.write(tmp_path, rows)
    path = page.with_name("metrics.json")
    whole = npz_bytes([{"arrays": {"x": np.arange(3000.0)}}])
    another = npz_bytes([{"arrays": {"x": np.arange(3)}}] * 2)
    damaged = [whole[: len(whole) // 2], b"", whole[:100] + b"z" * 8 + whole[108:]]
    for content in (*damaged, another):
        page.with_name("hessian.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"hessian.npz' is damaged, or not of the"):
            report.read(path)
        ((row,), _) = report.read(path, with_arrays=False)
        assert row == rows[0]
    page.with_name("hessian.npz").write_bytes(whole)
    ((row,), _) = report.read(path)
    assert row["arrays"]["x"].shape == (3000,)


def test_read_refuses_another_file(tmp_path):
    path = tmp_path / "metrics.json"
    for content in ("[]", "{", "{}"):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"metrics.json' is not the metrics.json"):
            report.read(path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        report.read(tmp_path / "nowhere")


def test_csv_has_the_ends_of_intervals_beside_the_values(tmp_path):
    rows = curve("a", sizes=(1, 2))
    rows[1] = with_intervals(rows[1], half=0.25, keys=["nll"])
    write(tmp_path, rows)
    with open(tmp_path / "metrics.csv", newline="") as file:
        first, second = csv.DictReader(file)
    names = list(first)
    assert names[names.index("nll") :][:4] == ["nll", "nll_low", "nll_high", "accuracy"]
    assert first["nll_low"] == first["nll_high"] == ""
    low, high = rows[1]["intervals"]["nll"]
    assert (float(second["nll_low"]), float(second["nll_high"])) == (low, high)
    assert "intervals" not in names


def test_files_keep_the_single_runs(tmp_path):
    rows = [row for run in "ab" for row in curve("a", sizes=(1, 2), run=run)]
    texts = Page(write(tmp_path, rows).read_text()).texts
    assert report.read(tmp_path / "metrics.json")[0] == rows
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 1 + 4
    assert texts.count("1") == 1  # the page has one row for each size


def test_differences_are_stored_where_there_are_any(tmp_path):
    rows = [{"label": "a", "num_samples": 1, "nll": 0.5}]
    write(tmp_path, rows)
    assert "differences" not in json.loads((tmp_path / "metrics.json").read_text())
    differences = [
        {"label": "a minus b", "num_samples": 1, "values": {"nll": [-0.1, -0.2, 0.0]}}
    ]
    write(tmp_path, rows, differences=differences)
    found = json.loads((tmp_path / "metrics.json").read_text())["differences"]
    assert found == differences
    assert report.read(tmp_path / "metrics.json") == (rows, PROVENANCE)


@pytest.mark.parametrize(
    ("difference", "message"),
    [
        ({"num_samples": 1}, "difference 0 has label None"),
        ({"label": "a minus b", "num_samples": 1}, "difference 0 has values None"),
        (
            {"label": "a minus b", "num_samples": 1, "values": {"nll": [1, 2]}},
            r"'a minus b'.* has nll \[1, 2\]; expected \[estimate, low, high\]",
        ),
    ],
)
def test_differences_that_are_none_are_refused(difference, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "new", curve("a"), differences=[difference])
    assert not (tmp_path / "new").exists()


def test_further_files_are_replaced_with_the_report_or_not_at_all(tmp_path):
    write(tmp_path, demo(), files={"examples.npz": b"old"})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert before["examples.npz"] == b"old"
    twice = [*demo(), *demo()]
    with pytest.raises(ValueError, match="two rows for"):
        write(tmp_path, twice, files={"examples.npz": b"new"})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    write(tmp_path, demo(), files={"examples.npz": b"new"})
    assert (tmp_path / "examples.npz").read_bytes() == b"new"
