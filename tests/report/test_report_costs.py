"""Scores against the cost of a prediction, and the Pareto front."""

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from spatial_smoothing import report
from spatial_smoothing.report import costs, tables
from spatial_smoothing.report.figures import canvas, families, pictures
from spatial_smoothing.report.figures.costs import cost_figure
from spatial_smoothing.report.runs import averaged

ABOUT = {"dataset": "cifar100", "split": "test", "num_examples": 100}


def row(label, size, gflops, nll, **fields):
    scores = {"nll": nll, "accuracy": 1 - nll / 4, "ece": 0.05 / size}
    return {
        **ABOUT,
        "label": label,
        "num_samples": size,
        "gflops": gflops,
        **scores,
        **fields,
    }


ROWS = [
    row("cheap", 1, 1.0, 1.0),
    row("cheap", 2, 2.0, 0.9),
    row("smooth", 1, 1.5, 0.8),
    row("smooth", 2, 3.0, 0.7),
    row("bad", 1, 2.0, 0.95),
]


def test_front_by_hand():
    on = costs.pareto_front([1, 2, 2, 3, 3], [5, 4, 4, 4, 3], better="lower")
    assert on == [True, True, True, False, True]  # equal points are on it together
    assert costs.pareto_front([1, 2], [0.5, 0.6], better="higher") == [True, True]
    assert costs.pareto_front([1, 2], [0.6, 0.5], better="higher") == [True, False]
    assert costs.pareto_front([], [], better="lower") == []


@pytest.mark.parametrize("seed", range(3))
def test_front_is_what_is_best_for_some_budget(seed):
    """Not by pairs of points: the best of each budget, at least cost."""
    points = np.random.default_rng(seed).integers(0, 6, (12, 2))
    cost, value = points.T
    on = costs.pareto_front(cost, value, better="lower")
    expected = np.zeros(12, bool)
    for budget in range(6):
        affordable = cost <= budget
        if affordable.any():
            best = affordable & (value == value[affordable].min())
            expected |= best & (cost == cost[best].min())
    np.testing.assert_array_equal(on, expected)


def test_fronts_of_rows():
    found = costs.fronts(ROWS, "gflops")
    names = {k: [(r["label"], r["num_samples"]) for r in v] for k, v in found.items()}
    front = [("cheap", 1), ("smooth", 1), ("smooth", 2)]
    assert names["nll"] == names["accuracy"] == front
    assert names["ece"] == [("cheap", 1), ("cheap", 2)]
    unlike = [*ROWS[:-1], {**ROWS[-1], "num_examples": 50}]
    assert costs.fronts(unlike, "gflops") == {}


def test_costs_that_do_not_compare():
    assert costs.compared(ROWS[:2], "gflops") == []  # a single label
    assert costs.compared([{**r, "gflops": None} for r in ROWS], "gflops") == []
    timed = [{**r, "milliseconds": r["gflops"], "device": "1 x A"} for r in ROWS]
    assert costs.compared(timed, "milliseconds") == timed
    # Times of two devices, and of a device that nobody knows.
    assert (
        costs.compared([*timed[1:], {**timed[0], "device": "B"}], "milliseconds") == []
    )
    unknown = [{**r, "device": None} for r in timed]
    assert costs.compared(unknown, "milliseconds") == []


def test_table_says_who_is_on_the_front():
    (table,) = (t for t in tables.of_ensembles(ROWS) if t.heading == "Cost")
    lines = [
        (line.size, *(cell.text for cell in line.cells))
        for line in itertools.chain.from_iterable(table.groups)
    ]
    assert lines == [
        ("1", "1.0000", "1.000", "75.00", "5.00", "NLL, Accuracy, ECE"),
        ("2", "2.0000", "0.900", "77.50", "2.50", "ECE"),
        ("1", "1.5000", "0.800", "80.00", "5.00", "NLL, Accuracy"),
        ("2", "3.0000", "0.700", "82.50", "2.50", "NLL, Accuracy"),
        ("1", "2.0000", "0.950", "76.25", "5.00", "–"),
    ]
    assert "Front of NLL: cheap and smooth. Front of Accuracy: cheap" in table.caption
    assert "means over runs" not in table.caption


def test_runs_are_averaged_and_others_are_not_ranked():
    runs = [
        {**r, "run": run, "nll": r["nll"] + run / 10} for r in ROWS for run in (0, 1)
    ]
    table = tables.costs.cost_table(averaged(runs))
    assert "by means over runs" in table.caption
    assert table.groups[0][0].cells[0].text == "2"  # a column counts the runs
    alone = [r for r in runs if r["label"] != "bad" or not r["run"]]
    table = tables.costs.cost_table(averaged(alone))
    assert "No Pareto front is given" in table.caption
    assert len(table.groups[0][0].cells) == 5


def test_figure_marks_the_front_and_the_range_over_runs():
    runs = [
        {**r, "run": run, "nll": r["nll"] + run / 10} for r in ROWS for run in (0, 1)
    ]
    figure = cost_figure(runs)
    nll, accuracy, _ = figure.axes
    assert nll.get_xlabel() == "GFLOPs (per image)"
    step = [line for line in nll.lines if line.get_drawstyle() == "steps-post"]
    (front,) = step
    np.testing.assert_allclose(front.get_xdata(), [1, 1.5, 3])
    np.testing.assert_allclose(front.get_ydata(), [1.05, 0.85, 0.75])
    black = [
        line
        for line in nll.lines
        if to_rgba(line.get_markeredgecolor()) == to_rgba("black")
        and line.get_linestyle() == "None"
    ]
    assert sorted(float(line.get_xdata()[0]) for line in black) == [1, 1.5, 3]
    band = nll.collections[0].get_datalim(nll.transData)
    np.testing.assert_allclose([band.y0, band.y1], [0.9, 1.1])
    assert len(accuracy.collections) >= 3  # bands, and the bar of a single point
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["cheap", "smooth", "bad", "Pareto front"]


def many_rows(*, smoothing=True):
    """Ten methods, with and without smoothing: paths, and every third one a point."""
    found = []
    for number, name in enumerate("abcdefghij"):
        for smoothed in (False, True) if smoothing else (False,):
            label = f"method {name}" + " + smoothing" * smoothed
            for size in (1, 2, 5) if number % 3 else (4,):
                nll = 1 + 0.1 * number + 0.3 / size - 0.05 * smoothed
                found.append(row(label, size, (1 + 0.2 * smoothed) * size, nll))
    return found


def boxes_of_text(figure):
    """The boxes of the texts of a figure that has been drawn."""
    texts = [*figure.legends[0].get_texts()]
    for axes in figure.axes:
        texts += [axes.title, axes._left_title, axes.xaxis.label, *axes.texts]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = axis.get_view_interval()
            for place, text in zip(
                axis.get_ticklocs(), axis.get_ticklabels(), strict=True
            ):
                texts += [text] if low <= place <= high else []
    return [text.get_window_extent() for text in texts if text.get_text()]


def test_many_models_are_told_apart_by_method_and_smoothing():
    figure = cost_figure(many_rows())
    nll = figure.axes[0]
    paths = [line for line in nll.lines[:20] if line.get_drawstyle() == "default"]
    assert len(paths) == 20
    methods, insides = set(), set()
    for plain, smooth in zip(paths[::2], paths[1::2], strict=True):
        assert plain.get_color() == smooth.get_color()
        assert plain.get_marker() == smooth.get_marker()
        assert plain.get_markerfacecolor() == "white"
        assert smooth.get_markerfacecolor() == smooth.get_color()
        if len(plain.get_xdata()) > 1:
            assert (plain.get_linestyle(), smooth.get_linestyle()) == ("--", "-")
        methods.add((plain.get_color(), plain.get_marker()))
        insides.add(plain.get_markerfacecolor())
    assert len(methods) == 10  # more than there are colours
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == [
        *(f"method {name}" for name in "abcdefghij"),
        "With smoothing",
        "Without smoothing",
        "Pareto front",
    ]
    # Without any smoothing there is nothing to say of it, and all markers are filled.
    figure = cost_figure(many_rows(smoothing=False))
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == [*(f"method {name}" for name in "abcdefghij"), "Pareto front"]
    paths = figure.axes[0].lines[:10]
    assert all(line.get_markerfacecolor() == line.get_color() for line in paths)


def test_looks_of_families_follow_the_network_and_not_the_words_alone():
    groups = {
        "my net": [{"label": "my net", "model": "x", "smoothed": True}],
        "A": [{"label": "A", "model": "resnet_dnn_18"}],
        "A + smoothing": [{"label": "A + smoothing", "model": "resnet_smoothing_18"}],
        "B": [{"label": "B", "smoothed": True}],
        "B + smoothing": [{"label": "B + smoothing", "smoothed": True}],
    }
    looks = families.Families(groups)
    assert looks["my net"]["linestyle"] == looks["A + smoothing"]["linestyle"] == "-"
    assert looks["A"]["color"] == looks["A + smoothing"]["color"]
    assert looks["A"]["linestyle"] != "-"
    # Two networks with smoothing would have one look by their labels.
    assert looks["B"]["color"] != looks["B + smoothing"]["color"]
    assert (
        canvas.Looks(["MC dropout"])["MC dropout"]["color"]
        == families.Families({"MC dropout": [{"label": "MC dropout"}]})["MC dropout"][
            "color"
        ]
    )


@pytest.mark.parametrize("width", [None, 3.25, 6.5])
@pytest.mark.parametrize("rows", [ROWS, many_rows()], ids=["few", "many"])
def test_no_texts_overlap_and_notes_do_not_touch_the_axes(rows, width):
    with canvas.paper_width(width):
        figure = cost_figure(rows, columns=1 if width == 3.25 else 3)
        figure.draw_without_rendering()
    boxes = boxes_of_text(figure)
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    first = figure.axes[0]
    assert len(first.texts) >= 2  # N at the ends of paths
    for note in first.texts:
        box = note.get_window_extent()
        assert box.x0 > first.bbox.x0
        assert box.y0 > first.bbox.y0
    # A legend does not take the room of the panels.
    assert min(axes.bbox.height for axes in figure.axes) / figure.dpi > 1.1


def test_the_caption_says_whether_there_are_bands_or_bars():
    for rows, what in ((ROWS, "Bands and bars:"), (many_rows(), "Bars:")):
        runs = [{**r, "run": n, "nll": r["nll"] + n / 9} for r in rows for n in (0, 1)]
        found = pictures.bands_or_bars(averaged(runs), ["nll"])
        assert found == f" {what} the range over 2 runs."


def test_reports_have_the_figure_where_costs_compare(tmp_path):
    report.write(tmp_path, ROWS)
    page = (tmp_path / "report.html").read_text()
    assert (tmp_path / "cost.png").exists()
    assert not (tmp_path / "cost_time.png").exists()
    assert 'id="cost"' in page
    assert "On the front of" in page
    report.write(tmp_path, ROWS[:2])  # figures of an earlier report go
    assert not (tmp_path / "cost.png").exists()
    with pytest.raises(ValueError, match="no two labels have 'milliseconds' that"):
        cost_figure(ROWS, cost="milliseconds")
