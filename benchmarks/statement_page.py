"""The part of a page that puts what was found beside the paper's statements."""

import pathlib
import statistics
from collections.abc import Mapping, Sequence

from benchmarks import markdown
from benchmarks.statements import (
    DETERMINISTIC,
    MC,
    OPEN,
    Comparison,
    Finding,
    Scores,
)
from spatial_smoothing.report.columns import column
from spatial_smoothing.report.rows import listed

# Between these lines a program writes; the rest of the page is written by hand.
BEGIN, END = "<!-- findings -->", "<!-- end of findings -->"
_SIZES = (1, 2, 5, 10, 50)
_SCORES = ("nll", "accuracy", "ece")


def write(path: pathlib.Path, text: str) -> None:
    """Writes what was found into a page, and leaves what is written by hand.

    Args:
      path: Path of the page; where there is none, it is made.
      text: What stands between the lines `BEGIN` and `END`. A page without them gets
        them at its end.
    """
    page = path.read_text() if path.exists() else ""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        before, after = f"{page.rstrip()}\n\n".lstrip(), "\n"
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def text(findings: Sequence[Finding], scores: Scores) -> str:
    """Returns what was found, in tables.

    Args:
      findings: What the rows say about each statement.
      scores: The rows.
    """
    sections = [
        markdown.table(
            ["", "statement of the paper", "here"],
            [_verdict(each) for each in findings],
        ),
        "### Scores",
        _scores(scores),
        "### What decides each statement",
        "With smoothing minus without, or behind a smoothing layer minus before it. An "
        "interval is the 95 % one of a paired bootstrap over the test images; where "
        "there is none, the lowest and the highest seed are given.",
        _comparisons([(f.number, each) for f in findings for each in f.comparisons]),
    ]
    others = [(f.number, each) for f in findings for each in f.others]
    if others:
        sections += [
            "### The same of the pair without dropout",
            "This was not part of the rules, and decides nothing.",
            _comparisons(others),
        ]
    return "\n\n".join(sections)


def _verdict(finding: Finding) -> list[str]:
    """Returns the cells of a statement."""
    told = f"**{finding.verdict}**"
    verdicts = [each.verdict for each in finding.comparisons]
    if not verdicts:
        told = "not evaluated yet"
    elif finding.verdict == OPEN:
        counts = [
            f"{verdicts.count(each)} of {len(verdicts)} {name}"
            for each, name in (("agrees", "agree"), ("does not agree", "do not"))
            if each in verdicts
        ]
        told += f" ({listed(counts)})" if counts else ""
    return [str(finding.number), finding.statement, told]


def _scores(scores: Scores) -> str:
    """Returns the table of the means over seeds, with ranges."""
    heads = ["", "seeds", "N", *(_heading(key) for key in _SCORES)]
    lines = []
    for model in (*MC, *DETERMINISTIC):
        for size in _SIZES:
            values = {
                key: scores.value(model, "ensemble", key, num_samples=size)
                for key in _SCORES
            }
            seeds = sorted(values["nll"])
            if seeds:
                cells = (_spread(key, each) for key, each in values.items())
                label = scores.label(model)
                lines.append([label, ", ".join(map(str, seeds)), str(size), *cells])
    return markdown.table(heads, lines)


def _heading(key: str) -> str:
    about = column(key)
    return f"{about.heading} ({about.unit})"


def _spread(key: str, values: Mapping[int, float]) -> str:
    """Returns "1.754 (1.728 to 1.804)": the mean over seeds, and the range."""
    numbers = list(values.values())
    mean = _number(key, statistics.fmean(numbers))
    if len(numbers) == 1:
        return mean
    return f"{mean} ({_number(key, min(numbers))} to {_number(key, max(numbers))})"


def _number(key: str, value: float, *, sign: str = "") -> str:
    about = column(key)
    return f"{about.scale * value:{sign}.{about.digits}f}"


def _comparisons(found: Sequence[tuple[int, Comparison]]) -> str:
    """Returns a table of comparisons, given with the numbers of their statements."""
    sides = ("without, before", "with, behind")
    heads = ["", "what", "seeds", *sides, "difference", "verdict"]
    lines = [[str(number), *_comparison(each)] for number, each in found]
    return markdown.table(heads, lines)


def _comparison(each: Comparison) -> list[str]:
    unit = column(each.key).unit
    found = each.differences
    ends = each.interval or (min(found), max(found))
    low, high = (_number(each.key, end, sign="+z") for end in ends)
    mean = _number(each.key, statistics.fmean(found), sign="+z")
    kind = "seeds " if each.interval is None else ""
    return [
        f"{each.name} ({unit})" if unit else each.name,
        ", ".join(map(str, each.before)),
        *(_spread(each.key, values) for values in (each.before, each.after)),
        f"{mean} ({kind}{low} to {high})",
        each.verdict,
    ]
