"""The chapter of out-of-distribution detection on many sets."""

import csv
import io

import numpy as np
import PIL.Image
import pytest
from report_rows import Page, write

from spatial_smoothing import report
from spatial_smoothing.report import chapters
from spatial_smoothing.report.chapters import ood, ood_rows
from spatial_smoothing.report.figures.canvas import Looks

PLAIN, SMOOTHED = "MC dropout", "MC dropout + smoothing"
SETS = {"cifar10": "near", "list:/data/test_svhn.txt": "far", "folder:/data/dtd": "far"}
CONFIDENCES = (
    ("msp", "probabilities", None),
    ("mutual_information", "probabilities", None),
    ("gen", "logits", "gamma = 0.1"),
    ("knn", "features", "k = 50"),
)


def scores(value):
    half = {"auroc": value, "fpr95": 1 - value, "scod": value / 4}
    half |= {f"aupr_{side}": value - 0.1 for side in ("in", "out")}
    return {**half, "intervals": {"auroc": [value - 0.02, value + 0.02]}}


def rows_of(label, *, sizes=(1, 2, 10), offset=0.0, **changes):
    """Rows whose AUROC grows with N; a single prediction has no mutual information."""
    found = []
    centres, roc = np.linspace(0, 1, 40), np.linspace(0, 1, 101) ** 0.5
    arrays = {
        "roc": np.float32(roc),
        "histogram": np.float32([centres, centres / 20, centres[::-1] / 20]),
    }
    for size in sizes:
        for index, (name, average, constant) in enumerate(CONFIDENCES):
            if average == "features" and size > 1:
                continue
            about = {
                **{"suite": "ood", "label": label, "num_samples": size, "run": "a"},
                **{"dataset": "cifar100", "split": "test", "num_examples": 1000},
                **{"confidence": name, "average": average, "constant": constant},
            }
            about |= changes
            value = 0.7 + 0.01 * index - 0.05 / size + offset
            if (name, size) == ("mutual_information", 1):
                value = float("nan")
            for place, (each, distance) in enumerate(SETS.items()):
                row = {**about, "ood": each, "distance": distance, "num_ood": 500}
                row |= scores(value + 0.02 * place)
                if size in (sizes[0], sizes[-1]) and not np.isnan(value):
                    row["arrays"] = arrays
                found.append(row)
            for distance, count in (("near", 1), ("far", 2)):
                row = {**about, "ood": None, "distance": distance, "num_sets": count}
                found.append(row | scores(value + 0.03 * (count - 1)))
    return found


@pytest.fixture(scope="module")
def rows():
    return [*rows_of(PLAIN), *rows_of(SMOOTHED, offset=0.04)]


@pytest.fixture(scope="module")
def written(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("report")
    write(path, rows)
    return path


def lines_of(table):
    return [
        [line.name.text if line.name else "", *(cell.text for cell in line.cells)]
        for group in table.groups
        for line in group
    ]


def test_the_table_has_the_form_of_openood(rows):
    """A line for each confidence; near and far means of each model at the largest N."""
    means, sets, sizes = ood.CHAPTER.tables(rows)
    above, below = means.head
    assert [each.text for each in above] == [
        "Confidence",
        f"{PLAIN} (N = 10)",
        f"{SMOOTHED} (N = 10)",
    ]
    names = ["Near AUROC", "Far AUROC", "Near FPR95", "Far FPR95"]
    assert [each.text for each in below] == 2 * names
    lines = lines_of(means)
    assert lines[0] == [
        "MSP",
        *("69.50", "72.50", "30.50", "27.50"),
        *("73.50", "76.50", "26.50", "23.50"),
    ]
    assert [line[0] for line in lines] == [
        "MSP",
        "Mutual information",
        "GEN (logits)",
        "KNN",
    ]
    assert lines[3][1] == "68.00"  # of the one N that it has
    best = [
        [cell.is_best for cell in line.cells]
        for group in means.groups
        for line in group
    ]
    assert best == [[False] * 8, [False] * 8, [True] * 8, [False] * 8]
    assert "near is cifar10; far is test_svhn and dtd" in means.caption
    assert "GEN: minus the generalised entropy, sum p^γ (1 − p)^γ (gamma = 0.1)." in (
        means.notes
    )
    assert [each.text for each in sets.head[1]][:3] == [
        "cifar10 AUROC",
        "test_svhn AUROC",
        "dtd AUROC",
    ]
    assert lines_of(sets)[0][1:4] == ["69.50", "71.50", "73.50"]
    groups = [group[0].name.text for group in sizes.groups]
    assert groups[0] == f"{PLAIN}: MSP"
    assert len(sizes.groups[0]) == 3
    assert len(sizes.groups[3]) == 1
    undefined = [cell.text for cell in sizes.groups[1][0].cells]
    assert set(undefined) == {"–"}


def test_files_are_those_announced_and_are_read_back(written, rows):
    names = {path.name for path in written.iterdir()}
    assert {*chapters.CHAPTERS["ood"].files, "ood.csv", "ood.npz"} <= names
    for name in chapters.CHAPTERS["ood"].files:
        with PIL.Image.open(written / name) as image:
            assert min(image.size) > 300
    found, _ = report.read(written / "metrics.json")
    assert len(found) == len(rows)
    np.testing.assert_array_equal(found[0]["arrays"]["roc"], rows[0]["arrays"]["roc"])
    undefined = [row for row in found if row["auroc"] is None]
    assert {row["confidence"] for row in undefined} == {"mutual_information"}
    table = list(csv.DictReader(io.StringIO((written / "ood.csv").read_text())))
    assert table[0]["auroc_low"] == str(rows[0]["intervals"]["auroc"][0])
    assert table[0]["ood"] == "cifar10"


def test_the_page_shows_tables_and_figures(written):
    page = Page((written / "report.html").read_text())
    assert "Near and far out-of-distribution detection" in page.texts
    assert len(page.all("img")) == 3
    assert all(image["alt"] for image in page.all("img"))
    assert "nan" not in " ".join(page.texts).lower().split()


def test_the_terminal_has_a_line_for_each_confidence_and_size(rows):
    lines = ood.CHAPTER.lines(rows)
    assert list(lines[0]) == [
        *("Model", "N", "Confidence", "Near", "Far", "FPR95 near", "FPR95 far"),
        *("cifar10", "test_svhn", "dtd"),
    ]
    firsts = [(line["Model"], line["N"]) for line in lines if line["Model"]]
    assert firsts == [
        (label, n) for label in (PLAIN, SMOOTHED) for n in ("1", "2", "10")
    ]
    assert len(lines) == 2 * (4 + 3 + 3)
    (first, second, *_) = lines
    assert (first["Near"], first["Far"], first["dtd"]) == ("65.00", "68.00", "69.00")
    assert (second["Confidence"], second["Near"]) == ("Mutual information", "–")


def test_runs_of_one_model_are_averaged(rows):
    both = [*rows, *rows_of(PLAIN, offset=0.1, run="b")]
    (first, *_) = ood_rows.scored(both)
    assert first.means["near"]["auroc"] == pytest.approx(0.70)
    assert first.means["near"]["num_runs"] == 2
    assert first.means["near"]["spread"]["auroc"] == pytest.approx([0.65, 0.75])
    names = {"ood_auroc.png", "ood_roc.png", "ood_scores.png"}
    assert ood.CHAPTER.pictures(both, Looks()).keys() == names


def test_sets_that_would_be_called_alike_keep_their_names():
    rows = [{"ood": name} for name in ("tfds:a[:5]", "folder:/x/dtd", "npz:/y/dtd")]
    assert ood_rows.set_names(rows) == {
        "tfds:a[:5]": "a[:5]",
        "folder:/x/dtd": "folder:/x/dtd",
        "npz:/y/dtd": "npz:/y/dtd",
    }


def test_rows_say_what_they_are_of(tmp_path):
    (row, *_) = rows_of(PLAIN)
    with pytest.raises(ValueError, match="has no confidence; every row of this suite"):
        write(tmp_path, [{k: v for k, v in row.items() if k != "confidence"}])
