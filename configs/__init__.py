"""Configs: one file for each data set, all of which start from `common.py`.

Each file has a function `get_config()`, which returns an `ml_collections.ConfigDict`.
`--config=NAME` finds them by name, without the folder and without `.py`.
"""
