"""Pictures of segmented frames: what is predicted, how surely, where it is wrong.

The rows that are drawn have "arrays": `palette` u8[K, 3]; of P frames `images`
u8[P, H, W, 3], `labels` u8[P, H, W] (255 for a pixel without a class), `classes`
u8[P, H, W] and `entropy` f16[P, H, W]; and of T frames of a video `strip_images`
u8[T, H, W, 3] and `strip_classes` u8[T, H, W]. The images are the same in all rows.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from spatial_smoothing.report.chapters.robustness import sized
from spatial_smoothing.report.figures import canvas
from spatial_smoothing.report.figures.pictures import Picture, picture
from spatial_smoothing.report.rows import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FILES = ("segmentation_frames.png", "segmentation_strip.png")
_VOID, _VOID_COLOUR = 255, (150, 150, 150)
_RIGHT, _WRONG = (236, 236, 236), (190, 30, 45)
_HEIGHT = 0.95  # inches of an image
_SMALL = 8  # points, of the texts beside images


def pictures(rows: Sequence[Row], *, heading: str) -> Mapping[str, Picture]:
    """File name -> picture; none where no row has arrays.

    Args:
      rows: Rows of the chapter. Of several runs of a label, the first is drawn.
      heading: Heading of the section.
    """
    drawn: dict[str, Row] = {}
    for row in rows:
        if row.get("arrays") and _are_same(row, next(iter(drawn.values()), row)):
            drawn.setdefault(row["label"], row)
    if not drawn:
        return {}
    chosen = list(drawn.values())
    found = {
        FILES[0]: picture(
            functools.partial(frames_figure, chosen),
            heading=heading,
            alt="Frames, their true classes, and predictions, entropies and errors of "
            f"{len(chosen)} methods.",
            caption="Frames of the test set, chosen by their position: truth, most "
            "probable classes, entropy of the prediction (white is the largest), and "
            "errors in red. Dark grey pixels have no class.",
            stacks=False,
        )
    }
    if len(chosen[0]["arrays"]["strip_images"]) > 1:
        found[FILES[1]] = picture(
            functools.partial(strip_figure, chosen),
            heading=heading,
            alt="Consecutive frames and their predictions by "
            f"{len(chosen)} methods, with one prediction a frame.",
            caption="Consecutive frames with one prediction each. Below each line of "
            "predictions: the pixels whose class is another than in the frame before. "
            "Some follow what moves; the rest is flicker.",
            stacks=False,
        )
    return found


def _are_same(row: Row, other: Row) -> bool:
    """Whether two rows show the same images."""
    images = [each["arrays"]["images"] for each in (row, other)]
    return images[0].shape == images[1].shape and (images[0] == images[1]).all()


def coloured(classes: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Classes in their colours.

    Args:
      classes: u8[H, W]; 255 for a pixel without a class.
      palette: u8[K, 3].

    Returns:
      u8[H, W, 3].
    """
    table = np.full((256, 3), _VOID_COLOUR, np.uint8)
    table[: len(palette)] = palette
    return table[classes]


def errors(classes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Red where a prediction is wrong, light where it is right, grey without a class.

    Args:
      classes: u8[H, W].
      labels: u8[H, W]; 255 for a pixel without a class.

    Returns:
      u8[H, W, 3].
    """
    is_wrong = (classes != labels)[..., None]
    found = np.where(is_wrong, np.uint8(_WRONG), np.uint8(_RIGHT))
    return np.where((labels == _VOID)[..., None], np.uint8(_VOID_COLOUR), found)


def frames_figure(rows: Sequence[Row]) -> "Figure":
    """Frames with what each method predicts of them, three lines for each frame.

    Args:
      rows: Rows with "arrays" of the same images, a column for each.
    """
    first = rows[0]["arrays"]
    count, (height, width) = len(first["images"]), first["labels"].shape[1:]
    most = max(float(row["arrays"]["entropy"].max()) for row in rows)
    with canvas.style():
        figure, panels = _grid(3 * count, 1 + len(rows), width / height)
        for index in range(count):
            lines = panels[3 * index : 3 * index + 3]
            label = first["labels"][index]
            _show(lines[0, 0], first["images"][index])
            _show(lines[1, 0], coloured(label, first["palette"]))
            _beside(lines[0, 0], "frame")
            _beside(lines[1, 0], "truth")
            for column, row in enumerate(rows, 1):
                arrays = row["arrays"]
                classes = arrays["classes"][index]
                _show(lines[0, column], coloured(classes, arrays["palette"]))
                entropy = np.float32(arrays["entropy"][index])
                _show(lines[1, column], entropy, cmap="magma", vmin=0, vmax=most)
                _show(lines[2, column], errors(classes, label))
                if index == 0:
                    lines[0, column].set_title(
                        _wrapped(sized(row["label"], [row])),
                        loc="center",
                        fontsize=_SMALL,
                    )
            for axes, words in zip(
                lines[:, 1], ("prediction", "entropy", "errors"), strict=True
            ):
                _beside(axes, words)
        _legend(figure, rows[0])
    return figure


def strip_figure(rows: Sequence[Row]) -> "Figure":
    """Consecutive frames, and two lines for each method: classes, and what changes.

    Args:
      rows: Rows with "arrays" of the same video.
    """
    first = rows[0]["arrays"]
    frames = first["strip_images"]
    height, width = frames.shape[1:3]
    with canvas.style():
        figure, panels = _grid(1 + 2 * len(rows), len(frames), width / height)
        for axes, image in zip(panels[0], frames, strict=True):
            _show(axes, image)
        _beside(panels[0, 0], "frames")
        for number, row in enumerate(rows):
            classes, palette = row["arrays"]["strip_classes"], row["arrays"]["palette"]
            above, below = panels[1 + 2 * number], panels[2 + 2 * number]
            for time, (axes, change) in enumerate(zip(above, below, strict=True)):
                _show(axes, coloured(classes[time], palette))
                if time:
                    changed = classes[time] != classes[time - 1]
                    # A light ground shows where the frame ends.
                    _show(change, changed, cmap="gray_r", vmin=-0.1, vmax=1)
            _beside(above[0], _wrapped(row["label"]))
            _beside(below[1], "changes")
        _legend(figure, rows[0])
    return figure


def _grid(lines: int, columns: int, aspect: float) -> tuple["Figure", np.ndarray]:
    """A figure of images without axes; returns its panels [lines, columns]."""
    from matplotlib.figure import Figure

    size = ((_HEIGHT * aspect + 0.06) * columns + 1, (_HEIGHT + 0.06) * lines + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    panels = figure.subplots(lines, columns, squeeze=False)
    for axes in panels.flat:
        axes.set_axis_off()
    return figure, panels


def _show(axes: "Axes", image: np.ndarray, **look: Any) -> None:
    axes.imshow(image, interpolation="nearest", **look)


def _beside(axes: "Axes", words: str) -> None:
    """Writes a text to the left of an image, from bottom to top."""
    place = {"rotation": 90, "ha": "right", "va": "center", "fontsize": _SMALL}
    axes.text(-0.03, 0.5, words, transform=axes.transAxes, **place)


def _wrapped(words: str) -> str:
    """A label in lines of a few words, broken before each plus."""
    return words.replace(" + ", "\n+ ").replace(" (", "\n(")


def _legend(figure: "Figure", row: Row) -> None:
    """The colours of the classes, below all images."""
    from matplotlib.patches import Patch

    palette = np.asarray(row["arrays"]["palette"]) / 255
    names = row.get("class_names") or [str(number) for number in range(len(palette))]
    handles = [Patch(color=tuple(colour)) for colour in palette]
    canvas.legend(figure, handles, list(names))
