"""How one score of a report is headed, written and explained."""

from typing import NamedTuple


class Column(NamedTuple):
    """How a key is headed and written: the number is multiplied by `scale`."""

    heading: str
    unit: str = ""
    scale: float = 1
    digits: int = 3
    better: str = ""  # "lower", "higher", or neither
    group: str = "results"  # the table of the page that shows it
    note: str = ""  # what the score is, where the heading does not say it


def percent(heading: str, better: str = "", *, digits: int = 2, **about: str) -> Column:
    """A rate, a fraction, that is written in per cent.

    Args:
      heading: What heads the column.
      better: "lower" or "higher" where that side is better, else "".
      digits: Number of digits after the point.
      **about: `group` and `note` of the column.
    """
    return Column(heading, "%", 100, digits, better, **about)


def nats(heading: str, better: str = "", *, digits: int = 3, **about: str) -> Column:
    """An entropy or a likelihood, in nats.

    Args:
      heading: What heads the column.
      better: "lower" or "higher" where that side is better, else "".
      digits: Number of digits after the point.
      **about: `group` and `note` of the column.
    """
    return Column(heading, "nats", 1, digits, better, **about)
