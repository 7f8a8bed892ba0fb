"""The commands: train, evaluate, predict, corrupt, convert."""
