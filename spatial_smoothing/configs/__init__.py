"""The configs of this project, importable in a checkout as in an installed package.

In a checkout this package is the folder `configs/` at the root. A wheel has the files
of that folder here, in place of this file: see `package_dir` in setup.cfg.
"""

import pathlib

__path__.append(str(pathlib.Path(__file__).parents[2] / "configs"))
