"""Exceptions of striate; each message has a cause, a location and a remedy."""

from __future__ import annotations

import os

MAX_OBJECT_TEXT = 200  # characters of an object, such as an array, in a message


class StriateError(Exception):
    """Base class of errors that the user can fix; printed without a traceback.

    Args:
        what: What happened; if two values disagree, both values.
        where: The file, layer or setting that caused the error.
        fix: What to do next.

    Example:
        >>> print(StriateError("no images", where="photos/", fix="add some"))
        no images
          where: photos/
          do:    add some
    """

    exit_code = 2
    reported_elsewhere = False  # True: another process of the run prints the message

    def __init__(
        self, what: str, *, where: object | None = None, fix: str | None = None
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = None if where is None else _short_text(where)
        self.fix = fix

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.fix:
            lines.append(f"  do:    {self.fix}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, str | None]:
        """Return the error type and the message parts as a dict, for `--json`."""
        kind = type(self).__name__
        return {"error": kind, "what": self.what, "where": self.where, "do": self.fix}


def _short_text(where: object) -> str:
    """Return paths and texts in full, and the beginning of other objects.

    Example:
        >>> _short_text(range(3)), len(_short_text(list(range(1000))))
        ('range(0, 3)', 200)
    """
    text = str(where)
    if isinstance(where, str | os.PathLike):
        return text
    line = " ".join(text.split())
    return line if len(line) <= MAX_OBJECT_TEXT else line[: MAX_OBJECT_TEXT - 1] + "…"


class SettingError(StriateError):
    """Error of an invalid setting."""


class UnknownNameError(SettingError):
    """Error of an unknown name; the message lists similar names."""


class DataError(StriateError):
    """Error of unusable image files, or of an unusable folder layout."""


class GeometryError(StriateError):
    """Error of an image size or channel count that does not fit the network."""


class WeightsError(StriateError):
    """Error of stored weights that do not fit the network."""


class RunError(StriateError):
    """Error of a run folder that is missing, incomplete, or already exists."""


class StorageError(StriateError):
    """Error of a failed write to the disk; existing files are unchanged."""


class NonFiniteError(StriateError):
    """Error of a NaN or infinite loss or gradient; the weights are unchanged.

    `layer` is the first layer with a NaN or infinite value. `rows` are the indices of
    the affected images, if known: in the batch for `train`, else in the `split`.
    """

    exit_code = 1
    layer: str = ""
    split: str = "train"
    rows: tuple[int, ...] = ()


class InterruptedRunError(StriateError):
    """Error of a run that the user stopped; its last state is saved."""

    exit_code = 130


class WorkerError(StriateError):
    """Error of a worker process that died or hung; run the command again."""

    exit_code = 1


class RankError(StriateError):
    """Error of a failed or hung rank in a distributed run; all ranks have stopped."""

    exit_code = 1
