import base64
import configparser
import fnmatch
import io
import re

import analysis_rows
import PIL.Image
import pytest
from checkout import ROOT
from report_rows import (
    Page,
    curve,
    demo,
    make_row,
    scored,
    with_intervals,
    write,
)

from spatial_smoothing import report


def test_page_is_well_formed_and_needs_nothing_else(tmp_path):
    document = write(tmp_path, demo()).read_text()
    page = Page(document)
    assert document.startswith("<!DOCTYPE html>")
    assert "http:" not in document
    assert "https:" not in document
    assert "url(" not in document
    assert not page.all("script")
    assert not page.all("link")
    images = page.all("img")
    names = [
        f"{name}.png"
        for name in ("ensemble_size", "accuracy_nll", "reliability", "confidence")
    ]
    for image, name in zip(images, names, strict=True):
        header, data = image["src"].split(",")
        assert header == "data:image/png;base64"
        assert base64.b64decode(data) == (tmp_path / name).read_bytes()
        assert "MC dropout + smoothing (N = 50)" in image["alt"]
    assert len(page.all("tr")) == 1 + 17 + 3  # the last of equivalent sizes
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


def test_tables_escape_every_text(tmp_path):
    nasty = "<b>&"
    rows = [scored(nasty, n, model=nasty) for n in (1, 5)]
    for row in rows:
        row["detection"].update(dataset=nasty, scores={nasty: {"auroc": 0.5}})
        row["reference"]["nll"] = 0.123
    difference = {"label": nasty, "num_samples": 1, "values": {nasty: [1.0, 0.5, 2.0]}}
    rows.append({**rows[0], "label": f"{nasty} 2", "model": f"{nasty}_smoothing"})
    document = write(tmp_path, rows, differences=[difference]).read_text()
    page = Page(document)
    assert len(page.all("table")) == 9
    assert not page.all("b")
    assert "<b>" not in document
    assert page.texts.count(nasty) >= 9


def headings(page):
    """The first words of all captions, in order."""
    kinds = ("Table ", "Figure ")
    return [text.split(".")[0] for text in page.texts if text.startswith(kinds)]


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """The directory of a report with everything there is, and its parsed page."""
    rows = [with_intervals(scored("MC dropout", size)) for size in (1, 5, 50)]
    smoothed = {"model": "resnet_mcdo_smoothing_18"}
    rows += [scored("MC dropout + smoothing", n, **smoothed) for n in (1, 5, 50)]
    rows[0]["reference"]["ece"] = 0.30303
    differences = [
        {
            "label": "MC dropout + smoothing minus MC dropout",
            "num_samples": 50,
            "num_examples": 2000,
            "values": {"nll": [-0.05, -0.07, -0.03], "ece": [0.001, -0.002, 0.004]},
        }
    ]
    path = tmp_path_factory.mktemp("full")
    return path, Page(write(path, rows, differences=differences).read_text())


def test_tables_and_figures_are_numbered_in_order(full):
    path, page = full
    tables = [text for text in headings(page) if text.startswith("Table")]
    figures = [text for text in headings(page) if text.startswith("Figure")]
    assert tables == [f"Table {number}" for number in range(1, 10)]
    assert figures == [f"Figure {number}" for number in range(1, 8)]
    identities = [
        attributes["id"] for attributes in page.all("p") if "id" in attributes
    ]
    assert identities == [f"table-{number}" for number in range(1, 10)]
    files = {file.name for file in path.iterdir() if file.suffix == ".png"}
    assert files == {
        "accuracy_nll.png",
        "confidence.png",
        "detection.png",
        "ensemble_size.png",
        "reliability.png",
        "risk_coverage.png",
        "time.png",
    }
    assert all(image["alt"].endswith(".") for image in page.all("img"))
    assert not page.all("script")
    assert not page.all("link")


def test_sections_come_in_order_and_only_where_there_is_something(full, tmp_path):
    def sections(document):
        return re.findall(r"<h2 id=[^>]*>(.*?)</h2>", document)

    path, _ = full
    assert sections((path / "report.html").read_text()) == [
        "Summary",
        "Results",
        "Paired differences",
        "Equivalent ensemble size",
        "Number of samples",
        "Accuracy and NLL",
        "Time",
        "Calibration",
        "Confidence",
        "Temperature",
        "Uncertainty and selective prediction",
        "Out-of-distribution detection",
        "Streams",
        "Two definitions",
        "Provenance",
    ]
    rows = [{"label": "a", "num_samples": 1, "nll": 0.5}]
    found = sections(write(tmp_path, rows).read_text())
    assert found == ["Summary", "Results", "Provenance"]


def test_a_figure_of_an_earlier_report_is_removed(tmp_path):
    rows = [
        {"label": "a", "num_samples": size, "nll": 1.0, "milliseconds": 1.0 * size}
        for size in (1, 5)
    ]
    write(tmp_path, rows)
    assert (tmp_path / "time.png").exists()
    write(tmp_path, [{**row, "milliseconds": None} for row in rows])
    assert not (tmp_path / "time.png").exists()
    assert (tmp_path / "ensemble_size.png").exists()


def test_captions_say_what_the_bands_are(full, tmp_path):
    _, page = full
    words = " ".join(page.texts)
    interval = "the 95 % bootstrap interval over the test images"
    assert f"is bold. In square brackets, {interval}." in words
    assert f"Bands: {interval}." in words
    assert "Bands and bars" not in words
    rows = [
        {"label": "a", "num_samples": size, "nll": nll, "run": str(nll)}
        for size in (1, 5)
        for nll in (0.5, 0.6)
    ]
    rows += [{**row, "label": "b"} for row in rows if row["num_samples"] == 1]
    words = " ".join(Page(write(tmp_path, rows).read_text()).texts)
    assert "means over runs. In round brackets, the range over 2 runs." in words
    assert "Bands and bars: the range over 2 runs." in words
    assert "2 runs each" in words


def test_installed_reports_have_their_templates():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    listed = settings["options.package_data"]["spatial_smoothing.report"].split(",")
    folder = ROOT / "spatial_smoothing" / "report"
    data = [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.*")
        if path.suffix not in (".py", ".pyc")
    ]
    assert {"published.csv", "templates/report.html", "templates/style.css"} <= {*data}
    for name in data:
        assert any(fnmatch.fnmatch(name, pattern.strip()) for pattern in listed), name


def test_contents_lead_to_the_sections(full):
    path, page = full
    names = [a["href"].removeprefix("#") for a in page.all("a")]
    anchors = [h2["id"] for h2 in page.all("h2")]
    assert names == anchors
    assert len({*names}) == len(names) == 15
    document = (path / "report.html").read_text()
    assert document.index("<nav") < document.index("<h2")


def test_tables_scroll_in_their_box_with_the_first_column_in_place(full):
    path, page = full
    boxes = [div for div in page.all("div") if "scroll" in div["class"].split()]
    assert len(boxes) >= len(page.all("table")) + len(page.all("img"))
    style = (path / "report.html").read_text()
    (rule,) = re.findall(r"th\.name:first-child \{(.*?)\}", style)
    assert "position: sticky" in rule
    assert (
        "background: var(--paper)" in rule
    )  # what scrolls below it does not shine through
    assert re.search(r"\.scroll \{[^}]*overflow-x: auto", style)


def test_the_page_has_a_dark_theme_in_which_figures_are_on_white(full):
    path, page = full
    style = (path / "report.html").read_text()
    assert "@media (prefers-color-scheme: dark)" in style
    assert re.search(r"\.paper \{[^}]*background: #fff", style)
    figures = [div for div in page.all("div") if "paper" in div["class"].split()]
    assert len(figures) == len(page.all("img")) == 7


def test_figures_of_several_panels_have_a_form_for_narrow_windows(full):
    _, page = full
    sources = page.all("source")
    # All but the path of accuracy and NLL, and the curves of risk.
    assert len(sources) == 5
    for source in sources:
        assert source["media"] == "(max-width: 40rem)"
        data = base64.b64decode(source["srcset"].removeprefix("data:image/png;base64,"))
        width, height = PIL.Image.open(io.BytesIO(data)).size
        assert height > 1.2 * width


def test_the_title_names_the_split_that_was_scored(tmp_path):
    rows = [make_row("a", 1, split="validation"), analysis_rows.landscape("a")]
    page = Page(write(tmp_path, rows, title=None).read_text())
    assert "Evaluation on shapes (validation split)" in page.texts
    page = Page(write(tmp_path, rows[1:], title=None).read_text())
    assert "Evaluation on shapes (train split)" in page.texts


def test_the_page_counts_runs(tmp_path):
    rows = [make_row("a", 1, run="x"), make_row("b", 1, run="y")]
    facts = lambda: " ".join(Page(write(tmp_path, rows).read_text()).texts)
    assert "1 run each" in facts()
    rows.append(make_row("a", 1, run="z"))
    assert "1 to 2 runs each" in facts()
    rows.append(make_row("b", 1, run="z"))
    assert "2 runs each" in facts()
