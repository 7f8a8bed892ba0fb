"""Scores of predictions, example by example, in NumPy float64."""

import numpy as np

from spatial_smoothing import metrics


def _share(part, whole):
    return part / whole if whole else np.nan


def by_definition(probs, labels, *, cutoffs=metrics.CUTOFFS, bins=metrics.BINS):
    """The scores of `definition="fixed"`, example by example in float64."""
    size, classes = probs.shape
    confidence, predicted = probs.max(1), probs.argmax(1)
    of_label = np.float64(probs[np.arange(size), labels])
    right = predicted == labels
    # Of equal probabilities the higher class goes first.
    order = (classes - 1 - np.argsort(-probs[:, ::-1], axis=1, kind="stable"))[:, :5]
    errors = (np.float64(probs) - np.eye(classes)[labels]) ** 2

    def iou(chosen):
        ratios = []
        for c in sorted(set(labels[chosen])):
            both = chosen & (labels == c) & (predicted == c)
            either = chosen & ((labels == c) | (predicted == c))
            ratios.append(both.sum() / either.sum())
        return _share(sum(ratios), len(ratios))

    ece = signed = largest = 0.0
    for low, high in zip(np.float32(bins[:-1]), np.float32(bins[1:]), strict=True):
        inside = (low < confidence) & (confidence <= high)
        if inside.any():
            gap = np.mean(np.float64(confidence[inside])) - right[inside].mean()
            ece += abs(gap) * inside.mean()
            signed += gap * inside.mean()
            largest = max(largest, abs(gap))
    scores = {
        "nll": -np.log(of_label).mean(),
        "accuracy": right.mean(),
        "top5": (order == labels[:, None]).any(1).mean(),
        "brier": errors.sum(1).mean(),
        "iou": iou(np.ones(size, bool)),
        "ece": ece,
        "signed_ece": signed,
    }
    for cutoff in cutoffs:
        certain, tag = confidence > np.float32(cutoff), f"{100 * cutoff:g}"
        uncertain_and_wrong = (~certain & ~right).sum()
        scores[f"accuracy_{tag}"] = _share((right & certain).sum(), certain.sum())
        scores[f"iou_{tag}"] = iou(certain)
        scores[f"unconfidence_{tag}"] = _share(uncertain_and_wrong, (~right).sum())
        scores[f"frequency_{tag}"] = certain.mean()
    return scores | {"mce": largest} | _by_class(probs, labels, bins=bins)


def _by_class(probs, labels, *, bins):
    """Class-wise scores: one class and bin at a time, all five terms of the latter."""
    classes = probs.shape[1]
    error = reliability = resolution = uncertainty = 0.0
    for c in range(classes):
        truth = labels == c
        uncertainty += truth.mean() * (1 - truth.mean())
        bin_of = np.digitize(probs[:, c], np.float32(bins[1:-1]), right=True)
        for index in set(bin_of):
            inside, p = bin_of == index, np.float64(probs[bin_of == index, c])
            share, y = inside.mean(), truth[inside]
            error += share * abs(p.mean() - y.mean()) / classes
            reliability += share * (p.mean() - y.mean()) ** 2
            resolution += share * (y.mean() - truth.mean()) ** 2
            within = np.var(p) - 2 * np.mean((p - p.mean()) * (y - y.mean()))
            resolution -= share * within
    return {
        "classwise_ece": error,
        "brier_reliability": reliability,
        "brier_resolution": resolution,
        "brier_uncertainty": uncertainty,
    }
