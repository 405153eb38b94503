"""Sphinx's settings. `make docs` (tools/build_site.py) puts the sources together before Sphinx reads this."""

import sys
from pathlib import Path

# This file is read from the assembled sources: tools/build_site.py says where the repository is.
ROOT = Path((Path(__file__).parent / "repository.txt").read_text(encoding="utf-8"))
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import site_docstrings  # noqa: E402

import awq_ref  # noqa: E402

project, author = "awq_ref", "the awq_ref authors"
version = release = awq_ref.__version__
copyright = f"{author}, MIT licence"  # noqa: A001  (Sphinx's name)
language = "en"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx_copybutton"]
source_suffix = {".md": "myst-nb", ".py": "myst-nb", ".rst": "restructuredtext"}
exclude_patterns = ["conf.py", "repository/**", "examples/*.py", "tutorials/_*.py"]

myst_enable_extensions = ["colon_fence", "deflist", "attrs_block", "attrs_inline", "dollarmath"]
myst_dmath_double_inline = True
myst_heading_anchors = 4
# `<a id="x"></a>` is an anchor on GitHub too, which MyST does not know: tools/site_links.py checks every link of the
# pages that come out, those included.
suppress_warnings = ["myst.xref_missing", "myst.header"]

nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "cache"
nb_execution_cache_path = str(Path(__file__).parents[1] / "cache")
nb_execution_timeout = 180
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True

autodoc_typehints = "none"  # shapes and dtypes stand in the docstrings
autodoc_member_order = "bysource"
add_module_names = False
default_role = "code"
nitpicky = True
viewcode_line_numbers = True

html_theme = "furo"
html_title = "awq_ref"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_copy_source = False
html_show_search_summary = False  # from the disk a browser fetches no other page to cut one from
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True, "top_of_page_buttons": []}
pygments_style, pygments_dark_style = "default", "github-dark"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def setup(app):
    """Render the house's docstrings."""
    app.connect("autodoc-process-docstring", site_docstrings.process)
