"""Reports of people who bring rows of their own, with no more than is needed."""

import pytest
from report_rows import Page

from spatial_smoothing import report

ENSEMBLES = [
    {"label": "A", "num_samples": 1, "nll": 0.5, "accuracy": 0.8},
    {"label": "A", "num_samples": 5, "nll": 0.4, "accuracy": 0.82},
    {"label": "B", "num_samples": 1, "nll": 0.6, "accuracy": 0.7},
]
CHAPTERS = {
    "corruption": [
        {"num_samples": 1, "corruption": name, "severity": severity, "nll": 1.0}
        for name, severity in (("clean", 0), ("fog", 1), ("fog", 2))
    ],
    "perturbation": [
        {"num_samples": 1, "flip_rate": 0.1, **name}
        for name in ({"perturbation": "tilt"}, {})
    ],
    "variance": [{"tap": tap, "sample_variance": 0.1} for tap in ("stem", "stage1")],
    "fourier": [{"tap": "stage1", "network": "mean", "high_delta": -3.0}],
    "frequency": [
        {"frequency": f, "num_samples": 1, "nll": 1.0, "accuracy": 0.5}
        for f in (None, 0.1, 0.2)
    ],
    "landscape": [{"nll": 0.5}],
    "hessian": [{"top_mean": 90.0}],
}


def chapter(suite, label="A"):
    return [{"suite": suite, "label": label, **row} for row in CHAPTERS[suite]]


def test_a_label_a_size_and_scores_are_enough(tmp_path, capsys):
    path = report.write(tmp_path, ENSEMBLES)
    page = Page(path.read_text())
    missing = [text for text in page.texts if "do not name" in text]
    assert missing == [
        "The rows do not name their data set (dataset), their split (split) and their "
        "number of images (num_examples)."
    ]
    assert {"0.500", "82.00"} <= set(page.texts)
    assert not {"ECE", "None", "nan"} & set(page.texts)
    assert "Evaluation" in page.texts
    assert report.read(tmp_path / "metrics.json") == (ENSEMBLES, {})
    report.print_rows(ENSEMBLES)
    printed = capsys.readouterr().out
    assert "82.00" in printed
    assert "ECE" not in printed


def test_nothing_is_missing_where_one_row_has_it(tmp_path):
    about = {"dataset": "mine", "split": "test", "num_examples": 7}
    document = report.write(tmp_path, [ENSEMBLES[0] | about]).read_text()
    assert "do not name" not in document
    assert "mine" in document


def test_figures_have_no_panel_without_values():
    figure = report.ensemble_size_figure(ENSEMBLES)
    titles = [axes.get_title(loc="left").split()[0] for axes in figure.axes]
    assert titles == ["NLL", "Accuracy"]


@pytest.mark.parametrize("suite", CHAPTERS)
def test_rows_of_a_suite_need_little(suite, tmp_path, capsys):
    rows = chapter(suite)
    page = Page(report.write(tmp_path, rows).read_text())
    assert page.all("table")
    assert not {"None", "nan"} & {text.strip() for text in page.texts}
    assert "do not name their data set" in " ".join(page.texts)
    report.print_rows(rows)
    assert "A" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("suite", "key"),
    [
        *(("corruption", "severity or normalizer"), ("corruption", "num_samples")),
        *(("perturbation", "num_samples"), ("variance", "tap"), ("fourier", "network")),
        ("frequency", "frequency"),
    ],
)
def test_what_a_row_of_a_suite_lacks_is_said_in_one_line(suite, key, tmp_path):
    rows = chapter(suite)
    del rows[0][key.split(" or ")[0]]
    with pytest.raises(ValueError, match=f"of suite '{suite}' .*'A'.* has no {key}"):
        report.write(tmp_path / "new", rows)
    with pytest.raises(ValueError, match=r"of suite .* has no"):
        report.print_rows(rows)
    assert not (tmp_path / "new").exists()
