"""The scores of the chapters of a report; `columns` has those of ensembles."""

from spatial_smoothing.report.column import Column, nats, percent

CORRUPTION = {
    "mean_ce": percent(
        "mCE", "lower", note="mean corruption error, the ratio of error rates"
    ),
    "mean_cnll": percent(
        "mCNLL", "lower", note="mean corruption NLL, the ratio of NLLs"
    ),
    "mean_cece": percent(
        "mCECE", "lower", note="mean corruption ECE, the ratio of ECEs"
    ),
    "relative_mean_ce": percent(
        "Relative mCE",
        "lower",
        note="the ratio of what corruption adds to the error rate",
    ),
    "mean_error": percent("Mean error", "lower"),
    "mean_nll": nats("Mean NLL", "lower"),
    "mean_ece": percent("Mean ECE", "lower"),
    "mean_added_error": percent(
        "Added error", "lower", note="mean error above that on clean images"
    ),
    "flip_rate": percent(
        "Flip rate",
        "lower",
        note="share of the frames of another predicted class than the frame before "
        "or, in sequences of noise, than the first one, which is clean",
    ),
    "corruption": Column("Corruption"),
    "severity": Column("Severity", digits=0),
}
LANDSCAPE = {
    "nll_l2": nats("NLL + L2", note="with weight decay / 2 times the squared norm"),
    "border_nll": nats("Border NLL", note="mean over the border of the grid"),
    "border_accuracy": percent("Border acc."),
    "curvature": Column(
        "Curvature",
        note="mean second derivative of the NLL along the two directions, of a "
        "quadratic fit to the grid",
    ),
    "residual": Column(
        "Residual", digits=4, note="standard deviation of the NLL from that fit"
    ),
}
HESSIAN = {
    "num_batches": Column("Batches", digits=0),
    "top_mean": Column("Mean", digits=1),
    "top_median": Column("Median", digits=1),
    "top_90": Column("90 %", digits=1, note="quantile over mini-batches"),
    "negative": percent(
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
FEATURES = {
    "tap": Column("After"),
    "sample_variance": Column(
        "Samples", digits=4, note="variance over dropout samples"
    ),
    "relative_variance": percent(
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
OOD = {
    "aupr_in": percent("AUPR-in", "higher"),
    "aupr_out": percent("AUPR-out", "higher"),
    "aupr_in_trapezoid": percent("AUPR-in (trapezoid)", "higher"),
    "aupr_out_trapezoid": percent("AUPR-out (trapezoid)", "higher"),
    "scod": Column("SCOD", "×10³", 1e3, 1, "lower"),
}
SEGMENTATION = {
    "pavpu": percent(
        "PAvPU",
        "higher",
        note="share of the windows of 16x16 pixels that are accurate and certain, or "
        "inaccurate and uncertain",
    ),
    "frames_per_second": Column(
        "Speed",
        "frames/s",
        digits=1,
        better="higher",
        note="measured on one stream of single frames",
    ),
    "class": Column("Class"),
}
