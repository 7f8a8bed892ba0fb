import numpy as np
import pytest
from report_rows import demo, make_row, write

from spatial_smoothing import report


def rows():
    return [row | {"dataset": "cifar100"} for row in demo()]


def test_published_values_are_of_the_same_networks_and_data_sets():
    found = report.published(rows())
    assert {row["dataset"] for row in found} == {"cifar100"}
    assert {row["model"] for row in found} == {
        f"resnet_{kind}18"
        for kind in ("dnn_", "dnn_smoothing_", "mcdo_", "mcdo_smoothing_")
    }
    values = {(row["label"], row["num_samples"]): row for row in found}
    assert values["MC dropout", 50]["nll"] == 0.8498
    assert values["MC dropout + smoothing", 2]["accuracy"] == 0.78247
    assert values["Deterministic", 1]["ece"] == 0.05098
    assert values["Deep ensemble", 5]["nll"] == 0.728
    assert all(0 < row["accuracy"] < 1 for row in found)


def test_nothing_is_published_of_most():
    with pytest.raises(
        ValueError, match=r"nothing is published of resnet_18 on shapes;"
    ):
        report.published(demo())
    (row,) = report.published(
        [make_row("a", 1, dataset="cifar100", model="vgg_dnn_16")]
    )[:1]
    assert row["model"] == "vgg_dnn_16"


def test_published_values_are_drawn_in_the_colour_of_their_label():
    published = report.published(rows())
    figure = report.ensemble_size_figure(rows(), published=published)
    axes = figure.axes[0]
    for name in ("MC dropout", "MC dropout + smoothing"):
        own, others = (
            [line for line in axes.lines if line.get_linestyle() == style]
            for style in ("-", ":")
        )
        index = ["MC dropout", "MC dropout + smoothing"].index(name)
        line = others[-2:][index]
        assert line.get_color() == own[index].get_color()
        values = [row["nll"] for row in published if row["label"] == name]
        np.testing.assert_array_equal(line.get_ydata(), values)
    plane = report.accuracy_nll_figure(rows(), published=published)
    for drawn in (figure, plane):
        labels = [text.get_text() for text in drawn.legends[0].get_texts()]
        assert labels.count("Park & Kim (2022)") == 1
    assert len(report.ensemble_size_figure(rows()).axes[0].lines) == 3


def test_the_page_says_what_is_published(tmp_path):
    path = write(tmp_path, rows(), beside=report.published(rows()))
    assert path.read_text().count("Park &amp; Kim (2022), means of three") == 2


def test_the_page_claims_no_published_values_that_it_does_not_draw(tmp_path):
    others = [{**row, "label": f"{row['label']} in stage 4"} for row in rows()]
    path = write(tmp_path, others, beside=report.published(others))
    text = path.read_text()
    assert "Dotted, with open markers" not in text
    assert "have published no ensemble with the name of one of these." in text
