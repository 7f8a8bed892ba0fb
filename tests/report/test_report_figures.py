"""How the figures look: what would overlap, be cut off or say what is not there."""

import base64
import io
import itertools
import os
import re
import subprocess
import sys

import analysis_rows
import numpy as np
import PIL.Image
import pytest
import robustness_rows
from checkout import ROOT
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from report_rows import curve, demo, make_row, pair, scored, with_intervals

from spatial_smoothing import report
from spatial_smoothing.report.chapters import (
    corruption_figures,
    landscape,
    perturbation,
    variance,
)
from spatial_smoothing.report.figures import axes as figure_axes
from spatial_smoothing.report.figures import canvas

PLAIN, SMOOTH = analysis_rows.NAMES


def drawn(figure):
    """Draws a figure; returns its renderer."""
    drawing = FigureCanvasAgg(figure)
    drawing.draw()
    return drawing.get_renderer()


def shape(axes):
    """Lines and columns of the panels that a panel is one of."""
    return axes.get_subplotspec().get_gridspec().get_geometry()


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_colours_follow_the_model():
    rows = [*curve("A"), *(scored("B", size) for size in (1, 5)), make_row("C", 1)]
    first = report.ensemble_size_figure(rows).axes[0].lines
    colours = {
        label: line.get_color() for label, line in zip("ABC", first, strict=True)
    }
    assert len({*colours.values()}) == 3
    risk = report.risk_coverage_figure(rows).axes[0].lines[0]  # of B alone
    assert risk.get_color() == colours["B"]
    detection = report.detection_figure(rows).axes[0].lines[0]
    assert detection.get_color() == colours["B"]
    for panel, label in zip(report.confidence_figure(rows).axes, "ABC", strict=True):
        bars = panel.patches[0].get_facecolor()[:3]
        assert bars == pytest.approx(canvas.pale(colours[label]))


def test_figures_of_one_report_share_their_looks():
    looks = canvas.Looks(["A", "B"])
    figure = report.ensemble_size_figure(curve("B"), looks=looks)
    line = figure.axes[0].lines[0]
    second = canvas.Looks(["B", "x", "A"])["B"]
    assert (line.get_color(), line.get_marker()) == tuple(second.values())
    assert looks["new"] == looks["new"] != looks["B"]


def test_ensembles_have_their_colour_in_every_report():
    plain, smooth = "MC dropout", "MC dropout + smoothing"
    both = canvas.Looks([smooth, "My net", plain])
    for names in ([plain, smooth], [smooth], ["A net", smooth], []):
        assert canvas.Looks(names)[smooth] == both[smooth]
    assert canvas.Looks([f"{smooth} (runs/a)"])[f"{smooth} (runs/a)"] == both[smooth]
    # Two of one kind are told apart.
    twice = canvas.Looks([f"{plain} (cifar10)", f"{plain} (cifar100)"])
    assert twice[f"{plain} (cifar10)"] != twice[f"{plain} (cifar100)"]
    assert len({both[name]["color"] for name in (plain, smooth, "My net")}) == 3


def test_files_for_papers_have_the_width_that_is_asked_for(tmp_path):
    rows = [scored("MC dropout", size) for size in (1, 5)]
    report.write(tmp_path, rows, formats=("pdf", "svg", "png"), figure_width=3.25)
    names = {path.stem for path in tmp_path.glob("*.png")}
    assert names >= {"ensemble_size", "risk_coverage", "detection"}
    for name in names:
        pdf = (tmp_path / f"{name}.pdf").read_bytes()
        assert re.search(rb"/MediaBox \[ 0 0 234 [\d.]+ \]", pdf)
        assert b"/Type3" not in pdf
        svg = (tmp_path / f"{name}.svg").read_text()
        assert re.search(r'<svg [^>]*width="234pt"', svg)
        with PIL.Image.open(tmp_path / f"{name}.png") as image:
            assert image.width == 650
    # The page has pictures of its own, which are larger.
    page = (tmp_path / "report.html").read_text()
    data = re.search(r"data:image/png;base64,([^\"]+)", page)[1]
    with PIL.Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.width > 800
    # An earlier report's files do not stay beside those of another.
    report.write(tmp_path, [make_row("A", 1)], formats=("svg",))
    assert not [*tmp_path.glob("*.pdf"), *tmp_path.glob("*.png")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formats": ["jpg"]}, "unknown format of figures 'jpg'; .*png, pdf, svg"),
        ({"formats": []}, "no format of figures"),
        ({"figure_width": 0.5}, "figure_width must be 1 to 100 inches, got 0.5"),
        ({"figure_width": float("nan")}, "figure_width must be"),
    ],
)
def test_files_that_figures_cannot_be(tmp_path, options, message):
    for function in (report.check, lambda path, **o: report.write(path, [], **o)):
        with pytest.raises(ValueError, match=message):
            function(tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_notebooks_show_figures():
    figure = report.ensemble_size_figure(curve("A"))
    assert figure._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "draw",
    [
        report.ensemble_size_figure,
        report.time_figure,
        report.detection_figure,
        report.reliability_figure,
        report.confidence_figure,
    ],
)
def test_panels_stand_below_each_other_in_a_narrow_window(draw):
    rows = [scored(label, size) for label in "abc" for size in (1, 5)]
    wide, narrow = draw(rows), draw(rows, columns=1)
    count = len(wide.axes)
    assert shape(wide.axes[0])[1] > 1
    assert len(narrow.axes) == count
    assert shape(narrow.axes[0]) == (count, 1)
    assert narrow.get_figwidth() == canvas.NARROW < wide.get_figwidth()
    assert all(axes.get_ylabel() or axes.get_title(loc="left") for axes in narrow.axes)


def test_an_axis_of_times_has_more_than_one_tick():
    for low, high in ((0.9, 1.2), (0.02, 30), (1.01, 1.09), (3, 8), (0.5, 2)):
        ticks = figure_axes.log_ticks(low, high)
        assert 2 <= len(ticks) <= 9
        assert all(low <= tick <= high for tick in ticks)
    rows = [scored("a", n, milliseconds=1 + 0.02 * n) for n in (1, 2, 5)]
    figure = report.time_figure(rows)
    drawn(figure)
    for axis in (figure.axes[0].xaxis, figure.axes[1].yaxis):
        low, high = axis.get_view_interval()
        labels = [label.get_text() for label in axis.get_ticklabels()]
        assert len([x for x in axis.get_ticklocs() if low <= x <= high]) >= 2
        assert all(labels)


def test_notes_cover_no_marker_and_no_line():
    close = pair({1: 0.9, 2: 0.88, 50: 0.85}, {1: 0.875, 2: 0.86, 50: 0.8})
    for row, accuracy in zip(close, (0.65, 0.7, 0.72, 0.66, 0.715, 0.73), strict=True):
        row["accuracy"] = accuracy
    rows = [*close, make_row("Deterministic", 1, nll=0.905, accuracy=0.652)]
    figure = report.accuracy_nll_figure(rows)
    renderer = drawn(figure)
    axes = figure.axes[0]
    boxes = [text.get_window_extent(renderer) for text in axes.texts]
    assert len(boxes) >= 3
    for line in axes.lines:
        points = line.get_xydata()
        if len(points) > 1:
            steps = np.linspace(0, 1, 50)[:, None]
            points = np.concatenate(
                [a + steps * (b - a) for a, b in itertools.pairwise(points)]
            )
        for x, y in axes.transData.transform(points):
            assert not any(box.contains(x, y) for box in boxes)
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)


def test_bands_of_runs_have_an_outline_and_intervals_have_none():
    runs = [
        {**row, "run": run, "nll": row["nll"] + shift}
        for run, shift in (("a", 0), ("b", 0.1))
        for row in curve("of runs", sizes=(1, 5))
    ]
    rows = [*runs, *(with_intervals(row) for row in curve("alone", sizes=(1, 5)))]
    panel = report.ensemble_size_figure(rows).axes[0]
    of_runs, alone = panel.collections
    assert of_runs.get_linewidth()[0] > 0
    assert of_runs.get_linestyle()[0][1] is not None  # dotted
    assert alone.get_linewidth()[0] == 0


def test_the_legend_of_reliability_has_what_is_drawn():
    rows = demo()
    above, points = "Accuracy above confidence", "Accuracy at N = 1"
    assert legend(report.reliability_figure(rows)) == ["Accuracy", above, points]
    for row in rows:
        bins = row["reliability"]
        bins["accuracy"], bins["confidence"] = bins["confidence"], bins["accuracy"]
    single = [row for row in rows if row["num_samples"] == 1]
    names = legend(report.reliability_figure(single))
    assert names == ["Accuracy", "Confidence above accuracy"]
    assert not report.confidence_figure(single).legends


def test_tick_labels_of_perturbations_do_not_overlap():
    rows = [
        {**row, "cec": 0.01201 + 0.00007 * index, "flip_rate": 0.1 + 0.01 * index}
        for index, row in enumerate(robustness_rows.perturbation("a"))
        if row.get("perturbation")
    ]
    figure = perturbation.perturbation_figure(rows)
    renderer = drawn(figure)
    boxes = []
    for axes in figure.axes:
        low, high = axes.get_xlim()
        for label in axes.get_xticklabels():
            if label.get_text() and low <= label.get_position()[0] <= high:
                boxes.append(label.get_window_extent(renderer))
    assert len(boxes) >= 6
    for left, right in itertools.pairwise(sorted(boxes, key=lambda box: box.x0)):
        assert left.x1 + 12 < right.x0  # pixels, about one letter and a half


def test_variance_is_in_per_cent_and_smoothing_is_shaded():
    rows = analysis_rows.variance(SMOOTH)
    figure = variance.depth_figure(rows)
    relative = figure.axes[1]
    assert relative.get_title(loc="left").endswith("(%)")
    expected = [100 * row["relative_variance"] for row in rows]
    np.testing.assert_allclose(relative.lines[0].get_ydata(), expected)
    assert len(relative.patches) == len(analysis_rows.STAGES)
    for patch in relative.patches:  # dark enough to be seen on white
        assert max(to_rgb(patch.get_facecolor())[:2]) < 0.92
    assert "After smoothing" in legend(figure)
    assert "Shaded" in variance.shading(rows)
    plain = analysis_rows.variance(PLAIN)
    assert not variance.depth_figure(plain).axes[0].patches
    assert variance.shading(plain) == ""


def test_contours_have_even_ticks_and_no_text_upon_the_cross():
    models = [analysis_rows.landscape(PLAIN), analysis_rows.landscape(SMOOTH)]
    figure = landscape.contour_figure(models)
    for axes in figure.axes[:2]:
        assert not [text for text in axes.texts if text.get_text()]
        for ticks in (axes.get_xticks(), axes.get_yticks()):
            np.testing.assert_allclose(np.diff(ticks), 0.05)
        assert (ticks[0], ticks[-1]) == pytest.approx((-0.1, 0.1))
    bar = figure.axes[2]
    assert len(bar.collections[-1].get_paths()) > 1  # the lines of the contours


@pytest.mark.parametrize("has_clean", [True, False])
def test_the_sheet_has_a_column_without_corruption(has_clean):
    arrays = dict(robustness_rows.corruption("a")[0]["arrays"])
    clean = arrays.pop("clean")
    if has_clean:
        arrays = {"clean": clean, **arrays}
    figure = corruption_figures.sheet_figure(arrays, robustness_rows.SEVERITIES, {})
    (axes,) = figure.axes
    lines = len(robustness_rows.CORRUPTIONS)
    assert len(axes.images) == lines * (3 + has_clean)
    words = [text.get_text() for text in axes.texts]
    assert words.count("clean") == 2 * has_clean  # above each of two blocks
    shown = [np.unique(image.get_array()).tolist() for image in axes.images]
    assert shown.count([230]) == lines * has_clean


def test_fonts_are_not_told_about(tmp_path):
    code = (
        "import logging; logging.basicConfig(level=logging.INFO)\n"
        "from spatial_smoothing import report\n"
        "rows = [{'label': 'a', 'num_samples': n, 'nll': 1.0} for n in (1, 2)]\n"
        "report.ensemble_size_figure(rows)"
    )
    # The list of fonts is made anew in an empty directory.
    home = {**os.environ, "MPLCONFIGDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=home, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert any(path.name.startswith("fontlist") for path in tmp_path.iterdir())
    assert "font" not in done.stderr
