"""The methods that `benchmarks.rivals` compares, and at what scale."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to make several predictions, as a training and its evaluations.

    Attributes:
      about: What it is, as a sentence or two.
      fields: Fields of the config, beyond those of the scale.
      suites: Suites of evaluate.py that score a run.
      dropout: Whether the network has dropout.
    """

    about: str
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    suites: tuple[str, ...] = ("ensemble",)
    dropout: bool = False


@dataclasses.dataclass(frozen=True)
class Scale:
    """The size of the comparison.

    Attributes:
      config: Config that all runs start from.
      fields: Fields of it that all runs change.
      rate: Dropout rate of MC dropout.
      num_samples: Largest number of dropout samples.
      changes: Method -> fields that it changes at this scale.
    """

    config: str
    fields: Mapping[str, Any]
    rate: float
    num_samples: int
    changes: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)


# The members of the deep ensemble are the deterministic networks, too.
METHODS = {
    "deep": Method(
        "networks that are trained apart; N = 1 is one deterministic network. With "
        "Laplace, the last layer of each has a normal posterior, which is fitted after "
        "training.",
        {"members": 4},
        suites=("ensemble", "laplace"),
    ),
    "mc_dropout": Method(
        "dropout in the residual branches, as in the paper; N passes.", dropout=True
    ),
    "improved_mc_dropout": Method(
        "dropout of whole channels in all places of uncertainty-baselines; N passes.",
        {"mask": "channel", "dropout_placement": "all", "rate": 0.1},
        dropout=True,
    ),
    "batch_ensemble": Method(
        "members share kernels, up to a factor of rank one; one pass of N members.",
        {"ensemble": "batch"},
    ),
    "packed": Method(
        "each member is a group of the channels of every layer; one pass.",
        {"ensemble": "packed", "alpha": 2.0},
    ),
    "masksembles": Method(
        "each member sees some of the channels, always the same; one pass.",
        {"ensemble": "masksembles", "scale": 2.0},
    ),
    "mimo": Method(
        "members share all layers but the first and the last; one pass.",
        {"ensemble": "mimo", "ensemble_size": 3},
    ),
}

SCALES = {
    # Masksembles needs 10 channels. A network is trained for 1,252 steps, a minute on
    # two cores, because there are 42 runs; the four members of a run count as four.
    "small": Scale(
        "shapes",
        {"width": 12, "eval_every": 1000},
        rate=0.1,
        num_samples=10,
        changes={"mimo": {"ensemble_size": 2}},
    ),
    # The recipe of the paper; members of MIMO see each image four times in a batch.
    "full": Scale(
        "cifar100",
        {"eval_every": 10, "val_fraction": 0.0},
        rate=0.3,
        num_samples=50,
        changes={"mimo": {"batch_repetitions": 4, "batch_size": 32}},
    ),
}


@dataclasses.dataclass(frozen=True)
class Job:
    """One training of the comparison.

    Attributes:
      method: A key of `METHODS`.
      smoothed: Whether the network has spatial smoothing.
      seed: Number of the repetition, from 0.
    """

    method: str
    smoothed: bool
    seed: int

    @property
    def name(self) -> str:
        """Its name among the rows, and that of its workdir."""
        smoothing = "smoothed" if self.smoothed else "plain"
        return f"{self.method}-{smoothing}-{self.seed}"

    def fields(self, scale: Scale) -> dict[str, Any]:
        """Returns the fields of its config that differ from the scale's config.

        Args:
          scale: The size of the comparison.
        """
        method = METHODS[self.method]
        words = ("mcdo" if method.dropout else "dnn", "smoothing" * self.smoothed)
        fields = {
            **scale.fields,
            "model": "_".join(["resnet", *filter(None, words), "18"]),
            **({"rate": scale.rate} if method.dropout else {}),
            **method.fields,
            **scale.changes.get(self.method, {}),
        }
        # The seeds of members follow each other, and no two runs share one.
        return {**fields, "seed": self.seed * fields.get("members", 1)}


def jobs(*, seeds: int, methods: Sequence[str] = tuple(METHODS)) -> list[Job]:
    """Returns all trainings, those of the first seed first.

    Args:
      seeds: Number of repetitions.
      methods: Some of `METHODS`.
    """
    return [
        Job(method, smoothed, seed)
        for seed in range(seeds)
        for method in methods
        for smoothed in (False, True)
    ]
