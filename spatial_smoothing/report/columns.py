"""The scores of a report: how each is headed, written and explained, and its table.

With `suite_columns`, which has the scores of chapters, the one place that knows it;
tables, figures and words look it up.
"""

from collections.abc import Sequence

from spatial_smoothing.report import suite_columns
from spatial_smoothing.report.column import Column, nats, percent

_CALIBRATION = {
    "mce": percent(
        "MCE", "lower", note="largest gap between confidence and accuracy of a bin"
    ),
    "adaptive_ece": percent(
        "Adaptive ECE", "lower", note="ECE over bins that hold equally many images"
    ),
    "smooth_ece": percent(
        "SmoothECE",
        "lower",
        note="ECE without bins: the gap smoothed by a kernel whose width equals it",
    ),
    "classwise_ece": percent(
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
    "calibrated_nll": nats("NLL at T", "lower"),
    "calibrated_ece": percent("ECE at T", "lower"),
    "calibrated_brier": Column("Brier at T", better="lower"),
}
_UNCERTAINTY = {
    "entropy": nats(
        "Entropy",
        note="of the mean prediction: the total uncertainty, averaged over images",
    ),
    "mutual_information": nats(
        "Mutual inf.",
        note="mutual information of prediction and sample, the part of the entropy "
        "that comes from disagreement between samples, or frames",
    ),
    "variation_ratio": percent(
        "Var. ratio",
        note="variation ratio, the share of the samples that do not vote for the most "
        "frequent class",
    ),
    "disagreement": percent(
        "Disagreement",
        note="chance that two samples predict different classes; a single one has none",
    ),
    "ambiguity": nats(
        "Ambiguity",
        note="mean NLL of single samples minus that of their average: what averaging "
        "gains",
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
    "augrc": Column(
        "AUGRC",
        "×10³",
        1e3,
        1,
        "lower",
        note="share of the images that are answered and wrong, averaged over how many "
        "are answered",
    ),
    "coverage_at_risk_5": percent(
        "Cov. at 5 %",
        "higher",
        note="largest share of the images that can be answered with an error rate of "
        "at most 5 %",
    ),
}
_STREAMS = {
    "consistency": percent(
        "Consistency",
        "higher",
        note="share of consecutive frames with the same predicted class",
    ),
    "cec": nats(
        "CEC",
        "lower",
        digits=4,
        note="cross-entropy between the predictions of consecutive frames, averaged "
        "over classes",
    ),
    "cec_sum": nats("CEC sum", "lower", note="the same, summed over classes"),
}
_CONFORMAL = {
    "lac_coverage": percent(
        "LAC coverage",
        note="share of the images whose set of classes holds the right one; 90 % are "
        "asked for. LAC: classes above a probability",
    ),
    "lac_size": Column("LAC size", digits=2, better="lower", note="classes in a set"),
    "aps_coverage": percent(
        "APS coverage", note="of sets of the most probable classes, up to a sum"
    ),
    "aps_size": Column("APS size", digits=2, better="lower"),
    "raps_coverage": percent(
        "RAPS coverage", note="the same, with a penalty for classes after the fifth"
    ),
    "raps_size": Column("RAPS size", digits=2, better="lower"),
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
    "nll": nats("NLL", "lower"),
    "accuracy": percent("Accuracy", "higher"),
    "top5": percent("Top-5", "higher"),
    "ece": percent("ECE", "lower"),
    "signed_ece": percent(
        "Signed ECE", note="positive where confidence exceeds accuracy"
    ),
    "brier": Column("Brier", better="lower"),
    "iou": percent("IoU", "higher"),
    "accuracy_90": percent(
        "Acc-90",
        "higher",
        note="accuracy of the predictions with confidence above 90 %",
    ),
    "iou_90": percent(
        "IoU-90", "higher", note="IoU of the predictions with confidence above 90 %"
    ),
    "unconfidence_90": percent(
        "Unc-90",
        "higher",
        note="share of the wrong predictions with confidence of at most 90 %",
    ),
    "frequency_90": percent(
        "Freq-90", note="share of the predictions with confidence above 90 %"
    ),
    "milliseconds": Column(
        "Time", "ms/image", better="lower", note="computation for one image"
    ),
    "gflops": Column(
        "GFLOPs",
        "per image",
        digits=4,
        group="cost",
        note="floating-point operations of a prediction for one image, in 10⁹; what "
        "comes before the first dropout counts once for all samples",
    ),
    "prior_precision": Column(
        "Prior precision",
        digits=4,
        note="inverse variance of the prior of the last layer, chosen by the marginal "
        "likelihood",
    ),
    "auroc": percent(
        "AUROC",
        "higher",
        note="probability that an out-of-distribution image scores above one of the "
        "test set; 50 % is chance",
    ),
    "aupr": percent(
        "AUPR",
        "higher",
        note="area under the precision-recall curve, out-of-distribution images being "
        "the positive class",
    ),
    "fpr95": percent(
        "FPR95",
        "lower",
        note="share of the test images taken for out-of-distribution where 95 % of "
        "the latter are found",
    ),
    **_grouped("calibration", _CALIBRATION),
    **_grouped("temperature", _TEMPERATURE),
    **_grouped("uncertainty", _UNCERTAINTY),
    **_grouped("conformal", _CONFORMAL),
    **_grouped("ood", suite_columns.OOD),
    **_grouped("streams", _STREAMS),
    **_grouped("corruption", suite_columns.CORRUPTION),
    **_grouped("landscape", suite_columns.LANDSCAPE),
    **_grouped("hessian", suite_columns.HESSIAN),
    **_grouped("features", suite_columns.FEATURES),
    **_grouped("segmentation", suite_columns.SEGMENTATION),
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
