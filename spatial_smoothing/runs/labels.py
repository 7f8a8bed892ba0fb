"""What a method is called in logs and reports."""

from spatial_smoothing.models import rivals
from spatial_smoothing.models.network import HEAD, Network

# What the name of a network with smoothing has more than that of one without.
SMOOTHED = " + smoothing"


def label(model: Network, *, num_members: int = 1) -> str:
    """Returns the name of a method, such as "MC dropout + smoothing".

    Args:
      model: The network as it was built: a config may have given a row of the table
        dropout or smoothing, or taken them away.
      num_members: The number of networks in a deep ensemble; 1 for a single network.
    """
    method = "MC dropout" if model.has_dropout else "Deterministic"
    if model.ensemble is not None:
        method = rivals.LABELS[model.ensemble]
        method += " of MC dropout" if model.has_dropout else ""
    if num_members > 1:
        alone = model.has_dropout or model.ensemble is not None
        method = "Deep ensemble" + (f" of {method}" if alone else "")
    if model.has_dropout:
        method += _where_dropout_is(model)
    return method + (SMOOTHED if any(model.smoothing) else "")


def _where_dropout_is(model: Network) -> str:
    """Returns what dropout has other than the paper's: " of channels in stage 4"."""
    text = " of channels" if model.mask == "channel" else ""
    if model.dropout_placement == "all":
        text += " everywhere"
    if model.dropout_placement == "last":
        text += f" in {HEAD}"
    if model.mc_stages is not None:
        stages = [f"stage {part}" for part in model.mc_stages if part != HEAD]
        head = [HEAD] if HEAD in model.mc_stages else []
        text += f" in {', '.join([*stages, *head])}"
    return text
