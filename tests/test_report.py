import base64
import csv
import itertools
import json
import math
import resource
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from rich.console import Console

from spatial_smoothing import report
from spatial_smoothing.report import summary

SIZES = (1, 2, 3, 4, 5, 10, 20, 50)
EDGES = np.linspace(0, 1, 11)
PROVENANCE = {"commit": "abc", "seed": 0, "config": {"model": "m", "sizes": [1, 2]}}
VOID = {"meta", "img"}


def make_row(label, size, *, model="resnet_mcdo_18", nll=None, **changes):
    """A row whose values are those of no model but all different."""
    nll = 0.8 + 0.1 / 3 / size if nll is None else nll
    count = np.array([0, 0, 3, 0, 7, 11, 20, 30, 29, 100 * size])
    scores = {
        "nll": nll,
        "accuracy": 0.75 - 0.1 / size,
        "accuracy_90": 0.9 + 0.01 / size,
        "unconfidence_90": 0.8 + 0.02 / size,
        "iou": 0.6 - 0.1 / size,
        "iou_90": 0.7 - 0.1 / size,
        "frequency_90": 0.3 + 0.1 / size,
        "top5": 0.95 - 0.1 / size,
        "brier": 0.3 + 0.03 / size,
        "ece": 0.02 + 0.05 / size,
        "signed_ece": -0.01 - 0.05 / size,
    }
    row = {
        "label": label,
        "model": model,
        "dataset": "shapes",
        "split": "test",
        "num_samples": size,
        "num_examples": 2000,
        **scores,
        "reference": dict(scores),
        "reliability": {
            "edges": EDGES.tolist(),
            "count": count.tolist(),
            "accuracy": np.where(count > 0, EDGES[:-1] + 0.06, 0).tolist(),
            "confidence": np.where(count > 0, EDGES[:-1] + 0.05, 0).tolist(),
        },
    }
    return {**row, **changes}


def curve(label, *, sizes=SIZES, **changes):
    return [make_row(label, size, **changes) for size in sizes]


def demo():
    return [
        *curve("Deterministic", sizes=(1,), model="resnet_dnn_18", nll=0.9),
        *curve("MC dropout"),
        *curve("MC dropout + smoothing", model="resnet_mcdo_smoothing_18"),
    ]


def write(path, rows, **options):
    options = {"provenance": PROVENANCE, "title": "A title", **options}
    return report.write(path, rows, **options)


class Page(HTMLParser):
    """Checks that tags are balanced and keeps tags, attributes and text."""

    def __init__(self, document):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(document)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


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


@pytest.mark.parametrize(
    ("panel", "key", "scale"), [(0, "nll", 1), (1, "accuracy", 100), (2, "ece", 100)]
)
def test_ensemble_size_figure_draws_the_rows(panel, key, scale):
    rows = demo()
    figure = report.ensemble_size_figure(reversed(rows))
    axes = figure.axes[panel]
    smoothed, plain, deterministic = axes.lines
    for line, label in ((plain, "MC dropout"), (smoothed, "MC dropout + smoothing")):
        values = [scale * row[key] for row in rows if row["label"] == label]
        np.testing.assert_array_equal(line.get_xdata(), SIZES)
        np.testing.assert_allclose(line.get_ydata(), values, rtol=1e-12)
    np.testing.assert_allclose(deterministic.get_ydata(), scale * rows[0][key])
    assert deterministic.get_linestyle() == "--"
    assert list(axes.get_xticks()) == list(SIZES)
    assert [tick.get_text() for tick in axes.get_xticklabels()] == list(map(str, SIZES))
    better = "higher" if key == "accuracy" else "lower"
    assert f"{better} is better" in axes.get_title(loc="left")
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["MC dropout + smoothing", "MC dropout", "Deterministic"]


@pytest.mark.parametrize("sizes", [SIZES, range(1, 51), (1, 10, 100, 101, 1000)])
def test_size_labels_do_not_overlap(sizes):
    figure = report.ensemble_size_figure(curve("a", sizes=sizes))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    for axes in figure.axes:
        assert list(axes.get_xticks()) == list(sizes)
        labels = [tick for tick in axes.get_xticklabels() if tick.get_text()]
        assert labels[0].get_text() == "1"
        assert labels[-1].get_text() == str(max(sizes))
        boxes = [label.get_window_extent(canvas.get_renderer()) for label in labels]
        for left, right in itertools.pairwise(boxes):
            assert left.x1 < right.x0


def test_reliability_figure_draws_the_bins_with_images():
    rows = demo()
    figure = report.reliability_figure(rows)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "Deterministic",
        "MC dropout",
        "MC dropout + smoothing",
    ]
    axes, row = figure.axes[1], rows[8]
    used = np.flatnonzero(row["reliability"]["count"])
    accuracy = 100 * np.array(row["reliability"]["accuracy"])[used]
    confidence = 100 * np.array(row["reliability"]["confidence"])[used]
    bars, over, under = axes.containers
    np.testing.assert_allclose([bar.get_height() for bar in bars], accuracy)
    centres = [bar.get_x() + bar.get_width() / 2 for bar in bars]
    np.testing.assert_allclose(centres, 100 * EDGES[used] + 5)
    ends = [bar.get_y() + bar.get_height() for bar in under]
    np.testing.assert_allclose(ends, confidence)
    np.testing.assert_allclose([bar.get_height() for bar in over], 0)
    points = axes.lines[-1]
    np.testing.assert_allclose(points.get_ydata(), accuracy)
    np.testing.assert_allclose(points.get_xdata(), confidence)
    assert axes.texts[0].get_text() == "N = 50: ECE 2.10 %\nN = 1: ECE 7.00 %"
    assert figure.axes[0].texts[0].get_text() == "N = 1: ECE 7.00 %"


def test_confidence_figure_draws_the_share_of_the_images():
    rows = demo()
    deterministic, plain, _ = report.confidence_figure(rows).axes
    assert len(deterministic.patches) == 1
    for patch, row in zip(plain.patches, (rows[8], rows[1]), strict=True):
        count = np.array(row["reliability"]["count"])
        values, edges, _ = patch.get_data()
        np.testing.assert_allclose(values, 100 * count / count.sum())
        np.testing.assert_allclose(edges, 100 * EDGES)


def test_figures_leave_matplotlib_as_it_was():
    before = dict(matplotlib.rcParams)
    report.ensemble_size_figure(demo())
    report.confidence_figure(demo())
    assert dict(matplotlib.rcParams) == before


def test_page_is_well_formed_and_needs_nothing_else(demo_report):
    document = demo_report.read_text()
    page = Page(document)
    assert document.startswith("<!DOCTYPE html>")
    assert "http:" not in document
    assert "https:" not in document
    assert "url(" not in document
    assert not page.all("script")
    assert not page.all("link")
    images = page.all("img")
    names = ("ensemble_size.png", "reliability.png", "confidence.png")
    for image, name in zip(images, names, strict=True):
        header, data = image["src"].split(",")
        assert header == "data:image/png;base64"
        assert base64.b64decode(data) == demo_report.with_name(name).read_bytes()
        assert "MC dropout + smoothing (N = 50)" in image["alt"]
    assert len(page.all("tr")) == 1 + 17
    assert "0.900" in page.texts
    assert "−6.00" in page.texts
    assert [text for text in page.texts if text == "commit"]


def test_page_escapes_every_text(tmp_path):
    nasty = '<b>&"$_x'
    rows = curve(nasty, model=nasty, dataset=nasty, split=nasty)
    rows[0][nasty] = 1.0
    rows[0]["reference"] = {"nll": 2.0}
    provenance = {nasty: nasty, f"{nasty}2": {nasty: [nasty]}}
    document = write(tmp_path, rows, title=nasty, provenance=provenance).read_text()
    page = Page(document)
    assert "<b>" not in document
    assert not page.all("b")
    assert page.texts.count(nasty) >= 8
    assert all(nasty in image["alt"] for image in page.all("img"))
    assert report.read(tmp_path / "metrics.json")[1] == provenance


@pytest.mark.parametrize("label", ["_private", r"a $\frac$ b", "x" * 40])
def test_figures_take_any_label(label):
    figure = report.ensemble_size_figure(curve(label))
    report.figures.canvas.png(figure)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [label]


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
    rows = [{**row, "auroc": 0.98765, "note": "text"} for row in curve("a", sizes=(1,))]
    texts = Page(write(tmp_path, rows).read_text()).texts
    assert "auroc" in texts
    assert texts.count("0.9877") == len(rows)
    assert report.read(tmp_path / "metrics.json")[0] == rows
    header = (tmp_path / "metrics.csv").read_text().splitlines()[0]
    assert header.endswith("auroc,note")


def test_page_shows_only_entries_that_the_definitions_differ_on(tmp_path):
    rows = [{**row, "reliability": None} for row in demo()]
    assert "They agree on every entry" in write(tmp_path, rows).read_text()
    rows[3]["reference"]["ece"] = 0.30303
    rows[5]["reference"]["nll"] = 1.23456
    rows[6]["reference"]["nll"] += 1e-9
    page = Page(write(tmp_path, rows).read_text())
    assert page.texts.count("reference") == 2  # one for NLL, one for ECE
    assert page.texts.count("30.30") == page.texts.count("1.235") == 1
    assert len(page.all("tr")) == 1 + 17 + 2 + 2
    without = [{**row, "reference": None} for row in rows]
    assert "Two definitions" not in write(tmp_path, without).read_text()


def pair(plain, smoothed):
    """Rows without and with smoothing from {size: NLL}."""
    plain_rows = [make_row("A", size) | {"nll": nll} for size, nll in plain.items()]
    model = "resnet_mcdo_smoothing_18"
    return plain_rows + [
        make_row("A + smoothing", size, model=model) | {"nll": nll}
        for size, nll in smoothed.items()
    ]


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
            "A + smoothing with 1 sample has NLL 0.90001, above that of A with 1 "
            "sample, 0.90000.",
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


def printed(rows, **options):
    console = Console(width=80, force_terminal=False)
    with console.capture() as capture:
        console.print(report.table(rows, **options))
    return capture.get().splitlines()


def test_table_fits_80_columns():
    rows = [row for name in "abcdef" for row in curve((name + " name") * 7)]
    lines = printed(rows)
    assert max(map(len, lines)) <= 80
    for row in rows:
        numbers = f"{row['nll']:.3f} {100 * row['accuracy']:.2f} {100 * row['ece']:.2f}"
        found = [line.split()[-4:-1] for line in lines]
        assert numbers.split() in found
    header = "Model N NLL Accuracy % ECE % Brier"
    assert header in [" ".join(line.split()) for line in lines]


def test_table_shows_each_label_once_and_marks_the_best():
    rows = demo()
    lines = printed(rows)
    assert sum("MC dropout + smoothing" in line for line in lines) == 1
    nll = list(report.table(rows).columns[2].cells)
    bold = [cell.plain for cell in nll if cell.style == "bold"]
    assert bold == [f"{min(row['nll'] for row in rows):.3f}"] * 2  # a tie
    single = report.table(rows[:1]).columns[2].cells
    assert [cell.style for cell in single] == [""]


def test_table_takes_markup_as_text_and_other_columns():
    rows = curve("[bold]a[/]")
    assert any("[bold]a[/]" in line for line in printed(rows))
    rows[0]["signed_ece"] = -1e-9
    lines = printed(rows, columns=("label", "signed_ece", "split"))
    assert any(line.split()[-2:] == ["0.00", "test"] for line in lines)
    assert any(line.split() == ["-1.10", "test"] for line in lines)
    with pytest.raises(ValueError, match="unknown column 'nil'; did you mean 'nll'"):
        report.table(rows, columns=("nil",))


def test_print_table_prints_it(capsys):
    report.print_table(demo())
    assert "MC dropout + smoothing" in capsys.readouterr().out


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


def test_series_of_several_data_sets_are_told_apart(tmp_path):
    rows = curve("a") + curve("a", dataset="cifar10")
    labels = report.ensemble_size_figure(rows).legends[0].get_texts()
    assert [text.get_text() for text in labels] == ["a (shapes)", "a (cifar10)"]


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


def test_figures_of_bins_need_bins():
    rows = [{**row, "reliability": None} for row in demo()]
    for draw in (report.reliability_figure, report.confidence_figure):
        with pytest.raises(ValueError, match="no row has 'reliability'"):
            draw(rows)


def test_read_refuses_another_file(tmp_path):
    path = tmp_path / "metrics.json"
    for content in ("[]", "{", "{}"):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"metrics.json' is not the metrics.json"):
            report.read(path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        report.read(tmp_path / "nowhere")
