"""Data sets in the format of TFDS: building them and reading them."""
