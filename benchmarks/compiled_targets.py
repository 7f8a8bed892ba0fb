"""The targets of `benchmarks.compiled`, and whether the rows meet them.

Contract of this file: what was there before is what the same compilers said of commit
4fad4ee, with JAX 0.10.2. Figures of steps were those of the step alone, outside of the
loop over steps, where a GPU has more kernels; "in the loop" is what this command
counts. They were without augmentation, which moves less than 1 % of the bytes of a
step. GB is 10^9 bytes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks import compiled_rows
from benchmarks.compiled_rows import CHIP, GPU, POD, SLICE, Row

BEFORE = "4fad4ee"
"""The commit that the column "before" is of."""

Figures = Mapping[str, Any]
_GB = 1e9


class Verdict(NamedTuple):
    """Whether a target is met.

    Attributes:
      target: The target.
      now: What the rows say; "" where rows are missing.
      met: Whether the target is met; None where rows are missing.
      missing: Keys of the rows that are missing.
    """

    target: "Target"
    now: str
    met: bool | None
    missing: tuple[str, ...]


class Target(NamedTuple):
    """A figure, or two, that the programs are to reach.

    Attributes:
      what: What is measured.
      before: The figures at the commit `BEFORE`.
      goal: The figures that are wanted.
      rows: The rows that decide it.
      judge: Function of the figures of these rows, in their order, to a text that says
        what they are, and whether the target is met.
    """

    what: str
    before: str
    goal: str
    rows: tuple[Row, ...]
    judge: Callable[[Sequence[Figures]], tuple[str, bool]]

    def verdict(self, figures: Mapping[str, Figures]) -> Verdict:
        """Returns whether the target is met.

        Args:
          figures: Key of a row -> its figures.
        """
        missing = tuple(row.key for row in self.rows if row.key not in figures)
        if missing:
            return Verdict(self, "", None, missing)
        now, met = self.judge([figures[row.key] for row in self.rows])
        return Verdict(self, now, met, ())


def _ratios(rows: Sequence[Figures]) -> list[float]:
    """Returns the bytes of each row, divided by the ideal."""
    return [row["bytes"] / row["ideal_bytes"] for row in rows]


def _span(values: Sequence[float]) -> str:
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low}-{high}"


def _at_most(limit: float) -> Callable[[Sequence[Figures]], tuple[str, bool]]:
    """Judges the bytes of all rows by the ideal ones.

    Args:
      limit: The largest ratio that is allowed.
    """

    def judge(rows: Sequence[Figures]) -> tuple[str, bool]:
        ratios = _ratios(rows)
        return f"{_span(ratios)} x", max(ratios) <= limit

    return judge


def _one_kernel_or_two(rows: Sequence[Figures]) -> tuple[str, bool]:
    """Judges the smoothing op on a GPU: bytes allowed depend on the kernels."""
    ratios, kernels = _ratios(rows), [row["kernels"] for row in rows]
    limits = [1.1 if count == 1 else 2.05 for count in kernels]
    met = all(ratio <= limit for ratio, limit in zip(ratios, limits, strict=True))
    return f"{_span(ratios)} x, {_whole(kernels)} kernels", met


def _whole(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:g}" if low == high else f"{low:g}-{high:g}"


def _gigabytes(limit: float) -> Callable[[Sequence[Figures]], tuple[str, bool]]:
    """Judges the bytes of the first row.

    Args:
      limit: GB that are allowed.
    """

    def judge(rows: Sequence[Figures]) -> tuple[str, bool]:
        found = rows[0]["bytes"] / _GB
        peer = f" (peer {rows[1]['bytes'] / _GB:.2f})" if len(rows) > 1 else ""
        return f"{found:.2f} GB{peer}", found <= limit

    return judge


def _share(rows: Sequence[Figures]) -> tuple[str, bool]:
    """Judges what the first row moves more than the second one."""
    share = rows[0]["bytes"] / rows[1]["bytes"] - 1
    return f"{share:+.1%}", share <= 0.14


def _no_more_than_gradients(rows: Sequence[Figures]) -> tuple[str, bool]:
    """Judges a step on many chips, the first row, by the same step on one.

    The sum over chips reads and writes each gradient once more.
    """
    many, one = (row["bytes"] for row in rows)
    allowed = 2 * 4 * rows[0]["parameters"]
    text = (
        f"{many / _GB:.2f} GB, {(many - one) / _GB:+.2f} ({allowed / _GB:.2f} allowed)"
    )
    return text, many - one <= allowed


def _bytes_and_kernels(
    gigabytes: float, kernels: int
) -> Callable[[Sequence[Figures]], tuple[str, bool]]:
    """Judges bytes, and kernels that are not convolutions, of the first row.

    Args:
      gigabytes: GB that are allowed.
      kernels: Number of fusions and copies that are allowed.
    """

    def judge(rows: Sequence[Figures]) -> tuple[str, bool]:
        found, count = rows[0]["bytes"] / _GB, rows[0]["fusions"] + rows[0]["copies"]
        text = f"{found:.2f} GB, {count} kernels"
        if len(rows) > 1:
            peer, other = rows[1]["bytes"] / _GB, rows[1]["fusions"] + rows[1]["copies"]
            text += f" (peer {peer:.2f}, {other})"
        return text, found <= gigabytes and count <= kernels

    return judge


def _loop_body(rows: Sequence[Figures]) -> tuple[str, bool]:
    """Judges the number of fusions in the body of the loop over samples."""
    counts = [row["loop_fusions"] for row in rows]
    return f"{_whole(counts)} fusions", max(counts) <= 40


def _fits_and_reduces_once(rows: Sequence[Figures]) -> tuple[str, bool]:
    """Judges memory and collectives of a step on a pod."""
    (row,) = rows
    fits = row["memory"] <= row["chip_memory"]
    counts, moved = {}, {}
    for each in row["collectives"]:
        counts[each["kind"]] = counts.get(each["kind"], 0) + each["count"]
        moved[each["kind"]] = moved.get(each["kind"], 0) + each["bytes"]
    gathers, reduces = counts.get("all-gather", 0), counts.get("all-reduce", 0)
    # Statistics of norms are reduced too, which is less than a hundredth of this.
    once = 0 < moved.get("all-reduce", 0) <= 1.1 * 4 * row["parameters"]
    text = (
        f"{row['memory'] / _GB:.2f} of {row['chip_memory'] / _GB:.1f} GB; {reduces:g} "
        f"all-reduces of {moved.get('all-reduce', 0) / 1e6:.0f} MB, {gathers:g} "
        "all-gathers"
    )
    return text, fits and once and not gathers


def _step(topology: str, case: str, size: int) -> Row:
    return Row(topology, "step", case, size, "bfloat16")


def _corruption(name: str) -> Row:
    return Row(CHIP, "corruption", name, 1000, "float32")


_DNN, _MCDO, _SMOOTH = compiled_rows.CIFAR
_CHIP_STEP, _GPU_STEP = _step(CHIP, _DNN, 128), _step(GPU, _DNN, 512)
_GPU_SMOOTH_STEP = _step(GPU, _SMOOTH, 512)

TARGETS = (
    Target(
        "smoothing op, v5e, forward",
        "1.8-2.9 x ideal",
        "<= 1.05 x",
        tuple(compiled_rows.smoothing(CHIP, "smooth")),
        _at_most(1.05),
    ),
    Target(
        "smoothing op, v5e, gradient",
        "3.4-5.5 x ideal",
        "<= 1.05 x",
        tuple(compiled_rows.smoothing(CHIP, "smooth_gradient")),
        _at_most(1.05),
    ),
    Target(
        "smoothing op, H200, forward",
        "2-3 x ideal, 2 kernels",
        "<= 2.05 x, or 1 kernel <= 1.1 x",
        tuple(compiled_rows.smoothing(GPU, "smooth")),
        _one_kernel_or_two,
    ),
    Target(
        "smoothing's share of a step, v5e:4x4, bf16, 128 a chip",
        "+24.5 %",
        "<= +14 %",
        (_step(SLICE, _SMOOTH, 128), _step(SLICE, _MCDO, 128)),
        _share,
    ),
    Target(
        "resnet_dnn_18 step, one v5e, bf16, 128",
        "4.02 GB (peer 3.44)",
        "<= 3.1 GB",
        (_CHIP_STEP, _CHIP_STEP.peer),
        _gigabytes(3.1),
    ),
    Target(
        "the same on 16 chips, 128 a chip",
        "4.34 GB, +0.32",
        "no more but for gradients",
        (_step(SLICE, _DNN, 128), _CHIP_STEP),
        _no_more_than_gradients,
    ),
    Target(
        "resnet_mcdo_smoothing_18 step, v5e:4x4, bf16, 128 a chip",
        "5.41 GB",
        "<= 3.8 GB",
        (_step(SLICE, _SMOOTH, 128),),
        _gigabytes(3.8),
    ),
    Target(
        "resnet_dnn_18 step, H200, bf16, 512",
        "12.5 GB, 514 kernels (in the loop: 12.7, 447)",
        "<= 10.9 GB, <= 300",
        (_GPU_STEP, _GPU_STEP.peer),
        _bytes_and_kernels(10.9, 300),
    ),
    Target(
        "resnet_mcdo_smoothing_18 step, H200, bf16, 512",
        "15.2 GB, 532 kernels (in the loop: 15.3, 472)",
        "<= 12.8 GB, <= 320",
        (_GPU_SMOOTH_STEP, _GPU_SMOOTH_STEP.peer),
        _bytes_and_kernels(12.8, 320),
    ),
    Target(
        "MC-dropout pass, H200, bf16: body of the loop",
        "67-93 fusions",
        "<= 40 fusions",
        tuple(compiled_rows.mc_dropout(GPU, "bfloat16")),
        _loop_body,
    ),
    *(
        Target(
            f"{name}, v5e, 1,000 images",
            f"{before:,} x ideal",
            "<= 100 x",
            (_corruption(name),),
            _at_most(100),
        )
        for name, before in (
            ("shot_noise", 175_656),
            ("elastic_transform", 89_016),
            ("glass_blur", 12_389),
        )
    ),
    Target(
        "resnet_dnn_50 step, ImageNet, v5e:16x16, bf16, 32 a chip",
        "never compiled",
        "fits; gradients reduced once; no all-gather",
        (_step(POD, "resnet_dnn_50", 32),),
        _fits_and_reduces_once,
    ),
)
"""The targets, in the order in which their rows are compiled."""


def in_order() -> list[Row]:
    """Returns all rows, those that have a target first."""
    with_target = [row for target in TARGETS for row in target.rows]
    return list(dict.fromkeys([*with_target, *compiled_rows.every_row()]))
