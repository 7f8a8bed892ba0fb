"""Made-up rows of the suites that analyse a network, of the shapes that they have."""

import numpy as np

RNG = np.random.default_rng(0)
NAMES = ("MC dropout", "MC dropout + smoothing")
STAGES = (1, 2, 3, 4)


def about(suite, label, *, run="runs/a"):
    model = "resnet_mcdo_smoothing_18" if "smoothing" in label else "resnet_mcdo_18"
    return {
        "suite": suite,
        "split": "test",
        "label": label,
        "run": run,
        "model": model,
        "dataset": "shapes",
        "num_examples": 512,
    }


def landscape(label, *, height=1.0, **options):
    a = np.linspace(-0.1, 0.1, 11)
    nll = 0.5 + height * 80 * (a**2 + (0.7 * a[:, None] - 0.2 * a) ** 2)
    nll = nll + RNG.normal(0, 0.002, nll.shape)
    return {
        **about("landscape", label, **options),
        "split": "train",
        "nll": nll[5, 5],
        "border_nll": nll[0].mean(),
        "accuracy": 0.9,
        "border_accuracy": 0.8,
        "nll_l2": nll[5, 5] + 0.3,
        "ece": 0.02,
        "curvature": 160 * height,
        "residual": 0.002,
        "arrays": {"a": a, "b": a, "nll": nll},
    }


def hessian(label, *, top=200.0, density=True, **options):
    values = RNG.gamma(6, top / 6, (12, 1))
    points = np.linspace(-20, values.max() * 1.2, 200)
    bump = lambda at, width: np.exp(-0.5 * ((points - at) / width) ** 2) / width
    curves = {"top_points": points, "top_density": bump(top, top / 4) / 2.5}
    if density:
        whole = bump(0, 3) + 1e-4 * bump(top / 2, 3) + 1e-5 * bump(top, 3)
        curves |= {"density_points": points, "density": whole / 2.5}
    return {
        **about("hessian", label, **options),
        "split": "train",
        "num_batches": 12,
        "top_mean": values.mean(),
        "top_median": np.median(values),
        "top_90": np.quantile(values, 0.9),
        "negative": 0.0,
        "positive_mean": values.mean(),
        "products": 21.5,
        **({"largest": top, "smallest": -3.2, "trace": 900.0} if density else {}),
        "arrays": {"eigenvalues": values, **curves},
    }


def taps(label):
    smoothing = "smoothing" in label
    for stage in STAGES:
        yield f"stage{stage}"
        if smoothing:
            yield f"smooth{stage}"


def variance(label, *, samples=True, **options):
    rows = []
    for index, tap in enumerate(["stem", *taps(label)]):
        row = {
            **about("variance", label, **options),
            "tap": tap,
            "frame_variance": 0.1 + 0.01 * index,
            "space_variance": 0.2 + 0.02 * index,
        }
        if samples:
            factor = 0.3 if tap.startswith("smooth") else 1.0
            row |= {"sample_variance": 0.01 * index * factor}
            row |= {"relative_variance": row["sample_variance"] / row["space_variance"]}
            size = 32 >> max(index // 2 - 1, 0)
            row["arrays"] = {
                "maps": RNG.random((2, size, size)),
                "map_variance": RNG.random((size, size)),
            }
        rows.append(row)
    if samples:
        image = RNG.integers(0, 256, (32, 32, 3)).astype(np.uint8)
        rows[0]["arrays"]["image"] = image
    return rows


def fourier(label, *, networks=("sample", "mean"), **options):
    rows = []
    for network in networks:
        for tap in ["stem", *taps(label)]:
            slope = 6.0 if tap.startswith("smooth") else 3.0
            frequency = np.linspace(0, 1, 16, endpoint=False)
            values = 5 - slope * np.sqrt(frequency) - (network == "mean")
            rows.append(
                {
                    **about("fourier", label, **options),
                    "tap": tap,
                    "network": network,
                    "low": values[0],
                    "high": values[-1],
                    "high_delta": values[-1] - values[0],
                    "arrays": {
                        "diagonal": np.stack([frequency, values]),
                        "radial": np.stack([frequency, values + 0.2]),
                    },
                }
            )
    return rows


def frequency(label, *, drop=0.2, **options):
    return [
        {
            **about("frequency", label, **options),
            "frequency": f,
            "num_samples": 50,
            "accuracy": 0.8 - (drop * (1 - f) if f else 0),
            "nll": 0.8 + (drop * (1 - f) if f else 0),
            "ece": 0.02,
        }
        for f in (None, *np.arange(0.1, 1, 0.1).round(1).tolist())
    ]


def everything():
    plain, smooth = NAMES
    return [
        *variance(plain),
        *variance(smooth, run="runs/b"),
        *fourier(plain),
        *fourier(smooth, run="runs/b"),
        *frequency(plain, drop=0.3),
        *frequency(smooth, run="runs/b"),
        landscape(plain, height=2.0),
        landscape(smooth, run="runs/b"),
        hessian(plain),
        hessian(smooth, top=120.0, run="runs/b"),
    ]
