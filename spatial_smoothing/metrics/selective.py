"""Selective prediction: the risk that is left when uncertain examples are refused.

Contract of this file: `confidence` f[n], high for certain, in any monotone scale;
`loss` f[n] >= 0, such as 1 for a wrong prediction and 0 for a right one; `weights`
f[n] >= 0, how often each example counts (None for once). A threshold on the confidence
accepts a share of the weight, the coverage, at a risk, the mean loss of what it
accepts. It accepts examples of equal confidence together; coverages in between accept
them in proportion, at random. Results depend neither on the order of examples nor on
whether one counts twice or is there twice. NaN gives NaN.
"""

import chex
import jax
import jax.numpy as jnp

from spatial_smoothing.metrics.ranking import (
    Ranking,
    nan_if_nan,
    rank,
    ratio,
    total,
    weights_of,
)


def risk_coverage(
    confidence: jax.Array, loss: jax.Array, weights: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """The risk-coverage curve, at the threshold of each example's confidence.

    Args:
      confidence: f[n].
      loss: f[n].
      weights: f[n].

    Returns:
      coverage f[n], in (0, 1], not decreasing, and risk f[n]; the most confident
      example comes first, equal ones share their point. Where nothing has weight yet,
      both are 0. Source: El-Yaniv & Wiener 2010.
    """
    weights = _checked(confidence, loss, weights)
    ranking = rank(confidence)
    accepted, losses = _sums(ranking, loss, weights)
    coverage, risk = curve(ranking, accepted, losses)
    inputs = (confidence, loss, weights)
    return nan_if_nan(coverage, *inputs), nan_if_nan(risk, *inputs)


def aurc(
    confidence: jax.Array, loss: jax.Array, weights: jax.Array | None = None
) -> jax.Array:
    """Area under the risk-coverage curve: the mean risk over all coverages in (0, 1].

    The curve is integrated exactly. The mean risk of the n thresholds, its Riemann sum,
    is published as often; it differs by an order of 1 / n.

    Args:
      confidence: f[n].
      loss: f[n].
      weights: f[n].

    Returns:
      f[], in the unit of the loss. Source: Geifman et al., ICLR 2019, section 2.
    """
    weights = _checked(confidence, loss, weights)
    ranking = rank(confidence)
    result = area(ranking, *_sums(ranking, loss, weights))
    return nan_if_nan(result, confidence, loss, weights)


def excess_aurc(
    confidence: jax.Array, loss: jax.Array, weights: jax.Array | None = None
) -> jax.Array:
    """`aurc` minus that of the best order of the same losses, least loss first.

    Of losses 0 and 1 with the mean r, that is r + (1 - r) log(1 - r).

    Args:
      confidence: f[n].
      loss: f[n].
      weights: f[n].

    Returns:
      f[], at least 0 but for rounding. Source: Geifman et al., ICLR 2019, section 2.
    """
    best = aurc(-loss, loss, weights)
    return aurc(confidence, loss, weights) - best


def coverage_at_risk(
    confidence: jax.Array,
    loss: jax.Array,
    weights: jax.Array | None = None,
    *,
    risk: float = 0.05,
) -> jax.Array:
    """Largest coverage of a threshold whose risk is at most `risk`.

    Args:
      confidence: f[n].
      loss: f[n].
      weights: f[n].
      risk: In the unit of the loss.

    Returns:
      f[], in [0, 1]; 0 where no threshold will do. Source: Geifman & El-Yaniv 2017.
    """
    weights = _checked(confidence, loss, weights)
    ranking = rank(confidence)
    accepted, losses = _sums(ranking, loss, weights)
    result = largest_coverage(*curve(ranking, accepted, losses), risk=risk)
    return nan_if_nan(result, confidence, loss, weights)


def _checked(
    confidence: jax.Array, loss: jax.Array, weights: jax.Array | None
) -> jax.Array:
    chex.assert_rank([confidence, loss], 1)
    weights = weights_of(confidence, weights)
    chex.assert_equal_shape([confidence, loss, weights])
    return weights


def _sums(
    ranking: Ranking, loss: jax.Array, weights: jax.Array
) -> tuple[jax.Array, jax.Array]:
    accepted, losses = ranking.prefixes(jnp.stack([weights, weights * loss]))
    return accepted, losses


def curve(
    ranking: Ranking, accepted: jax.Array, losses: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Coverage and risk, f[n], from the prefixes f[n + 1] of weights and losses."""
    weight = ranking.until(accepted)
    return ratio(weight, accepted[-1], empty=jnp.nan), ratio(
        ranking.until(losses), weight
    )


def area(ranking: Ranking, accepted: jax.Array, losses: jax.Array) -> jax.Array:
    """`aurc` from the prefixes f[n + 1] of weights and losses.

    Examples of equal confidence add a weight w and a loss l to the N and L before them.
    The integral of (L + x l / w) / (N + x) over x from 0 to w is
    l + (L - N l / w) log(1 + w / N).
    """
    before, lost = ranking.before(accepted), ranking.before(losses)
    weight = ranking.until(accepted) - before
    loss = ranking.until(losses) - lost
    excess = lost - before * ratio(loss, weight)  # 0 where nothing is before
    integral = loss + excess * jnp.log1p(ratio(weight, before))
    one_of_equals = ranking.last == jnp.arange(len(ranking.last))
    sum_of_risks = total(jnp.where(one_of_equals, integral, 0))
    return ratio(sum_of_risks, accepted[-1], empty=jnp.nan)


def largest_coverage(
    coverage: jax.Array, risk_left: jax.Array, *, risk: float
) -> jax.Array:
    """`coverage_at_risk` from a curve."""
    return jnp.where(risk_left <= risk, coverage, 0).max()
