"""The cases that ablations compare: name of a table -> cases -> config fields.

Source: Park & Kim, ICML 2022, section 3 and appendices B to D.
"""

from typing import Any

PLAIN = "resnet_mcdo_18"
SMOOTH = "resnet_mcdo_smoothing_18"
Cases = dict[str, dict[str, Any]]


# The defaults of the layer. A case with these values is the case without them.
_DEFAULTS = {"squash": "tanh", "taps": (1, 1), "temperature": 10.0}


def _smoothed(**fields: Any) -> dict[str, Any]:
    """Returns the fields of the network with smoothing, some of them changed."""
    different = {k: v for k, v in fields.items() if v != _DEFAULTS[k]}
    return {"model": SMOOTH, **different}


TABLES: dict[str, Cases] = {
    # Global average pooling is spatial smoothing in the extreme, an MLP its opposite.
    "heads": {
        "GAP": {"model": PLAIN},
        "GAP + smoothing": {"model": SMOOTH},
        "MLP": {"model": PLAIN, "head": "mlp"},
        "Global max": {"model": PLAIN, "head": "max"},
        "Global median": {"model": PLAIN, "head": "median"},
    },
    "activation": {
        "Post-activation": {"model": PLAIN},
        "Post-activation + smoothing": {"model": SMOOTH},
        "Pre-activation": {"model": "preresnet_mcdo_18"},
        "Pre-activation + smoothing": {"model": "preresnet_mcdo_smoothing_18"},
    },
    # The maps at the end of a stage are not negative: without a squash it is a ReLU.
    "squash": {
        "None": {"model": PLAIN},
        "Blur": _smoothed(squash="none"),
        **{
            f"{title}{' + blur' if blurred else ''}": _smoothed(
                squash=squash, taps=(1, 1) if blurred else (1,)
            )
            for title, squash in (("tanh", "tanh"), ("ReLU6", "clip"), ("x/5", "scale"))
            for blurred in (False, True)
        },
    },
    "taps": {
        str(len(taps)): _smoothed(taps=taps)
        for taps in ((1,), (1, 1), (1, 2, 1), (1, 4, 6, 4, 1))
    },
    "temperature": {
        f"t = {t:g}": _smoothed(temperature=t)
        for t in (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
    },
    "rate": {
        f"{rate:.0%}{title}": {"model": model, "rate": rate}
        for title, model in (("", PLAIN), (" + smoothing", SMOOTH))
        for rate in (0.1, 0.2, 0.3, 0.4, 0.5)
    },
    "position": {
        "None": {"model": PLAIN},
        **{
            f"After stage {stage}": {
                "model": SMOOTH,
                "smoothing": tuple(int(stage == s) for s in (1, 2, 3, 4)),
            }
            for stage in (1, 2, 3, 4)
        },
        "After all": {"model": SMOOTH},
    },
}
