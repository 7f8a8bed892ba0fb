"""The HTML tables of the page: rows -> fragments, grouped by series."""

from collections.abc import Callable, Mapping, Sequence
from html import escape

from spatial_smoothing.report.rows import (
    Row,
    best,
    column,
    metrics,
    number,
    series,
    shared,
    text,
)

_ARROWS = {"lower": "↓", "higher": "↑"}
_NOTES = {
    "accuracy_90": "Acc-90: accuracy of the predictions with confidence above 90 %.",
    "iou_90": "IoU-90: IoU of the predictions with confidence above 90 %.",
    "unconfidence_90": "Unc-90: share of the wrong predictions with confidence of at "
    "most 90 %.",
    "frequency_90": "Freq-90: share of the predictions with confidence above 90 %.",
    "signed_ece": "Signed ECE: positive where confidence exceeds accuracy.",
}
_DEFINITIONS = (
    "The reference definition, kept for comparison with published numbers, counts the "
    "images of a confidence bin over (lo, hi] but sums their confidences over "
    "[lo, hi), and averages the NLL over batches without weights; the fixed "
    "definition, used in the rest of this report, counts and sums over (lo, hi] and "
    "averages the NLL over images."
)


def results(rows: Sequence[Row]) -> str:
    """Every metric of every row, with notes on the names that need one."""
    keys = metrics(rows)
    if shared(rows, "num_examples") is None and any("num_examples" in r for r in rows):
        keys = ["num_examples", *keys]
    heads = []
    for key in keys:
        heading, unit, _, _, better = column(key)
        below = unit or "&nbsp;"
        if better:
            says = f'role="img" aria-label="{better} is better"'
            below += f" <span {says}>{_ARROWS[better]}</span>"
        heads.append(f'<th scope="col">{escape(heading)}<small>{below}</small></th>')
    top = {key: best(rows, key) for key in keys}
    table = _table(
        "Table 1. All rows. N is the number of samples; an arrow points to the better "
        "side, and the best of a column is bold.",
        [_name_heads() + "".join(heads)],
        series(rows),
        lambda row: "".join(_cell(text(row, key), top[key]) for key in keys),
    )
    notes = " ".join(_NOTES[key] for key in keys if key in _NOTES)
    return table + (f'<p class="notes">{escape(notes)}</p>\n' if notes else "")


def definitions(rows: Sequence[Row]) -> str:
    """The entries that differ between the definitions, at the precision of `results`.

    Empty where no row has "reference".
    """
    if not any(row.get("reference") for row in rows):
        return ""
    words = f"<p>{escape(_DEFINITIONS)}</p>\n"
    keys = [key for key in metrics(rows) if any(_differs(row, key) for row in rows)]
    if not keys:
        return f"{words}<p>They agree on every entry, at the precision of Table 1.</p>"
    groups = {
        name: [row for row in group if any(_differs(row, key) for key in keys)]
        for name, group in series(rows).items()
    }
    over = _name_heads(rowspan=2)
    for key in keys:
        unit = f" <small>{column(key).unit}</small>" if column(key).unit else ""
        name = f"{escape(column(key).heading)}{unit}"
        over += f'<th scope="colgroup" colspan="2" class="over">{name}</th>'
    under = '<th scope="col">fixed</th><th scope="col">reference</th>' * len(keys)

    def cells(row: Row) -> str:
        pairs = [
            (text(row, key), text(row["reference"], key))
            if _differs(row, key)
            else ("", "")
            for key in keys
        ]
        return "".join(_cell(value) for pair in pairs for value in pair)

    caption = "Table 2. The entries on which the two definitions differ."
    return words + _table(caption, [over, under], groups, cells)


def _differs(row: Row, key: str) -> bool:
    reference = row.get("reference") or {}
    comparable = None not in (number(row, key), number(reference, key))
    return comparable and text(row, key) != text(reference, key)


def _name_heads(*, rowspan: int = 1) -> str:
    span = f' rowspan="{rowspan}"' if rowspan > 1 else ""
    return f'<th scope="col" class="name"{span}>Model</th><th scope="col"{span}>N</th>'


def _table(
    caption: str,
    head: Sequence[str],
    groups: Mapping[str, Sequence[Row]],
    cells: Callable[[Row], str],
) -> str:
    """A table with a group of lines per series, in a box that scrolls sideways."""
    lines = "".join(f"<tr>{line}</tr>\n" for line in head)
    bodies = []
    for name, group in groups.items():
        if not group:
            continue
        model = shared(group, "model")
        code = f"<code>{escape(str(model))}</code>" if model else ""
        first = (
            f'<th scope="rowgroup" class="name" rowspan="{len(group)}">'
            f"{escape(name)}{code}</th>"
        )
        body = ""
        for row in group:
            size = f'<th scope="row">{row["num_samples"]}</th>'
            body += f"<tr>{first}{size}{cells(row)}</tr>\n"
            first = ""
        bodies.append(f"<tbody>\n{body}</tbody>\n")
    label = caption.split(". ")[0]
    key = label.lower().replace(" ", "-")
    return (
        f'<p class="caption" id="{key}">{escape(caption)}</p>\n'
        f'<div class="scroll" role="region" aria-label="{label}" tabindex="0">\n'
        f'<table aria-labelledby="{key}">\n<thead>\n{lines}</thead>\n'
        f"{''.join(bodies)}</table>\n</div>\n"
    )


def _cell(value: str, best_value: str | None = None) -> str:
    shown = "–" if value == "-" else escape(value).replace("-", "−")
    if value == best_value:
        shown = f"<strong>{shown}</strong>"
    return f"<td>{shown}</td>"
