import itertools

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from report_rows import SIZES, curve, demo, make_row, scored, with_intervals

from spatial_smoothing import report
from spatial_smoothing.report.figures import canvas


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
    drawn = FigureCanvasAgg(figure)
    drawn.draw()
    for axes in figure.axes:
        ticks = [*axes.get_xticks(), *axes.get_xticks(minor=True)]
        assert sorted(ticks) == list(sizes)
        labels = [tick for tick in axes.get_xticklabels() if tick.get_text()]
        assert labels[0].get_text() == "1"
        assert labels[-1].get_text() == str(max(sizes))
        boxes = [label.get_window_extent(drawn.get_renderer()) for label in labels]
        for left, right in itertools.pairwise(boxes):
            assert left.x1 < right.x0


def test_figures_leave_matplotlib_as_it_was():
    before = dict(matplotlib.rcParams)
    report.ensemble_size_figure(demo())
    report.confidence_figure(demo())
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("label", ["_private", r"a $\frac$ b", "x" * 40])
def test_figures_take_any_label(label):
    figure = report.ensemble_size_figure(curve(label))
    canvas.png(figure)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [label]


def test_series_of_several_data_sets_are_told_apart(tmp_path):
    rows = curve("a") + curve("a", dataset="cifar10")
    labels = report.ensemble_size_figure(rows).legends[0].get_texts()
    assert [text.get_text() for text in labels] == ["a (shapes)", "a (cifar10)"]


def bands(axes):
    """The lower and upper ends of the shaded bands, as arrays over x."""
    found = []
    for band in axes.collections:
        points = band.get_paths()[0].vertices
        lows = {x: points[points[:, 0] == x, 1].min() for x in points[:, 0]}
        highs = {x: points[points[:, 0] == x, 1].max() for x in points[:, 0]}
        found.append((lows, highs))
    return found


@pytest.mark.parametrize(("panel", "scale"), [(0, 1), (1, 100), (2, 100)])
def test_ensemble_size_figure_has_bands_of_intervals(panel, scale):
    rows = [with_intervals(row, half=0.01) for row in curve("a")]
    axes = report.ensemble_size_figure(rows).axes[panel]
    values = dict(axes.lines[0].get_xydata())
    ((lows, highs),) = bands(axes)
    for size in SIZES:
        assert lows[size] == pytest.approx(values[size] - 0.01 * scale)
        assert highs[size] == pytest.approx(values[size] + 0.01 * scale)


def test_a_single_size_has_its_interval_beside_the_curves():
    singles = [with_intervals(make_row(label, 1), half=0.02) for label in "bc"]
    axes = report.ensemble_size_figure([*curve("a"), *singles]).axes[0]
    low, high = np.log(axes.get_xlim())
    places = set()
    for row, bar in zip(singles, axes.collections[-2:], strict=True):
        ((x, bottom), (_, top)) = bar.get_segments()[0]
        assert (bottom, top) == pytest.approx((row["nll"] - 0.02, row["nll"] + 0.02))
        assert low + x * (high - low) > np.log(max(SIZES))
        places.add(x)
    assert len(places) == 2


def test_runs_are_a_mean_with_a_band_from_the_lowest_to_the_highest():
    runs = {"a": 0.0, "b": 0.03, "c": 0.09}
    rows = [scored("m", n, shift=s, run=r) for r, s in runs.items() for n in (1, 10)]
    nll = report.ensemble_size_figure(rows).axes[0]
    first = rows[0]["nll"]
    assert nll.lines[0].get_ydata()[0] == pytest.approx(first + 0.04)
    ((lows, highs),) = bands(nll)
    assert (lows[1], highs[1]) == pytest.approx((first, first + 0.09))
    auroc = report.detection_figure(rows).axes[0]
    np.testing.assert_allclose(auroc.lines[0].get_ydata(), [84, 84])
    ((lows, highs),) = bands(auroc)
    assert (lows[10], highs[10]) == pytest.approx((80, 89))
    risk = report.risk_coverage_figure(rows).axes[0]
    assert risk.lines[0].get_ydata()[-1] == pytest.approx(24)
    lows, highs = bands(risk)[0]
    assert (lows[100], highs[100]) == pytest.approx((20, 29))


def test_accuracy_nll_figure_is_a_path_with_sizes_at_its_ends():
    rows = demo()
    axes = report.accuracy_nll_figure(rows).axes[0]
    group = [row for row in rows if row["label"] == "MC dropout"]
    path = [[100 * row["accuracy"], row["nll"]] for row in group]
    by_label = dict(zip(("s", "m", "d"), axes.lines, strict=True))
    assert any(
        line.get_xydata().shape == (8, 2) and np.allclose(line.get_xydata(), path)
        for line in by_label.values()
    )
    notes = [(note.get_text(), *note.xy) for note in axes.texts]
    assert ("N = 1", *path[0]) in notes
    assert ("N = 50", *path[-1]) in notes
    assert len(notes) == 2  # none at the single point, none upon another
    apart = [*curve("a"), *curve("b", model="b")]
    for row in apart[len(SIZES) :]:
        row["nll"] += 0.1
    assert len(report.accuracy_nll_figure(apart).axes[0].texts) == 4
    with pytest.raises(ValueError, match="no row has both 'nll' and 'accuracy'"):
        report.accuracy_nll_figure([{"label": "a", "num_samples": 1, "nll": 1.0}])


def test_time_figure_draws_nll_against_milliseconds():
    rows = [with_intervals(scored("a", size)) for size in (1, 5, 50)]
    axes = report.time_figure(rows).axes[0]
    assert axes.get_xscale() == "log"
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [0.02, 0.1, 1])
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [r["nll"] for r in rows])
    assert len(bands(axes)) == 1
    with pytest.raises(ValueError, match="no row has both 'nll' and 'milliseconds'"):
        report.time_figure(demo())


def test_risk_coverage_figure_draws_the_largest_size_and_one_sample():
    rows = [scored("a", 1, shift=0.1), scored("a", 5), scored("a", 50), scored("b", 1)]
    figure = report.risk_coverage_figure(rows)
    largest, single, other = figure.axes[0].lines
    coverage = np.linspace(1, 100, 100)
    for line, shift in ((largest, 0), (single, 10), (other, 0)):
        np.testing.assert_allclose(line.get_xdata(), coverage)
        np.testing.assert_allclose(line.get_ydata(), 0.002 * coverage**2 + shift)
    assert [line.get_linestyle() for line in (largest, single)] == ["-", "--"]
    assert single.get_color() == largest.get_color() != other.get_color()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["a (N = 50)", "b (N = 1)", "The same with N = 1"]
    with pytest.raises(ValueError, match="no row has 'risk_coverage'"):
        report.risk_coverage_figure(demo())


def test_detection_figure_has_a_panel_for_each_score():
    rows = [*demo(), *(scored("a", size) for size in (1, 5, 50))]
    figure = report.detection_figure(rows)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["Confidence", "Entropy", "Mutual information", "Energy"]
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), [80, 80, 80])
    # One sample does not disagree with itself.
    disagreement = figure.axes[2].lines[0].get_ydata()
    np.testing.assert_array_equal(disagreement, [np.nan, 80, 80])
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["a"]
    with pytest.raises(ValueError, match="no row has 'detection' with an AUROC"):
        report.detection_figure(demo())


def test_curves_of_many_sizes_have_few_markers():
    for count in (1, 12, 13, 50, 1000):
        marked = canvas.marked(count)
        assert marked[0] == 0
        assert marked[-1] == count - 1
        assert len(marked) == len(set(marked)) <= 12
