"""The networks: 92 names of the paper, each a row of one table, and more groups."""

from spatial_smoothing.models.zoo import Spec, build, names, spec

__all__ = ["Spec", "build", "names", "spec"]
