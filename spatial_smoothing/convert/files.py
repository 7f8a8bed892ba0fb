"""State dictionaries from files: `.pth`, `.safetensors`, `.npz`.

Contract of this file: a file is data and never code. PyTorch's are read with
`weights_only=True`, NumPy's without pickles; a file that holds anything else is
refused.
"""

import pathlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from spatial_smoothing.runtime import paths

StateDict = dict[str, np.ndarray]


def load_state_dict(path: str | pathlib.Path) -> tuple[str | None, StateDict]:
    """Reads a state dictionary.

    Args:
      path: A file `.pth`, `.pth.tar`, `.pt`, `.ckpt` or `.bin` (a state dictionary, or
        a checkpoint `{"name", "state_dict", ...}` or `{"model", ...}`, as Lightning and
        others write; needs torch), `.safetensors` (needs safetensors) or `.npz`.

    Returns:
      The name of the model, None where the file has none, and PyTorch name -> array.

    Raises:
      ValueError: The suffix is unknown, a library is missing, or the file is damaged or
        holds something else.
      OSError: The file cannot be opened.
    """
    path = pathlib.Path(path)
    suffix = next((s for s in _READERS if path.name.endswith(s)), None)
    if suffix is None:
        raise ValueError(
            f"cannot tell the format of {path}; suffixes: {', '.join(_READERS)}"
        )
    path.open("rb").close()  # before the readers, whose errors do not name the file
    return _READERS[suffix](path)


def _read_pytorch(path: pathlib.Path) -> tuple[str | None, StateDict]:
    try:
        import torch
    except ModuleNotFoundError:
        raise _needs(path, "torch") from None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes its reader raise
        if found := re.search(r"GLOBAL (\w\S+)", str(error)):
            raise ValueError(
                f"{path} is refused: it asks for {found[1]}, and reading that may run "
                "code; save the state_dict alone, where you trust the file"
            ) from None
        raise _unreadable(path, error) from None
    name, state = None, content
    checkpoint = content if isinstance(content, dict) else {}
    model = checkpoint.get("model")
    if isinstance(checkpoint.get("state_dict"), dict):
        name, state = checkpoint.get("name"), checkpoint["state_dict"]
    # Under "model" some training scripts keep other things than weights.
    elif isinstance(model, dict) and all(map(torch.is_tensor, model.values())):
        name, state = checkpoint.get("name"), model
    if not isinstance(state, dict) or not all(map(torch.is_tensor, state.values())):
        held = state if isinstance(state, dict) else [type(state).__name__]
        raise ValueError(
            f"{path} holds no state_dict, neither itself nor under 'state_dict': "
            f"{', '.join(map(str, held))}"
        )
    try:
        arrays = {str(key): as_array(key, tensor) for key, tensor in state.items()}
    except ValueError as error:
        raise ValueError(f"cannot read {path}: {error}") from None
    return name if isinstance(name, str) else None, arrays


def as_array(key: str, value: Any) -> np.ndarray:
    """Returns a value of a state dictionary as an array.

    Args:
      key: Its name, for the message.
      value: An array, or a tensor of PyTorch. Tensors of bfloat16, which NumPy has not,
        and of other types of less than 32 bits become float32.

    Raises:
      ValueError: It is no array: a tensor that is sparse, quantised or without values.
    """
    try:
        if hasattr(value, "detach"):
            tensor = value.detach().cpu()
            is_half = tensor.is_floating_point() and tensor.element_size() < 4
            value = (tensor.float() if is_half else tensor).numpy()
        return np.asarray(value)
    except Exception as error:  # each kind of tensor raises its own
        raise ValueError(f"{key} is no array ({paths.first_line(error)})") from error


def _read_safetensors(path: pathlib.Path) -> tuple[None, StateDict]:
    try:
        import safetensors.numpy
    except ModuleNotFoundError:
        raise _needs(path, "safetensors") from None
    try:
        return None, safetensors.numpy.load_file(path)
    except Exception as error:
        raise _unreadable(path, error) from None


def _read_npz(path: pathlib.Path) -> tuple[None, StateDict]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return None, dict(arrays)
    except Exception as error:
        raise _unreadable(path, error) from None


def _needs(path: pathlib.Path, library: str) -> ValueError:
    """Returns the error for a library that is not installed."""
    return ValueError(
        f"reading {path} takes {library}; pip install 'spatial-smoothing[{library}]', "
        "or save the state_dict as .npz where it was made"
    )


def _unreadable(path: pathlib.Path, error: Exception) -> ValueError:
    """Returns the error for a file that its reader cannot read."""
    return ValueError(
        f"cannot read {path}: damaged, or not what its suffix says "
        f"({type(error).__name__})"
    )


_READERS: dict[str, Callable[[pathlib.Path], tuple[str | None, StateDict]]] = {
    ".pth": _read_pytorch,
    ".pth.tar": _read_pytorch,
    ".pt": _read_pytorch,
    ".ckpt": _read_pytorch,
    ".bin": _read_pytorch,
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
}
