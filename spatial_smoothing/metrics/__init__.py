"""Scores of predicted class probabilities, as pure functions.

Contract of this package: likelihoods and entropies are in nats, rates are fractions.
A `Tally` holds sums over batches, and `summary` computes scores from it; `Examples`
keep what ranks and resamples need, and `table` computes scores from them. Functions
take arrays of any real type, and work under `jit` and `vmap`.
"""

from spatial_smoothing.metrics.calibration import (
    adaptive_ece,
    fit_temperature,
    scale_temperature,
)
from spatial_smoothing.metrics.confidences import (
    generalised_entropy,
    max_logit,
    max_probability,
    odin,
)
from spatial_smoothing.metrics.conformal import (
    class_scores,
    conformal_sets,
    conformal_threshold,
)
from spatial_smoothing.metrics.detection import (
    aupr,
    auroc,
    fpr_at_tpr,
    ood,
    trapezoidal_aupr,
)
from spatial_smoothing.metrics.examples import Examples, per_example
from spatial_smoothing.metrics.inputs import checks_under_jit
from spatial_smoothing.metrics.resampling import bootstrap, interval, paired, resample
from spatial_smoothing.metrics.scores import brier, in_top, nll
from spatial_smoothing.metrics.selective import (
    augrc,
    aurc,
    coverage_at_risk,
    excess_aurc,
    risk_coverage,
    scod,
)
from spatial_smoothing.metrics.smooth_calibration import smooth_ece
from spatial_smoothing.metrics.summaries import DEFINITIONS, reliability, summary
from spatial_smoothing.metrics.tables import table
from spatial_smoothing.metrics.tallies import BINS, CUTOFFS, Tally, tally
from spatial_smoothing.metrics.uncertainty import (
    ambiguity,
    disagreement,
    energy,
    entropy,
    mutual_information,
    variation_ratio,
)

__all__ = [
    "BINS",
    "CUTOFFS",
    "DEFINITIONS",
    "Examples",
    "Tally",
    "adaptive_ece",
    "ambiguity",
    "augrc",
    "aupr",
    "aurc",
    "auroc",
    "bootstrap",
    "brier",
    "checks_under_jit",
    "class_scores",
    "conformal_sets",
    "conformal_threshold",
    "coverage_at_risk",
    "disagreement",
    "energy",
    "entropy",
    "excess_aurc",
    "fit_temperature",
    "fpr_at_tpr",
    "generalised_entropy",
    "in_top",
    "interval",
    "max_logit",
    "max_probability",
    "mutual_information",
    "nll",
    "odin",
    "ood",
    "paired",
    "per_example",
    "reliability",
    "resample",
    "risk_coverage",
    "scale_temperature",
    "scod",
    "smooth_ece",
    "summary",
    "table",
    "tally",
    "trapezoidal_aupr",
    "variation_ratio",
]
