"""Settings of the documentation: `python -m sphinx -W -b html docs docs/_build/html`."""

from importlib.metadata import version as installed_version

project = "phi4ppl"
author = "The phi4ppl developers"
copyright = "The phi4ppl developers"
version = release = installed_version("phi4ppl")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build"]
root_doc = "index"

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# docstrings are numpy style; a name in single backticks is a reference to it
default_role = "py:obj"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = (
    True  # an attribute that is also a property would be described twice
)
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = (
    "documented_params"  # a return type is shown where it is annotated
)
autosummary_generate = False  # the tables only; the entries are on the same page

html_theme = "furo"
html_title = f"phi4ppl {version}"
html_theme_options = {
    "source_repository": "https://github.com/phi4ppl/phi4ppl",
    "source_branch": "main",
    "source_directory": "docs/",
}
