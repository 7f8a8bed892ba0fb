"""Made-up report rows, and what reads a page."""

from html.parser import HTMLParser

import numpy as np

from spatial_smoothing import report

SIZES = (1, 2, 3, 4, 5, 10, 20, 50)
EDGES = np.linspace(0, 1, 11)
PROVENANCE = {"commit": "abc", "seed": 0, "config": {"model": "m", "sizes": [1, 2]}}
VOID = {"meta", "img", "source"}


def make_row(label, size, *, model="resnet_mcdo_18", nll=None, **changes):
    """A row whose values are those of no model but all different."""
    nll = 0.8 + 0.1 / 3 / size if nll is None else nll
    count = np.array([0, 0, 3, 0, 7, 11, 20, 30, 29, 100 * size])
    scores = {
        "nll": nll,
        "accuracy": 0.75 - 0.1 / size,
        "accuracy_90": 0.9 + 0.01 / size,
        "unconfidence_90": 0.8 + 0.02 / size,
        "iou": 0.6 - 0.1 / size,
        "iou_90": 0.7 - 0.1 / size,
        "frequency_90": 0.3 + 0.1 / size,
        "top5": 0.95 - 0.1 / size,
        "brier": 0.3 + 0.03 / size,
        "ece": 0.02 + 0.05 / size,
        "signed_ece": -0.01 - 0.05 / size,
    }
    row = {
        "label": label,
        "model": model,
        "dataset": "shapes",
        "split": "test",
        "num_samples": size,
        "num_examples": 2000,
        **scores,
        "reference": dict(scores),
        "reliability": {
            "edges": EDGES.tolist(),
            "count": count.tolist(),
            "accuracy": np.where(count > 0, EDGES[:-1] + 0.06, 0).tolist(),
            "confidence": np.where(count > 0, EDGES[:-1] + 0.05, 0).tolist(),
        },
    }
    return {**row, **changes}


def curve(label, *, sizes=SIZES, **changes):
    return [make_row(label, size, **changes) for size in sizes]


def demo():
    return [
        *curve("Deterministic", sizes=(1,), model="resnet_dnn_18", nll=0.9),
        *curve("MC dropout"),
        *curve("MC dropout + smoothing", model="resnet_mcdo_smoothing_18"),
    ]


def write(path, rows, **options):
    options = {"provenance": PROVENANCE, "title": "A title", **options}
    return report.write(path, rows, **options)


class Page(HTMLParser):
    """Checks that tags are balanced and keeps tags, attributes and text."""

    def __init__(self, document):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(document)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data.replace("\N{NO-BREAK SPACE}", " "))

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def pair(plain, smoothed):
    """Rows without and with smoothing from {size: NLL}."""
    plain_rows = [make_row("A", size) | {"nll": nll} for size, nll in plain.items()]
    model = "resnet_mcdo_smoothing_18"
    return plain_rows + [
        make_row("A + smoothing", size, model=model) | {"nll": nll}
        for size, nll in smoothed.items()
    ]


def scored(label, size, *, shift=0.0, **changes):
    """A row with all the optional scores, moved by `shift`."""
    plain = {
        "mce": 0.2,
        "classwise_ece": 0.00123,
        "adaptive_ece": 0.04,
        "brier_reliability": 0.0123,
        "brier_resolution": 0.65,
        "brier_uncertainty": 0.99,
        "temperature": 1.25,
        "calibrated_nll": 0.77,
        "calibrated_ece": 0.011,
        "calibrated_brier": 0.29,
        "entropy": 0.7,
        "mutual_information": 0.1 - 0.1 / size,
        "variation_ratio": 0.08,
        "aurc": 0.0521,
        "excess_aurc": 0.0213,
        "coverage_at_risk_5": 0.61,
        "milliseconds": 0.02 * size,
        "consistency": 0.93,
        "cec": 0.0121,
        "cec_sum": 1.21,
    }
    coverage = np.linspace(0.01, 1, 100)
    one = {"auroc": 0.8 + shift, "aupr": 0.7 + shift, "fpr95": 0.6 + shift}
    names = ("confidence", "entropy", "mutual_information", "energy")
    row = {
        **make_row(label, size),
        **plain,
        "risk_coverage": {
            "coverage": coverage.tolist(),
            "risk": (0.2 * coverage**2 + shift).tolist(),
        },
        "detection": {
            "dataset": "noise",
            "split": "test",
            "num_examples": 3000,
            "scores": {name: dict(one) for name in names},
        },
    }
    for key in ("nll", "accuracy", "ece", "aurc", "milliseconds"):
        row[key] += shift
    return {**row, **changes}


def with_intervals(row, *, half=0.01, keys=("nll", "accuracy", "ece", "brier")):
    """The row with symmetric intervals."""
    ends = {key: [row[key] - half, row[key] + half] for key in keys}
    return {**row, "intervals": ends}


def cells(table):
    """The values of the lines of a table as texts; what is below a value follows it."""
    return [
        [" ".join([cell.text, *cell.below]) for cell in line.cells]
        for group in table.groups
        for line in group
    ]


def best_cells(table):
    """The texts of the cells that are marked as the best."""
    return [
        cell.text
        for group in table.groups
        for line in group
        for cell in line.cells
        if cell.is_best
    ]


def head(table):
    """The headings of a table, without units."""
    return [heading.text for line in table.head for heading in line]
