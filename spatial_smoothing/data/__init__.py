"""Data sets: sources, augmentation, batches."""
