"""Parts of a split, in the brackets of TFDS: `train[:10%]`, `test[500:1000]`.

Contract of this file: bounds are numbers of examples or percentages, from the end where
they are negative. A percentage is rounded to the nearest whole number of examples, as
in TFDS.
"""

import re
from typing import NamedTuple

import numpy as np

_BRACKETS = re.compile(r"(.*)(\[([^:\[\]]*):([^:\[\]]*)\])", re.DOTALL)
_BOUND = re.compile(r"(-?\d+)(%?)")


class Bound(NamedTuple):
    """The first example of a subset, or the one behind its last.

    Attributes:
      value: A number of examples, or a percentage; from the end if it is negative.
      is_percent: Whether the value is a percentage.
    """

    value: int
    is_percent: bool


class Subset(NamedTuple):
    """Examples that follow each other in a split.

    Attributes:
      text: The subset as it was written, such as "[:10%]".
      start: The first example; None for the first of the split.
      stop: The example behind the last one; None for the end of the split.
    """

    text: str
    start: Bound | None
    stop: Bound | None

    def rows(self, num_examples: int) -> np.ndarray:
        """Returns the positions of the examples in their split, i64[n].

        Args:
          num_examples: Number of examples of the split.

        Raises:
          ValueError: A bound is outside of the split, or no example is left.
        """
        start = self._position(self.start, num_examples, missing=0)
        stop = self._position(self.stop, num_examples, missing=num_examples)
        if start >= stop:
            raise ValueError(
                f"the subset {self.text} of {num_examples} examples is empty; give a "
                "larger one, such as [:10%]"
            )
        return np.arange(start, stop)

    def _position(self, bound: Bound | None, num_examples: int, *, missing: int) -> int:
        if bound is None:
            return missing
        value = bound.value
        if bound.is_percent:
            value = round(value * num_examples / 100)
        if abs(value) > num_examples:
            raise ValueError(
                f"the subset {self.text} is outside of the {num_examples} examples "
                "that there are"
            )
        return value + num_examples if bound.value < 0 else value


def split_name(text: str) -> tuple[str, Subset | None]:
    """Takes a name and the subset behind it apart.

    Args:
      text: Name of a split or of a data set, with a subset or without, such as
        "test[:500]" or "cifar10[10%:20%]".

    Returns:
      The name, and the subset; None where there is none.

    Raises:
      ValueError: The brackets hold something else than two bounds.
    """
    match = _BRACKETS.fullmatch(text)
    if match is None:
        return text, None
    name, brackets, *bounds = match.groups()
    return name, Subset(brackets, *(_bound(each, text) for each in bounds))


def _bound(text: str, whole: str) -> Bound | None:
    if not text.strip():
        return None
    match = _BOUND.fullmatch(text.strip())
    if match is None or (match[2] and abs(int(match[1])) > 100):
        raise ValueError(
            f"{whole!r} has no usable subset: {text.strip()!r} is no number of "
            "examples and no percentage; write [:500], [10%:20%] or [-100:]"
        )
    return Bound(int(match[1]), bool(match[2]))
