"""The networks of the paper: 92 names, each a row of one table."""

from spatial_smoothing.models.zoo import Spec, build, names, spec

__all__ = ["Spec", "build", "names", "spec"]
