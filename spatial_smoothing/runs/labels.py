"""What a method is called in logs and reports."""

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
    method = "MC dropout" if model.rate else "Deterministic"
    if num_members > 1:
        method = "Deep ensemble" + (" of MC dropout" if model.rate else "")
    if model.rate and model.mc_stages is not None:
        stages = [f"stage {part}" for part in model.mc_stages if part != HEAD]
        head = [HEAD] if HEAD in model.mc_stages else []
        method += f" in {', '.join([*stages, *head])}"
    return method + (SMOOTHED if any(model.smoothing) else "")
