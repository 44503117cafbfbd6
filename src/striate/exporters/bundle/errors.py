"""Error of a bundle that cannot be used."""

from __future__ import annotations

from striate.core.errors import StriateError

DAMAGED = "get the file again from its source; nothing of it was used"


class BundleError(StriateError):
    """Error of a bundle that is damaged, incomplete, forged or too new."""
