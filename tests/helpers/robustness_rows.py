"""Made-up rows of the chapters of robustness."""

import numpy as np

CORRUPTIONS = ("fog", "frost", "snow", "jpeg_compression", "contrast")
PERTURBATIONS = ("gaussian_noise", "translate")
SEVERITIES = (1, 3, 5)
ALEXNET = "AlexNet of the paper on CIFAR-100-C"


def about(label, size, **changes):
    return {
        "label": label,
        "model": "resnet_mcdo_18",
        "dataset": "cifar100",
        "split": "test",
        "run": f"runs/{label}",
        "num_samples": size,
        "num_examples": 500,
        **changes,
    }


def corruption(label, *, sizes=(1, 5), offset=0.0, **changes):
    """Scores that differ by corruption, severity and size, and their means."""
    rows = []
    for size in sizes:
        first = about(
            label,
            size,
            suite="corruption",
            **{"data": "corrupted (generated)", **changes},
        )
        for name in ("clean", *CORRUPTIONS):
            for severity in SEVERITIES if name != "clean" else (0,):
                place = ("clean", *CORRUPTIONS).index(name)
                rows.append(
                    {
                        **first,
                        "corruption": name,
                        "severity": severity,
                        **({"deviation": "procedural"} if name == "frost" else {}),
                        "nll": 1 + offset + 0.1 * place + 0.2 * severity + 0.1 / size,
                        "accuracy": 0.8 - offset / 9 - 0.01 * place - 0.03 * severity,
                        "ece": 0.01 + offset / 9 + 0.01 * severity,
                    }
                )
        rows.append(
            {
                **first,
                "normalizer": ALEXNET,
                "num_corruptions": 5,
                "severities": "1, 3, 5",
                "mean_error": 0.5,
                "mean_nll": 2.5,
                "mean_ece": 0.1,
                "mean_added_error": 0.2,
                "mean_ce": 0.8765 + offset,
                "mean_cnll": 0.6543 + offset,
                "mean_cece": 0.4321 + offset,
            }
        )
    rows[0]["arrays"] = {"clean": np.full((1, 8, 8, 3), 230, np.uint8)} | {
        name: np.full((len(SEVERITIES), 8, 8, 3), 50 * i, np.uint8)
        for i, name in enumerate(CORRUPTIONS)
    }
    return rows


def perturbation(label, *, sizes=(1, 5), offset=0.0):
    rows = []
    for size in sizes:
        for name in (*PERTURBATIONS, None):
            rows.append(
                {
                    **about(label, size),
                    "suite": "perturbation",
                    "data": "perturbed (generated)",
                    **({"perturbation": name} if name else {}),
                    "flip_rate": 0.1 + offset,
                    "consistency": 0.85 - offset,
                    "cec": 0.0123 + offset,
                    "cec_sum": 1.23 + offset,
                }
            )
    return rows
