"""Which subsampling layers of a model see a feature map, and not the model's input.

Contract of this file: the input of a model, that is whatever comes before its first
convolution, is not smoothed; nor is it where a shortcut beside that convolution reads
it. Linen and NNX tell a `Subsampling` what they see while a model runs.
"""

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np


class Subsampling:
    """What one call of a model has shown so far of its input.

    Args:
      inputs: The arguments of the call, of any type.

    Attributes:
      has_convolved: Whether a convolution has run.
    """

    def __init__(self, inputs: Iterable[Any]):
        self._inputs = _arrays(inputs)
        self._input_shapes = {x.shape for x in self._inputs}
        self._doubtful: list[Any] = []
        self.has_convolved = False

    def module_reads(self, arguments: Any, *, other_trace: bool) -> None:
        """Is told what a module is about to be called with.

        Args:
          arguments: A pytree of arguments, arrays and others.
          other_trace: Whether a lifted transformation (`nn.remat`, `nn.scan`, ...) has
            replaced the arrays of the caller by tracers of its own.
        """
        arrays = _arrays(arguments)
        if not self.has_convolved:
            self._inputs += arrays
            self._input_shapes |= {x.shape for x in arrays}
        elif other_trace:
            # Its tracers tell nothing about where they come from. Those that have the
            # shape of an input, or lack its leading axes as under `nn.vmap`, may be it.
            self._doubtful += [x for x in arrays if self._may_be_input(x)]

    def marks(self) -> tuple[int, int]:
        """Returns how much is remembered, for `forget`."""
        return len(self._inputs), len(self._doubtful)

    def forget(self, marks: tuple[int, int]) -> None:
        """Drops arrays remembered since; tracers must not outlive their trace."""
        del self._inputs[marks[0] :]
        del self._doubtful[marks[1] :]

    def convolved(self) -> None:
        """Is told that a convolution has run."""
        self.has_convolved = True

    def is_feature_map(self, x: Any, place: str) -> bool:
        """Whether what is subsampled at a place is a feature map of the model.

        Args:
          x: The array that is about to be subsampled.
          place: The layer that subsamples it, for the message.

        Raises:
          ValueError: if a lifted transformation hides whether `x` is the input.
        """
        if not self.has_convolved:
            self._inputs.append(x)
        # By identity: a shortcut beside the first convolution reads the same array.
        if any(x is known for known in self._inputs):
            return False
        if any(x is doubtful for doubtful in self._doubtful):
            raise ValueError(
                f"cannot tell whether {place} subsamples the input of the model or a "
                "feature map, because it lies inside a lifted transformation such as "
                "nn.jit, nn.remat or nn.scan; choose modules by where="
            )
        return True

    def _may_be_input(self, x: Any) -> bool:
        return any(
            known[len(known) - x.ndim :] == x.shape for known in self._input_shapes
        )


def _arrays(tree: Any) -> list[Any]:
    leaves = jax.tree.leaves(tree)
    return [leaf for leaf in leaves if isinstance(leaf, jax.Array | np.ndarray)]
