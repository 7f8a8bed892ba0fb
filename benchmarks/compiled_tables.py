"""Texts of `benchmarks.compiled`: tables for a terminal and for docs/performance.md.

Contract of this file: everything is made of the records in the JSON file. A line for a
terminal has at most 80 columns.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence

from benchmarks.compiled_rows import OURS, Row
from benchmarks.compiled_targets import BEFORE, TARGETS, Figures, Verdict

_WORDS = {True: "met", False: "missed", None: "not measured"}
_MARKS = ("<!-- compiled: begin -->", "<!-- compiled: end -->")


def in_groups(order: Iterable[Row]) -> list[Row]:
    """Returns rows of ours, those of one program and type together.

    Args:
      order: Rows in the order in which they are compiled, those of the peer too.
    """
    groups: dict[str, dict[Row, None]] = {}
    for row in order:
        ours = dataclasses.replace(row, rival=OURS)
        groups.setdefault(row.group, {})[ours] = None
    return [row for group in groups.values() for row in group]


def rows(order: Iterable[Row], figures: Mapping[str, Figures]) -> str:
    """Returns the figures of rows as text; rows without figures are left out.

    Args:
      order: Rows, in any order.
      figures: Key of a row -> its figures.
    """
    lines = [
        f"{'':30}{'moved':>9}{'ideal':>6}{'peer':>6}{'kernels':>8}{'temp':>8}"
        f"{'FLOP':>8}{'s':>5}"
    ]
    group = None
    for row in in_groups(order):
        for each in (row, row.peer):
            if each.key not in figures:
                continue
            if each.group != group:
                group = each.group
                lines.append(group)
            lines.append(_line(each, figures))
    return "\n".join(lines)


def _line(row: Row, figures: Mapping[str, Figures]) -> str:
    found = figures[row.key]
    is_ours = row.rival == OURS
    peer = figures.get(row.peer.key) if is_ours else None
    label = f"{row.case} {row.size}" if is_ours else "  the peer"
    cells = (
        f"  {label:28}",
        f"{_scaled(found['bytes'], 'B'):>9}",
        f"{_ratio(found['bytes'], found['ideal_bytes']):>6}",
        f"{_ratio(found['bytes'], peer and peer['bytes']):>6}",
        f"{found['fusions'] + found['copies']:8}",
        f"{_scaled(found['temporaries'], 'B'):>8}",
        f"{_scaled(found['flops'], ''):>8}",
        f"{found['compile_seconds']:5.0f}",
    )
    return "".join(cells)


def _ratio(value: float, other: float | None) -> str:
    if not other:
        return ""
    ratio = value / other
    return f"{ratio:.2f}" if ratio < 100 else f"{ratio:.0f}"


def _scaled(value: float, unit: str) -> str:
    """Returns a number with three digits and a prefix, such as "4.02 GB"."""
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}".strip()


def verdicts(found: Sequence[Verdict]) -> str:
    """Returns the targets as text, each with its verdict.

    Args:
      found: The verdicts, in the order of the targets.
    """
    lines = [f"Targets; before is commit {BEFORE}"]
    for each in found:
        target = each.target
        lines.append(f"{_WORDS[each.met]:13}{target.what}")
        lines += [f"{'':13}before: {target.before}", f"{'':13}wanted: {target.goal}"]
        if each.met is None:
            lines.append(f"{'':13}rows that are missing: {len(each.missing)}")
        else:
            lines.append(f"{'':13}now:    {each.now}")
    return "\n".join(lines)


def markdown(
    order: Iterable[Row], figures: Mapping[str, Figures], found: Sequence[Verdict]
) -> str:
    """Returns the tables of docs/performance.md.

    Args:
      order: All rows, in the order in which they are shown.
      figures: Key of a row -> its figures.
      found: The verdicts, in the order of the targets.
    """
    lines = [
        f"| | at {BEFORE} | target | now | |",
        "|---|---|---|---|---|",
    ]
    for each in found:
        target = each.target
        cells = (target.what, target.before, target.goal, each.now or "-")
        lines.append(f"| {' | '.join(cells)} | {_WORDS[each.met]} |")
    lines += [
        "",
        "| program | images a device | moved | of the ideal | of the peer's | "
        "kernels | temporaries | FLOP |",
        "|---|---|---|---|---|---|---|---|",
    ]
    # The JSON file has float32 too.
    for row in in_groups(order):
        if row.key in figures and row.dtype == "bfloat16":
            lines.append(_markdown_line(row, figures))
    return "\n".join([*lines, "", *absent(order, figures)])


def absent(order: Iterable[Row], figures: Mapping[str, Figures]) -> list[str]:
    """Returns which rows have no figures, as lines of Markdown.

    Args:
      order: All rows, those of the peer too, in the order in which they are shown.
      figures: Key of a row -> its figures.
    """
    groups: dict[str, list[str]] = {}
    for row in order:
        if row.key not in figures:
            peer = "" if row.rival == OURS else " (peer)"
            groups.setdefault(row.group, []).append(f"{row.case} {row.size}{peer}")
    count = sum(map(len, groups.values()))
    if not count:
        return ["All rows are compiled."]
    return [
        f"{count} of {len(set(order))} rows are not compiled yet, because the compiler "
        "of TPUs takes minutes for each; the command above compiles them:",
        "",
        *(f"- {group}: {', '.join(cases)}" for group, cases in groups.items()),
    ]


def _markdown_line(row: Row, figures: Mapping[str, Figures]) -> str:
    here = figures[row.key]
    peer = figures.get(row.peer.key)
    cells = (
        f"{row.topology} {row.program} {row.case} {row.dtype}",
        str(row.size),
        _scaled(here["bytes"], "B"),
        _ratio(here["bytes"], here["ideal_bytes"]),
        _ratio(here["bytes"], peer and peer["bytes"]),
        str(here["fusions"] + here["copies"]),
        _scaled(here["temporaries"], "B"),
        _scaled(here["flops"], ""),
    )
    return f"| {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |")


def filled(page: str, tables: str) -> str:
    """Returns a page whose part between two comments is replaced.

    Args:
      page: Text with the comments `<!-- compiled: begin -->` and
        `<!-- compiled: end -->`.
      tables: What `markdown` returns.

    Raises:
      ValueError: if the page does not have the comments.
    """
    begin, end = map(re.escape, _MARKS)
    pattern = re.compile(f"(?<={begin}\n).*?(?={end})", re.DOTALL)
    if not pattern.search(page):
        raise ValueError(f"the page has no lines {_MARKS[0]} and {_MARKS[1]}; add them")
    return pattern.sub(lambda _: f"{tables}\n", page)


def all_verdicts(figures: Mapping[str, Figures]) -> list[Verdict]:
    """Returns the verdicts of all targets.

    Args:
      figures: Key of a row -> its figures.
    """
    return [target.verdict(figures) for target in TARGETS]
