"""PyTorch weights to Flax variables and back.

Contract of this package: a state dictionary maps names such as `layer1.0.conv1.weight`
to arrays in PyTorch's layouts (OIHW, `[out, in]`); variables are `{"params",
"batch_stats"}` as `model.init` returns them. `names` knows what PyTorch calls them,
`files` reads state dictionaries, `weights` converts them, and
`python -m spatial_smoothing.convert` makes a workdir of a file.
"""

from spatial_smoothing.convert.files import load_state_dict
from spatial_smoothing.convert.names import pytorch_key
from spatial_smoothing.convert.weights import from_pytorch, to_pytorch

__all__ = ["from_pytorch", "load_state_dict", "pytorch_key", "to_pytorch"]
