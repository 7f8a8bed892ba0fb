"""What a run leaves behind: its workdir, recipe, locks and provenance."""
