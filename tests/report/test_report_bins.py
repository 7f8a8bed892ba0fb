import numpy as np
import pytest
from report_rows import EDGES, demo

from spatial_smoothing import report


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


def test_figures_of_bins_need_bins():
    rows = [{**row, "reliability": None} for row in demo()]
    for draw in (report.reliability_figure, report.confidence_figure):
        with pytest.raises(ValueError, match="no row has 'reliability'"):
            draw(rows)
