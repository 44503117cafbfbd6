"""Images of a run that are no longer where they were: the error, and the way on."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from striate.core.errors import DataError
from striate.data.shards.tars import is_shards
from striate.data.sources.named import NAMED
from striate.data.sources.remote import is_remote


def is_lost(origin: str) -> bool:
    """Return whether a data set was a local folder or file that no longer exists.

    Example:
        >>> is_lost("digits"), is_lost("/no/such/folder"), is_lost("")
        (False, True, False)
    """
    if not origin or origin in NAMED or is_remote(origin) or is_shards(origin):
        return False
    try:
        return not Path(origin).exists()
    except OSError:  # no permission to look: reading it will say so
        return False


def lost_data_error(origin: str, folder: Path) -> DataError:
    """Return the error for a run whose images were moved or deleted."""
    what = f"the images of the run are no longer at {origin}"
    command = f"striate evaluate {quote(str(folder))} --data NEW_FOLDER"
    fix = f"if they were moved, name the new folder: {command}"
    return DataError(what, where=folder, fix=fix)
