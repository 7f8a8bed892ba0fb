import io

import numpy as np
import PIL.Image
import pytest
from report_rows import Page, best_cells, cells, head, make_row, write
from robustness_rows import ALEXNET, corruption, perturbation

from spatial_smoothing import report
from spatial_smoothing.report import chapters
from spatial_smoothing.report.chapters import robustness
from spatial_smoothing.report.chapters.corruption_figures import (
    means_figure,
    severity_figure,
)
from spatial_smoothing.report.chapters.perturbation import perturbation_figure

PLAIN, SMOOTHED = "MC dropout", "MC dropout + smoothing"


@pytest.fixture(scope="module")
def rows():
    return [
        *corruption(PLAIN),
        *corruption(SMOOTHED, offset=-0.1),
        *perturbation(PLAIN),
        *perturbation(SMOOTHED, offset=-0.05),
    ]


@pytest.fixture(scope="module")
def written(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("report")
    write(path, rows)
    return path


def chapter(name, rows):
    return chapters.CHAPTERS[name], [row for row in rows if row["suite"] == name]


def test_the_page_says_what_was_measured(written):
    page = Page((written / "report.html").read_text())
    text = " ".join(page.texts)
    assert "Robustness to corruptions" in page.texts
    assert "Robustness to perturbations" in page.texts
    assert "cifar100 corrupted (generated), 500 images" in text
    assert "CIFAR-100-C" not in text.replace(ALEXNET, "")
    assert f"at severities 1, 3, 5, divided by those of: {ALEXNET}." in text
    assert "frost (procedural)" in page.texts
    assert len(page.all("img")) == 4
    for image in page.all("img"):
        assert image["alt"]


def test_files_are_those_announced_and_are_read_back(written, rows):
    names = {path.name for path in written.iterdir()}
    for name in ("corruption", "perturbation"):
        assert {*chapters.CHAPTERS[name].files, f"{name}.csv"} <= names
    found, _ = report.read(written / "metrics.json")
    assert len(found) == len(rows)
    sheet = found[0]["arrays"]["frost"]
    np.testing.assert_array_equal(sheet, rows[0]["arrays"]["frost"])


def test_tables_have_the_means_and_every_corruption(rows):
    shown, group = chapter("corruption", rows)
    means, each = shown.tables(group)
    assert cells(means)[0] == ["65.43", "87.65", "43.21", "50.00", "20.00"]
    assert ALEXNET in means.caption
    lines = cells(each)
    assert len(lines) == 6
    # Fog at N = 5: severities 1, 3, 5.
    assert lines[1][:3] == ["70.00", "1.720", "4.00"]
    assert "textures" in each.notes[0]
    assert "1.620" in best_cells(each)


def test_means_that_are_not_divided_are_shown_plain(rows):
    shown, group = chapter("corruption", rows)
    plain = [
        {k: v for k, v in row.items() if k not in ("mean_ce", "mean_cnll", "mean_cece")}
        for row in group
    ]
    plain = [
        {**row, "normalizer": "none"} if "normalizer" in row else row for row in plain
    ]
    means, _ = shown.tables(plain)
    assert cells(means)[0] == ["2.500", "50.00", "10.00", "20.00"]
    assert "not normalised" in means.caption


def test_boxes_are_over_corruptions(rows):
    _, group = chapter("corruption", rows)
    scores = [row for row in group if "severity" in row]
    panel = severity_figure(scores).axes[1]
    # Of two labels: three severities of five corruptions each, and clean images.
    assert len(panel.patches) == 6
    accuracy = [
        100 * row["accuracy"]
        for row in scores
        if (row["label"], row["num_samples"], row["severity"]) == (PLAIN, 5, 3)
    ]
    assert len(accuracy) == 5
    low, high = np.percentile(accuracy, [25, 75])
    box = panel.patches[1].get_path().vertices[:, 1]
    np.testing.assert_allclose([box.min(), box.max()], [low, high])
    assert [tick.get_text() for tick in panel.get_xticklabels()] == [
        *["clean", "1", "3", "5"]
    ]


def test_curves_are_the_means_by_size(rows):
    _, group = chapter("corruption", rows)
    means = [row for row in group if "normalizer" in row]
    line = means_figure(means, ["mean_ce"]).axes[0].lines[0]
    np.testing.assert_allclose(line.get_xdata(), [1, 5])
    np.testing.assert_allclose(line.get_ydata(), [87.65, 87.65])


def test_points_are_the_perturbations(rows):
    _, group = chapter("perturbation", rows)
    panel = perturbation_figure([r for r in group if r.get("perturbation")]).axes[0]
    values = [line.get_xdata() for line in panel.lines]
    np.testing.assert_allclose(values, [[10, 10], [5, 5]])


def test_the_sheet_shows_every_image(written):
    content = (written / "corruption_images.png").read_bytes()
    pixels = np.asarray(PIL.Image.open(io.BytesIO(content)).convert("L"))
    for grey in (50, 100, 150, 200):
        assert np.mean(pixels == grey) > 0.01


def test_runs_are_averaged_and_other_images_told_apart(rows):
    first, second = corruption(PLAIN), corruption(PLAIN, offset=0.2)
    second = [{**row, "run": "runs/2"} for row in second]
    found = robustness.prepared([*first, *second], ["corruption", "severity"])
    assert len(found) == len(first)
    assert found[1]["nll"] == pytest.approx((first[1]["nll"] + second[1]["nll"]) / 2)
    official = corruption(PLAIN, data="corrupted (CIFAR-100-C)")
    found = robustness.prepared([*first, *official], ["corruption", "severity"])
    assert {row["label"] for row in found} == {
        f"{PLAIN} (corrupted (generated))",
        f"{PLAIN} (corrupted (CIFAR-100-C))",
    }


def test_means_over_other_severities_are_not_ranked():
    """Neither with those of another model, nor averaged with those of another seed."""
    few = [
        {**row, "severities": "1", "num_corruptions": 5, "run": "runs/few"}
        for row in corruption(SMOOTHED, offset=-0.1)
        if row.get("severity", 0) < 3
    ]
    all_of = [*corruption(PLAIN), *corruption(SMOOTHED, offset=-0.1)]
    tables = chapters.CHAPTERS["corruption"].tables
    _, each = tables(all_of)
    assert best_cells(each)
    means, each = tables([*corruption(PLAIN), *few])
    assert not best_cells(each)
    assert f"{SMOOTHED} (N = 5), severities 1" in head(each)
    assert "do not compare, and none is bold" in each.caption
    names = [f"{PLAIN} (5 corruptions at severities 1, 3, 5)"]
    names.append(f"{SMOOTHED} (5 corruptions at severities 1)")
    assert [group[0].name.text for group in means.groups] == names
    means, _ = tables([*corruption(SMOOTHED), *few])
    assert len(means.groups) == 2


def test_the_perturbations_of_each_model_are_counted():
    one = [
        row for row in perturbation(SMOOTHED) if row.get("perturbation") != "translate"
    ]
    tables = chapters.CHAPTERS["perturbation"].tables
    for rows, words in (
        ([*perturbation(PLAIN), *perturbation(SMOOTHED)], "2 perturbations. Measured"),
        (one, "1 perturbation. Measured"),
        ([*perturbation(PLAIN), *one], "which differ between models. Measured"),
    ):
        assert words in tables(rows)[0].caption


def test_the_terminal_has_80_columns(rows, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    report.print_rows(rows)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "mCNLL %" in out
    assert "…" not in out


def test_ensembles_stay_in_the_report(rows, tmp_path):
    write(tmp_path, [make_row(PLAIN, 1), *rows])
    assert "Results" in Page((tmp_path / "report.html").read_text()).texts
    write(tmp_path, [make_row(PLAIN, 1)])
    assert not (tmp_path / "corruption_images.png").exists()


def test_runs_are_counted_in_every_table(rows):
    second = [
        {**row, "run": "runs/2"}
        for row in [*corruption(PLAIN, offset=0.2), *perturbation(PLAIN, offset=0.01)]
    ]
    for name in ("corruption", "perturbation"):
        shown, group = chapter(name, [*rows, *second])
        means, each = shown.tables(group)
        assert head(means)[:3] == ["Model", "N", "Runs"]
        assert [line[0] for line in cells(means)] == ["2", "2", "1", "1"]
        assert f"{PLAIN} (N = 5, 2 runs)" in head(each)
        assert f"{SMOOTHED} (N = 5)" in head(each)
        assert best_cells(each) == []  # a mean of two runs is no rival of one run
        lines = shown.lines(group)
        assert [line["Runs"] for line in lines] == ["2", "2", "1", "1"]
