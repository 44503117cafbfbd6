"""Parts of an explanation that a network may not allow: the report names the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from striate.core.errors import GeometryError, StriateError
from striate.core.findings import Prose, Section

T = TypeVar("T")


class OptionalParts:
    """Computes parts of an explanation; a part that fails is replaced by the reason.

    Networks are code of users: each part is tried on its own, so that one part that
    cannot be computed does not prevent the others.

    Args:
        data: Data of the report; `not_available` gets the reasons by part.

    Example:
        >>> data = {}
        >>> parts = OptionalParts(data)
        >>> parts.value("ratio", lambda: 1 / 0, None), data["not_available"]
        (None, {'ratio': 'ZeroDivisionError: division by zero'})
    """

    def __init__(self, data: dict[str, Any]) -> None:
        self._reasons: dict[str, str] = data.setdefault("not_available", {})

    def value(self, name: str, compute: Callable[[], T], default: T) -> T:
        """Return the result of a function; after an error, the default."""
        try:
            return compute()
        except Exception as error:
            self._reasons[name] = failure_reason(error)
            return default

    def section(
        self, title: str, build: Callable[[], tuple[Section, Any]]
    ) -> tuple[Section, Any]:
        """Return a report section and its data; after an error, the reason and None."""
        result = self.value(title, build, None)
        if result is not None:
            return result
        text = f"Not available for this network: {self._reasons[title]}."
        return Section(title, (Prose(text, "warning"),)), None


def failure_reason(error: Exception) -> str:
    """Return one line on why a part of an explanation cannot be computed.

    Raises:
        StriateError: The error is a mistake of the user, such as an unknown name.

    Example:
        >>> failure_reason(GeometryError("the layer has no maps"))
        'the layer has no maps'
    """
    if isinstance(error, GeometryError):
        return error.what
    if isinstance(error, StriateError):
        raise error
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}".rstrip(": .")
