"""Sphinx: the manual, in Markdown."""

project = "striate"
author = "the striate authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "striate"
exclude_patterns = ["_build"]
autodoc_typehints = "description"
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
