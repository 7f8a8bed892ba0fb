"""Selective prediction: the risk that is left when uncertain examples are refused.

Contract of this file: `confidence` is [n] of any real type, high for certain, in any
monotone scale; `loss` is [n], at least 0, such as 1 for a wrong prediction and 0 for a
right one; `weights` are f[n], at least 0, how often each example counts (None for
once). A threshold on the confidence
accepts a share of the weight, the coverage, at a risk, the mean loss of what it
accepts. It accepts examples of equal confidence together; coverages in between accept
them in proportion, at random. Results depend neither on the order of examples nor on
whether one counts twice or is there twice. NaN gives NaN.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from spatial_smoothing.metrics.inputs import Values, check_lengths, widened
from spatial_smoothing.metrics.ranking import (
    Ranking,
    joined,
    nan_if_nan,
    rank,
    ratio,
    sortable,
    total,
    weights_of,
)


def risk_coverage(
    confidence: Values, loss: Values, weights: Values | None = None
) -> tuple[jax.Array, jax.Array]:
    """The risk-coverage curve, at the threshold of each example's confidence.

    Args:
      confidence: [n], high for certain.
      loss: [n], of each example.
      weights: f[n], how often each example counts; None for once.

    Returns:
      coverage f[n], in (0, 1], not decreasing, and risk f[n]; the most confident
      example comes first, equal ones share their point. Where nothing has weight yet,
      the coverage is 0 and the risk NaN. Source: El-Yaniv & Wiener 2010.

    Raises:
      ValueError: for shapes that do not fit.
    """
    ranked, inputs = _ranked(confidence, loss, weights)
    coverage, risk = curve(*ranked)
    return nan_if_nan(coverage, *inputs), nan_if_nan(risk, *inputs)


def aurc(confidence: Values, loss: Values, weights: Values | None = None) -> jax.Array:
    """Area under the risk-coverage curve: the mean risk over all coverages in (0, 1].

    The curve is integrated exactly. The mean risk of the n thresholds, its Riemann sum,
    is published as often; it differs by an order of 1 / n.

    Args:
      confidence: [n], high for certain.
      loss: [n], of each example.
      weights: f[n], how often each example counts; None for once.

    Returns:
      f[], in the unit of the loss. Source: Geifman et al., ICLR 2019, section 2.

    Raises:
      ValueError: for shapes that do not fit.
    """
    ranked, inputs = _ranked(confidence, loss, weights)
    return nan_if_nan(area(*ranked), *inputs)


def excess_aurc(
    confidence: Values, loss: Values, weights: Values | None = None
) -> jax.Array:
    """`aurc` minus that of the best order of the same losses, least loss first.

    Of losses 0 and 1 with the mean r, that is r + (1 - r) log(1 - r).

    Args:
      confidence: [n], high for certain.
      loss: [n], of each example.
      weights: f[n], how often each example counts; None for once.

    Returns:
      f[], at least 0 but for rounding. Source: Geifman et al., ICLR 2019, section 2.

    Raises:
      ValueError: for shapes that do not fit.
    """
    best = aurc(-widened(loss), loss, weights)
    return aurc(confidence, loss, weights) - best


def augrc(confidence: Values, loss: Values, weights: Values | None = None) -> jax.Array:
    """Area under the generalised risk-coverage curve.

    The generalised risk at a coverage is the chance that an example is accepted and
    wrong: the loss of all that is accepted, divided by the number of all examples.
    Unlike `aurc`, it weighs each wrong example alike, wherever it is in the ranking. Of
    losses 0 and 1 with the mean r, it is (1 - AUROC) r (1 - r) + r^2 / 2, where AUROC
    is that of the detection of errors.

    Args:
      confidence: [n], high for certain.
      loss: [n], of each example.
      weights: f[n], how often each example counts; None for once.

    Returns:
      f[], in the unit of the loss. The curve is integrated exactly. Source: Traub et
      al., NeurIPS 2024, equation 6.

    Raises:
      ValueError: for shapes that do not fit.
    """
    ranked, inputs = _ranked(confidence, loss, weights)
    return nan_if_nan(generalised_area(*ranked), *inputs)


def scod(
    in_confidence: Values,
    in_loss: Values,
    out_confidence: Values,
    weights: Values | None = None,
    *,
    cost: float = 0.5,
) -> jax.Array:
    """Selective classification with out-of-distribution (OOD) examples: an `aurc`.

    An accepted OOD example costs `cost`; an accepted example in distribution costs its
    loss times 1 - `cost`. The result is the mean cost of what is accepted, over all
    coverages. It depends on the sizes of the two sets.

    Args:
      in_confidence: [n], confidences of examples in distribution, high for certain.
      in_loss: [n], such as 1 for a wrong prediction and 0 for a right one.
      out_confidence: [m], confidences of OOD examples.
      weights: f[n + m], how often each example counts, in this order; None for once.
      cost: Cost of an OOD example that is accepted, in [0, 1].

    Returns:
      f[]. Source: Xia & Bouganis, ACCV 2022, section 3.

    Raises:
      ValueError: for a cost outside [0, 1], or shapes that do not fit.
    """
    if not 0 <= cost <= 1:
        raise ValueError(f"cost must be in [0, 1], got {cost}")
    check_lengths(in_confidence=in_confidence, in_loss=in_loss)
    check_lengths(out_confidence=out_confidence)
    wrong = (1 - cost) * widened(in_loss)
    out = jnp.full(len(out_confidence), cost, wrong.dtype)
    return aurc(
        joined(in_confidence, out_confidence), jnp.concatenate([wrong, out]), weights
    )


def coverage_at_risk(
    confidence: Values,
    loss: Values,
    weights: Values | None = None,
    *,
    risk: float = 0.05,
) -> jax.Array:
    """Largest coverage of a threshold whose risk is at most `risk`.

    Args:
      confidence: [n], high for certain.
      loss: [n], of each example.
      weights: f[n], how often each example counts; None for once.
      risk: The risk that is allowed, in the unit of the loss.

    Returns:
      f[], in [0, 1]; 0 where no threshold will do. Source: Geifman & El-Yaniv 2017.

    Raises:
      ValueError: for shapes that do not fit.
    """
    ranked, inputs = _ranked(confidence, loss, weights)
    return nan_if_nan(largest_coverage(*curve(*ranked), risk=risk), *inputs)


class _Ranked(NamedTuple):
    """Arguments of `curve` and `area`: a ranking by confidence, and sums along it.

    Attributes:
      ranking: By confidence.
      accepted: f[n + 1], weights of the first 0 to n examples.
      losses: f[n + 1], weighted losses of the first 0 to n examples.
    """

    ranking: Ranking
    accepted: jax.Array
    losses: jax.Array


def _ranked(
    confidence: Values, loss: Values, weights: Values | None
) -> tuple[_Ranked, tuple[jax.Array, jax.Array, jax.Array]]:
    """The sums along the ranking, and the inputs, which may hold NaN."""
    check_lengths(confidence=confidence, loss=loss, weights=weights)
    confidence, loss = sortable(confidence), widened(loss)
    weights = weights_of(loss, weights)
    ranking = rank(confidence)
    accepted, losses = ranking.prefixes(jnp.stack([weights, weights * loss]))
    return _Ranked(ranking, accepted, losses), (confidence, loss, weights)


def curve(
    ranking: Ranking, accepted: jax.Array, losses: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """`risk_coverage` from sums.

    Args:
      ranking: By confidence.
      accepted: f[n + 1], weights of the first 0 to n examples.
      losses: f[n + 1], weighted losses of the first 0 to n examples.

    Returns:
      Coverage and risk, f[n] each.
    """
    weight = ranking.until(accepted)
    coverage = ratio(weight, accepted[-1], empty=jnp.nan)
    return coverage, ratio(ranking.until(losses), weight, empty=jnp.nan)


def area(ranking: Ranking, accepted: jax.Array, losses: jax.Array) -> jax.Array:
    """`aurc` from sums.

    Examples of equal confidence add a weight w and a loss l to the N and L before them.
    The integral of (L + x l / w) / (N + x) over x from 0 to w is
    l + (L - N l / w) log(1 + w / N).

    Args:
      ranking: By confidence.
      accepted: f[n + 1], weights of the first 0 to n examples.
      losses: f[n + 1], weighted losses of the first 0 to n examples.

    Returns:
      f[], in the unit of the loss.
    """
    before, lost = ranking.before(accepted), ranking.before(losses)
    weight = ranking.until(accepted) - before
    loss = ranking.until(losses) - lost
    excess = lost - before * ratio(loss, weight)  # 0 where nothing is before
    integral = loss + excess * jnp.log1p(ratio(weight, before))
    # Equal examples have the same integral, which counts once.
    is_last_of_equals = ranking.last == jnp.arange(len(ranking.last))
    sum_of_risks = total(jnp.where(is_last_of_equals, integral, 0))
    return ratio(sum_of_risks, accepted[-1], empty=jnp.nan)


def generalised_area(
    ranking: Ranking, accepted: jax.Array, losses: jax.Array
) -> jax.Array:
    """`augrc` from sums.

    Examples of equal confidence add a weight w and a loss l to the loss L before them.
    The integral of L + x l / w over x from 0 to w is w (L + l / 2).

    Args:
      ranking: By confidence.
      accepted: f[n + 1], weights of the first 0 to n examples.
      losses: f[n + 1], weighted losses of the first 0 to n examples.

    Returns:
      f[], in the unit of the loss.
    """
    # Each example stands for its part of the weight of those that equal it.
    added = jnp.diff(accepted)
    mean = (ranking.before(losses) + ranking.until(losses)) / 2
    shares = ratio(added, accepted[-1], empty=jnp.nan)
    return total(shares * ratio(mean, accepted[-1], empty=jnp.nan))


def largest_coverage(
    coverage: jax.Array, risk_left: jax.Array, *, risk: float
) -> jax.Array:
    """`coverage_at_risk` from a curve.

    Args:
      coverage: f[n], of `curve`.
      risk_left: f[n], of `curve`; NaN where nothing is accepted.
      risk: The risk that is allowed, in the unit of the loss.

    Returns:
      f[], in [0, 1].
    """
    # NaN compares as False: where nothing is accepted, no threshold is found.
    return jnp.where(risk_left <= risk, coverage, 0).max()
