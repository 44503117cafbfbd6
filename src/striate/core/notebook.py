"""Results that a notebook shows as HTML."""

from __future__ import annotations

from functools import singledispatch
from typing import Any


@singledispatch
def notebook_html(result: Any) -> str | None:
    """Return a result as HTML for a notebook; None: the notebook shows its `repr`.

    A type of a lower package has its HTML registered by the package that renders it.
    """
    return None


class NotebookResult:
    """Base of results whose HTML is registered with `notebook_html`.

    Example:
        >>> NotebookResult()._repr_html_() is None
        True
    """

    def _repr_html_(self) -> str | None:
        return notebook_html(self)
