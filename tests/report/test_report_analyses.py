"""The chapters of the suites that analyse a network: pages, tables and figures."""

import itertools

import analysis_rows
import numpy as np
import pytest
from report_rows import Page, cells, head, write

from spatial_smoothing import report
from spatial_smoothing.report import chapters
from spatial_smoothing.report.chapters import (
    CHAPTERS,
    chapter,
    fourier,
    frequency,
    hessian,
    landscape,
    variance,
)
from spatial_smoothing.report.figures import canvas

PLAIN, SMOOTH = analysis_rows.NAMES


@pytest.fixture(scope="module")
def rows():
    return analysis_rows.everything()


def test_page_has_a_section_tables_and_figures_for_each_suite(rows, tmp_path):
    page = Page(write(tmp_path, rows).read_text())
    shown = [CHAPTERS[suite] for suite in {row["suite"] for row in rows}]
    names = {name for chapter_ in shown for name in chapter_.files}
    assert {path.name for path in tmp_path.glob("*.png")} == names
    assert len(page.all("img")) == len(names)
    assert len(page.all("table")) == 5
    for chapter_ in shown:
        assert set(chapter_.headings) <= set(page.texts)
    back, _ = report.read(tmp_path / "metrics.json")
    key = lambda row: (row["suite"], row["label"])
    old = {key(row): row["arrays"] for row in rows if row["suite"] == "landscape"}
    for row in back:
        if row["suite"] == "landscape":
            for name, values in old[key(row)].items():
                np.testing.assert_array_equal(row["arrays"][name], values)


def test_figures_go_with_their_rows(rows, tmp_path):
    write(tmp_path, rows)
    write(tmp_path, [row for row in rows if row["suite"] == "hessian"])
    assert [path.name for path in tmp_path.glob("*.png")] == ["hessian.png"]


def test_splits_of_one_run_are_told_apart(tmp_path, capsys):
    """They would be one curve, and lines of one model, as seeds would not."""
    rows = [
        {**row, "split": split}
        for split in ("test", "train")
        for make in (analysis_rows.frequency, analysis_rows.fourier)
        for row in make(PLAIN)
    ]
    page = Page(write(tmp_path, rows).read_text())
    names = [f"{PLAIN} (test)", f"{PLAIN} (train)"]
    assert all(page.texts.count(name) == 2 for name in names)
    assert "1 model ·" in " ".join(page.texts)
    own = chapters.named("frequency", [r for r in rows if r["suite"] == "frequency"])
    first, *_ = frequency.figure(own).axes
    lines = [line for line in first.lines if len(line.get_xdata()) == 9]
    assert [line.get_label() for line in lines] == names
    report.print_rows(rows)
    printed = " ".join(capsys.readouterr().out.split())
    assert all(printed.count(name) == 2 for name in names)
    assert report.read(tmp_path / "metrics.json")[0][0]["label"] == PLAIN


def test_other_noise_and_other_grids_are_said(tmp_path):
    noise = lambda label, **options: [
        {**row, **options} for row in analysis_rows.frequency(label, run=label)
    ]
    grid = lambda label, **options: analysis_rows.landscape(label, run=label) | options
    alike = [*noise(PLAIN, epsilon=0.7), *noise(SMOOTH, epsilon=0.7)]
    alike += [grid(PLAIN, extent=0.1), grid(SMOOTH, extent=0.1)]
    assert "do not compare" not in write(tmp_path, alike).read_text()
    other = [*noise(PLAIN, epsilon=0.7), *noise(SMOOTH, epsilon=0.1)]
    other += [grid(PLAIN, extent=0.1), grid(SMOOTH, extent=1.0)]
    page = write(tmp_path, other).read_text()
    noises = "The noise differs between models (epsilon), which do not compare."
    grids = "The grid differs between models (extent), which do not compare."
    assert page.count(noises) == page.count(grids) == 2


def test_rows_without_arrays_still_make_tables(rows, tmp_path):
    bare = [{k: v for k, v in row.items() if k != "arrays"} for row in rows]
    page = Page(write(tmp_path, bare).read_text())
    assert len(page.all("table")) == 5
    assert (tmp_path / "variance.png").exists()
    assert not (tmp_path / "landscape_contour.png").exists()


def test_tables_have_a_line_for_each_row(rows):
    own = [row for row in rows if row["suite"] == "variance"]
    (table,) = CHAPTERS["variance"].tables(own)
    assert head(table)[:2] == ["Model", "After"]
    lines = cells(table)
    assert len(lines) == 5 + 9
    assert lines[1] == ["0.0100", "4.55", "0.2200", "0.1100"]


def test_terminal_says_a_label_once_and_fits_eighty_columns(rows, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    report.print_rows(rows)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert out.count(SMOOTH) + out.count(f"{PLAIN} +  ") == 5


def test_runs_of_one_label_are_told_apart_and_share_their_looks():
    pair = [analysis_rows.landscape(PLAIN, run=f"runs/{name}") for name in "ab"]
    assert chapter.names([pair[0], pair[0]]) == [PLAIN, PLAIN]
    assert chapter.names(pair) == [f"{PLAIN} (a)", f"{PLAIN} (b)"]
    assert chapter.names([*pair, analysis_rows.landscape(SMOOTH)])[2] == SMOOTH
    (one, _), (two, _), (other, _) = chapter.curves(
        [*pair, analysis_rows.landscape(SMOOTH)]
    )
    assert one == two != other


def test_landscapes_are_on_one_scale():
    models = [
        analysis_rows.landscape(name, height=height)
        for name, height in ((PLAIN, 1.0), (SMOOTH, 3.0))
    ]
    models[0]["arrays"]["nll"][0, 0] = np.nan  # where the network overflowed
    figure = landscape.contour_figure(models)
    first, second, bar = figure.axes
    limits = [axes.collections[0].get_clim() for axes in (first, second)]
    assert limits[0] == limits[1]
    assert [axes.get_title(loc="left") for axes in (first, second)] == [PLAIN, SMOOTH]
    assert bar.get_ylabel() == "NLL (nats)"
    first, second = landscape.surface_figure(models).axes
    assert first.get_zlim() == second.get_zlim()
    highest = np.nanmax(models[1]["arrays"]["nll"])
    assert first.get_zlim()[1] >= highest


def test_a_landscape_without_a_finite_value_has_no_figure(tmp_path):
    lost = analysis_rows.landscape(PLAIN)
    lost["arrays"]["nll"][:] = np.nan
    lost["nll"] = np.nan
    report.write(tmp_path, [lost])
    assert not list(tmp_path.glob("*.png"))
    report.write(tmp_path, [lost, analysis_rows.landscape(SMOOTH)])
    assert len(list(tmp_path.glob("*.png"))) == 2


def test_landscapes_say_whether_images_are_augmented():
    row = analysis_rows.landscape(PLAIN)
    kinds = [{}, {"augmented": True}, {"augmented": False}]
    captions = [
        landscape.CHAPTER.tables(rows)[0].caption
        for rows in ([row | kinds[0]], [row | kinds[1]], [row | kinds[2]])
    ]
    assert captions[0] == captions[1]
    assert captions[1].startswith("Scores of augmented training images at")
    assert captions[2].startswith("Scores of training images without augmentation at")
    (table,) = landscape.CHAPTER.tables([row | kind for kind in kinds])
    assert "which are augmented for some models only" in table.caption


def test_many_landscapes_stand_in_lines_of_three():
    models = [analysis_rows.landscape(f"model {number}") for number in range(4)]
    figure = landscape.contour_figure(models)
    shape = figure.axes[3].get_subplotspec().get_gridspec().get_geometry()
    assert shape == (2, 3)
    assert len(landscape.surface_figure(models).axes) == 4


def test_names_of_surfaces_do_not_cover_each_other():
    models = [
        analysis_rows.landscape(
            f"MC dropout of channels (runs/{'a name/' * 6}{number})"
        )
        for number in range(3)
    ]
    figure = landscape.surface_figure(models)
    figure.draw_without_rendering()
    boxes = [axes.title.get_window_extent() for axes in figure.axes]
    assert all(one.x1 < other.x0 for one, other in itertools.pairwise(boxes))


def test_spectra_show_every_mini_batch():
    models = [analysis_rows.hessian(PLAIN), analysis_rows.hessian(SMOOTH)]
    left, right = hessian.figure(models).axes
    marks = [line for line in left.lines if line.get_marker() == "|"]
    for line, row in zip(marks, models, strict=True):
        np.testing.assert_array_equal(
            line.get_xdata(), row["arrays"]["eigenvalues"][:, 0]
        )
    assert right.get_yscale() == "log"
    assert len(right.lines) == 2
    bare = [analysis_rows.hessian(PLAIN, density=False)]
    assert len(hessian.figure(bare).axes) == 1


def test_variances_stand_where_their_taps_are(rows):
    own = [row for row in rows if row["suite"] == "variance"]
    samples, *_ = variance.depth_figure(own).axes
    names = [label.get_text() for label in samples.get_xticklabels()]
    assert names[:4] == ["stem", "stage1", "smooth1", "stage2"]
    plain, smooth = samples.lines
    np.testing.assert_array_equal(plain.get_xdata(), [0, 1, 3, 5, 7])
    np.testing.assert_array_equal(smooth.get_xdata(), range(9))
    deterministic = analysis_rows.variance("Deterministic", samples=False)
    assert len(variance.depth_figure(deterministic).axes) == 2


def test_spectra_of_feature_maps_at_the_end_of_each_stage(rows):
    own = [row for row in rows if row["suite"] == "fourier"]
    for spectrum in ("delta", "radial"):
        figure = fourier.stages_figure(own, spectrum=spectrum)
        assert len(figure.axes) == 4
        styles = [line.get_linestyle() for line in figure.axes[0].lines]
        assert styles == ["-", "--", "-", ":", "--"]
        colours = [line.get_color() for line in figure.axes[0].lines]
        assert len({*colours[:2]}) == len({*colours[2:]}) == 1 < len({*colours})
        # Two models and two styles, and not their five pairs.
        labels = [text.get_text() for text in figure.legends[0].get_texts()]
        assert labels == [PLAIN, SMOOTH, "Before smoothing", "Mean network"]
    first = figure.axes[0].lines[2].get_ydata()
    smooth1 = next(row for row in own if row["tap"] == "smooth1")
    np.testing.assert_array_equal(first, smooth1["arrays"]["radial"][1])
    alone = analysis_rows.fourier("Deterministic", networks=("mean",))
    figure = fourier.stages_figure(alone)
    assert len(figure.axes[0].lines) == 1
    assert not figure.legends
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata()[0], 0)


def test_the_lowest_accuracy_under_noise_is_told(rows):
    own = [dict(row) for row in rows if row["suite"] == "frequency"]
    for row in own:
        if row["frequency"] is None:
            row["accuracy"] = 0.1  # below those with noise, by chance
    alt = frequency.CHAPTER.pictures(own, canvas.Looks())["frequency.png"].alt
    assert f"{PLAIN}: 53.00 % at 0.10 π; {SMOOTH}: 62.00 % at 0.10 π" in alt


def test_noise_is_drawn_beside_its_absence(rows):
    own = [row for row in rows if row["suite"] == "frequency"]
    accuracy, _ = frequency.figure(own).axes
    curve, clean = accuracy.lines[:2]
    np.testing.assert_allclose(curve.get_xdata(), np.arange(0.1, 1, 0.1))
    assert curve.get_ydata()[0] == pytest.approx(53)
    np.testing.assert_allclose(clean.get_ydata(), 80)


def test_the_two_objectives_of_the_hessian_are_named():
    models = [analysis_rows.hessian(PLAIN), analysis_rows.hessian(SMOOTH)]
    (table,) = CHAPTERS["hessian"].tables(models)
    above, below = table.head
    spans = {heading.text: heading.columns for heading in above if heading.columns > 1}
    assert spans == {
        "Objective of one mini-batch": 6,
        "Objective over several mini-batches": 3,
    }
    assert [heading.text for heading in below][-3:] == ["Largest", "Smallest", "Trace"]
    assert len(below) == 9
    assert [len(line) for line in cells(table)] == [10, 10]  # with the batches
    (first, _) = CHAPTERS["hessian"].lines(models)
    assert {"Mean\n1 batch", "Largest\nseveral"} <= first.keys()
    counted = [{**model, "density_batches": 4} for model in models]
    (table,) = CHAPTERS["hessian"].tables(counted)
    assert table.head[0][-1].text == "Objective over 4 mini-batches"
    (first, _) = CHAPTERS["hessian"].lines(counted)
    assert "Largest\nover 4" in first
    bare = [analysis_rows.hessian(PLAIN, density=False)]
    (table,) = CHAPTERS["hessian"].tables(bare)
    assert [heading.columns for heading in table.head[0]] == [1, 1, 1, 6]


def test_runs_of_one_label_have_lines_of_their_own():
    rows = [
        *analysis_rows.variance(PLAIN, run="runs/s0"),
        *analysis_rows.variance(PLAIN, run="runs/s1"),
        *analysis_rows.variance(SMOOTH, run="runs/x"),
    ]
    (table,) = CHAPTERS["variance"].tables(rows)
    firsts = [group[0].name.text for group in table.groups]
    assert firsts == [f"{PLAIN} (s0)", f"{PLAIN} (s1)", SMOOTH]
    assert [len(group) for group in table.groups] == [5, 5, 9]
    lines = CHAPTERS["variance"].lines(rows)
    named = [line["Model"] for line in lines if line["Model"]]
    assert named == firsts
