"""Settings of the documentation site, which `make docs` builds with Sphinx.

Pages are Markdown (MyST). Pages whose header names a kernel are notebooks, which the
build executes. `site_parts.py` has what Sphinx does not do by itself.
"""

import os
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # site_parts

import site_parts  # noqa: E402

# Cells compute on the CPU, whatever the machine has, so that every build is the same.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

project = "spatial_smoothing"
author = "the authors of spatial_smoothing"
release = version = site_parts.version(HERE.parent / "setup.cfg")
html_title = f"spatial_smoothing {release}"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
highlight_language = "none"  # of blocks without a language, such as output

# Markdown.
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = os.environ.get("DOCS_EXECUTE", "cache")  # "off" for a quick look
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_execution_excludepatterns = []
nb_merge_streams = True

# The reference.
add_module_names = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True}
autosummary_generate = False
napoleon_google_docstring = True
napoleon_use_ivar = True
napoleon_use_rtype = False
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True

# The look.
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_show_sourcelink = False
html_copy_source = False
html_math_renderer = "mathml"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def setup(app):
    """Registers what `site_parts` adds."""
    site_parts.setup(app)
