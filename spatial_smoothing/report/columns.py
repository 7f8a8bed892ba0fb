"""The scores of a report: how each is headed, written and explained, and its table.

The one place that knows it; tables, figures and words look it up.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Column(NamedTuple):
    """How a key is headed and written: the number is multiplied by `scale`."""

    heading: str
    unit: str = ""
    scale: float = 1
    digits: int = 3
    better: str = ""  # "lower", "higher", or neither
    group: str = "results"  # the table of the page that shows it
    note: str = ""  # what the score is, where the heading does not say it


def _percent(
    heading: str, better: str = "", *, digits: int = 2, **about: str
) -> Column:
    return Column(heading, "%", 100, digits, better, **about)


def _nats(heading: str, better: str = "", *, digits: int = 3, **about: str) -> Column:
    return Column(heading, "nats", 1, digits, better, **about)


_CALIBRATION = {
    "mce": _percent(
        "MCE", "lower", note="largest gap between confidence and accuracy of a bin"
    ),
    "adaptive_ece": _percent(
        "Adaptive ECE", "lower", note="ECE over bins that hold equally many images"
    ),
    "classwise_ece": _percent(
        "Class-wise ECE",
        "lower",
        digits=3,
        note="ECE of the probability of each class, averaged over the classes",
    ),
    "brier_reliability": Column(
        "Reliability",
        digits=4,
        better="lower",
        note="part of the Brier score that miscalibration adds",
    ),
    "brier_resolution": Column(
        "Resolution",
        digits=4,
        better="higher",
        note="part of the Brier score that telling images apart takes away",
    ),
    "brier_uncertainty": Column(
        "Uncertainty",
        digits=4,
        note="Brier score of always predicting the class frequencies, the same for "
        "every model; Brier = reliability − resolution + uncertainty",
    ),
}
_TEMPERATURE = {
    "temperature": Column(
        "T",
        note="temperature that minimises the NLL of a held-out split; above 1 where "
        "the model was overconfident",
    ),
    "calibrated_nll": _nats("NLL at T", "lower"),
    "calibrated_ece": _percent("ECE at T", "lower"),
    "calibrated_brier": Column("Brier at T", better="lower"),
}
_UNCERTAINTY = {
    "entropy": _nats(
        "Entropy",
        note="of the mean prediction: the total uncertainty, averaged over images",
    ),
    "mutual_information": _nats(
        "Mutual inf.",
        note="mutual information of prediction and sample, the part of the entropy "
        "that comes from disagreement between samples, or frames",
    ),
    "variation_ratio": _percent(
        "Var. ratio",
        note="variation ratio, the share of the samples that do not vote for the most "
        "frequent class",
    ),
    "aurc": Column(
        "AURC",
        "×10³",
        1e3,
        1,
        "lower",
        note="area under the risk-coverage curve, the error rate of the most confident "
        "images averaged over how many are answered",
    ),
    "excess_aurc": Column(
        "E-AURC",
        "×10³",
        1e3,
        1,
        "lower",
        note="AURC above that of an ideal ranking with the same accuracy",
    ),
    "coverage_at_risk_5": _percent(
        "Cov. at 5 %",
        "higher",
        note="largest share of the images that can be answered with an error rate of "
        "at most 5 %",
    ),
}
_STREAMS = {
    "consistency": _percent(
        "Consistency",
        "higher",
        note="share of consecutive frames with the same predicted class",
    ),
    "cec": _nats(
        "CEC",
        "lower",
        digits=4,
        note="cross-entropy between the predictions of consecutive frames, averaged "
        "over classes",
    ),
    "cec_sum": _nats("CEC sum", "lower", note="the same, summed over classes"),
}
_CORRUPTION = {
    "mean_ce": _percent(
        "mCE", "lower", note="mean corruption error, the ratio of error rates"
    ),
    "mean_cnll": _percent(
        "mCNLL", "lower", note="mean corruption NLL, the ratio of NLLs"
    ),
    "mean_cece": _percent(
        "mCECE", "lower", note="mean corruption ECE, the ratio of ECEs"
    ),
    "relative_mean_ce": _percent(
        "Relative mCE",
        "lower",
        note="the ratio of what corruption adds to the error rate",
    ),
    "mean_error": _percent("Mean error", "lower"),
    "mean_nll": _nats("Mean NLL", "lower"),
    "mean_ece": _percent("Mean ECE", "lower"),
    "mean_added_error": _percent(
        "Added error", "lower", note="mean error above that on clean images"
    ),
    "flip_rate": _percent(
        "Flip rate",
        "lower",
        note="share of the frames of another predicted class than the frame before "
        "or, in sequences of noise, than the first one, which is clean",
    ),
    "corruption": Column("Corruption"),
    "severity": Column("Severity", digits=0),
}
_LANDSCAPE = {
    "nll_l2": _nats("NLL + L2", note="with weight decay / 2 times the squared norm"),
    "border_nll": _nats("Border NLL", note="mean over the border of the grid"),
    "border_accuracy": _percent("Border acc."),
    "curvature": Column(
        "Curvature",
        note="mean second derivative of the NLL along the two directions, of a "
        "quadratic fit to the grid",
    ),
    "residual": Column(
        "Residual", digits=4, note="standard deviation of the NLL from that fit"
    ),
}
_HESSIAN = {
    "num_batches": Column("Batches", digits=0),
    "top_mean": Column("Mean", digits=1),
    "top_median": Column("Median", digits=1),
    "top_90": Column("90 %", digits=1, note="quantile over mini-batches"),
    "negative": _percent(
        "Negative", digits=1, note="share of the eigenvalues found that are negative"
    ),
    "positive_mean": Column(
        "Positive mean", digits=1, note="mean of those that are positive"
    ),
    "products": Column(
        "Products", digits=1, note="Hessian-vector products for a mini-batch"
    ),
    "largest": Column("Largest", digits=1),
    "smallest": Column("Smallest"),
    "trace": Column("Trace", digits=0),
}
_FEATURES = {
    "tap": Column("After"),
    "sample_variance": Column(
        "Samples", digits=4, note="variance over dropout samples"
    ),
    "relative_variance": _percent(
        "Relative",
        note="variance over samples relative to that over space, free of the scale of "
        "the map",
    ),
    "frame_variance": Column(
        "Frames", digits=4, note="variance over the frames of a moving crop"
    ),
    "space_variance": Column(
        "Space", digits=4, note="variance over the positions of a map"
    ),
    "low": Column("At 0", note="log amplitude at frequency zero"),
    "high": Column("Highest", note="at the highest frequency on the diagonal"),
    "high_delta": Column("Δ", note="difference of the two"),
    "network": Column("Network"),
    "frequency": Column("Frequency", "π", digits=2),
}
# A score of out-of-distribution detection -> its heading and what it is.
DETECTORS = {
    "confidence": ("Confidence", "one minus the largest probability"),
    "entropy": ("Entropy", "entropy of the mean prediction"),
    "mutual_information": (
        "Mutual information",
        "disagreement between samples, or frames; a single one has none",
    ),
    "energy": ("Energy", "negative log-sum-exp of the logits"),
}


def _grouped(group: str, columns: dict[str, Column]) -> dict[str, Column]:
    return {key: column._replace(group=group) for key, column in columns.items()}


COLUMNS = {
    "label": Column("Model"),
    "run": Column("Run"),
    "num_samples": Column("N", digits=0),
    "num_examples": Column("Images", digits=0),
    "num_runs": Column("Runs", digits=0),
    "nll": _nats("NLL", "lower"),
    "accuracy": _percent("Accuracy", "higher"),
    "top5": _percent("Top-5", "higher"),
    "ece": _percent("ECE", "lower"),
    "signed_ece": _percent(
        "Signed ECE", note="positive where confidence exceeds accuracy"
    ),
    "brier": Column("Brier", better="lower"),
    "iou": _percent("IoU", "higher"),
    "accuracy_90": _percent(
        "Acc-90",
        "higher",
        note="accuracy of the predictions with confidence above 90 %",
    ),
    "iou_90": _percent(
        "IoU-90", "higher", note="IoU of the predictions with confidence above 90 %"
    ),
    "unconfidence_90": _percent(
        "Unc-90",
        "higher",
        note="share of the wrong predictions with confidence of at most 90 %",
    ),
    "frequency_90": _percent(
        "Freq-90", note="share of the predictions with confidence above 90 %"
    ),
    "milliseconds": Column(
        "Time", "ms/image", better="lower", note="computation for one image"
    ),
    "auroc": _percent(
        "AUROC",
        "higher",
        note="probability that an out-of-distribution image scores above one of the "
        "test set; 50 % is chance",
    ),
    "aupr": _percent(
        "AUPR",
        "higher",
        note="area under the precision-recall curve, out-of-distribution images being "
        "the positive class",
    ),
    "fpr95": _percent(
        "FPR95",
        "lower",
        note="share of the test images taken for out-of-distribution where 95 % of "
        "the latter are found",
    ),
    **_grouped("calibration", _CALIBRATION),
    **_grouped("temperature", _TEMPERATURE),
    **_grouped("uncertainty", _UNCERTAINTY),
    **_grouped("streams", _STREAMS),
    **_grouped("corruption", _CORRUPTION),
    **_grouped("landscape", _LANDSCAPE),
    **_grouped("hessian", _HESSIAN),
    **_grouped("features", _FEATURES),
}


def column(key: str) -> Column:
    """How `key` is headed and written; a key that is not known heads itself."""
    return COLUMNS.get(key, Column(key))


def in_words(key: str) -> str:
    """How `key` is called within a sentence: "accuracy" and "mean ECE", but "NLL"."""
    heading = column(key).heading
    first, *others = heading.split(" ")
    return " ".join([first.lower() if first[1:].islower() else first, *others])


def in_sentence(keys: Sequence[str]) -> str:
    """Scores at the beginning of a sentence: "NLL, accuracy and ECE"."""
    first, *others = keys
    words = [column(first).heading, *map(in_words, others)]
    *left, last = words
    return f"{', '.join(left)} and {last}" if left else last
