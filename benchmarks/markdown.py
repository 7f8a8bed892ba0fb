"""Tables of Markdown pages."""

from collections.abc import Sequence


def table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Returns a table.

    Args:
      heads: What heads each column.
      lines: Cells of each line, as many as there are columns.
    """
    every = [heads, ["---"] * len(heads), *lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in every)
