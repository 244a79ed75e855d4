"""Settings of the documentation's site: `make docs` builds it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from shaped_transformer import __version__

project = "Shaped Transformer"
author = "The Shaped Transformer authors"
release = version = __version__
language = "en-GB"

extensions = ["sphinx.ext.autodoc", "myst_parser", "sphinx_copybutton", "api", "pages"]
exclude_patterns = ["_ext", "results"]

myst_heading_anchors = 3

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_inherit_docstrings = False  # a method that says nothing of its own is a detail of its class
add_module_names = False
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

highlight_language = "text"
copybutton_exclude = ".linenos, .gp, .go"
pygments_style = "friendly"
pygments_dark_style = "github-dark"

html_theme = "furo"
html_title = "Shaped Transformer"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {"navigation_with_keys": False}
