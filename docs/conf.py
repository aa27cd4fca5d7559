"""Settings of the documentation, which is built by `make docs` with warnings as errors."""

import os
import re
from pathlib import Path

# As in the tests: threads of BLAS and of XLA in one process slow each other down.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("NPROC", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import lrposterior

HERE = Path(__file__).resolve().parent

project = "lrposterior"
author = "The lrposterior developers"
copyright = author
release = version = lrposterior.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]
# No gallery: the examples are scripts that CI runs, and pages show them by literalinclude. There is no intersphinx
# either, since the build must not depend on the network.
exclude_patterns = ["_build", "**.ipynb_checkpoints", "examples/*/*.md"]  # results that pages include

# Pages. A page with {code-cell}s is executed once, and again when it changes; a failing cell fails the build.
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE.parent / ".cache" / "jupyter")
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300

# API.
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
toc_object_entries_show_parents = "hide"
add_module_names = False
# Under -n every reference to a public name (lrposterior.X) has to resolve. Types of other packages, and our inner ones
# that an annotation names, are not looked up.
nitpick_ignore_regex = [(r"py:.*", r"(?!lrposterior\.\w+$).*")]

html_theme = "pydata_sphinx_theme"
html_title = f"lrposterior {release}"
html_theme_options = {"show_prev_next": False, "navigation_with_keys": False}


def _every_public_name_is_documented(app) -> None:
    page = (HERE / "api.md").read_text(encoding="utf-8")
    missing = set(lrposterior.__all__) - set(re.findall(r"^\.\. auto\w+:: (\w+)$", page, flags=re.MULTILINE))
    if missing:
        raise ValueError(
            f"docs/api.md: expected every name of lrposterior.__all__, got none of {sorted(missing)}; add them"
        )


def setup(app) -> None:
    app.connect("builder-inited", _every_public_name_is_documented)
