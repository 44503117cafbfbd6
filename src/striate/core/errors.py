"""One family of errors; each says what happened, where, and what to do next."""

from __future__ import annotations


class StriateError(Exception):
    """A mistake a person can mend; shown as a message, never as a traceback.

    Args:
        what: What happened, with both values where two disagree.
        where: The file, layer or setting it happened at.
        fix: What to do next.

    Example:
        >>> print(StriateError("no images", where="photos/", fix="add some"))
        no images
          where: photos/
          do:    add some
    """

    exit_code = 2
    said_elsewhere = False  # another process of the same run tells the user

    def __init__(
        self, what: str, *, where: object | None = None, fix: str | None = None
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = None if where is None else str(where)
        self.fix = fix

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.fix:
            lines.append(f"  do:    {self.fix}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, str | None]:
        """Return the message's parts, for `--json`."""
        kind = type(self).__name__
        return {"error": kind, "what": self.what, "where": self.where, "do": self.fix}


class SettingError(StriateError):
    """A setting has a value it cannot have."""


class UnknownNameError(SettingError):
    """A name that is in no registry; the message lists the nearest ones."""


class DataError(StriateError):
    """The images, or the way they are laid out, do not admit the work."""


class GeometryError(StriateError):
    """An image's size or channels do not fit a network."""


class WeightsError(StriateError):
    """Stored weights do not belong to the network they are loaded into."""


class RunError(StriateError):
    """A run folder is missing, incomplete or in the way."""


class StorageError(StriateError):
    """The disk refused a write; what was there before is intact."""


class NonFiniteError(StriateError):
    """A loss or gradient became NaN or infinite; the weights were not touched by it.

    `layer` is where it was first seen; `rows` are the bad images, where it is known
    which they are: their positions in the batch, or in the whole of another `split`.
    """

    exit_code = 1
    layer: str = ""
    split: str = "train"
    rows: tuple[int, ...] = ()


class InterruptedRunError(StriateError):
    """The user stopped the work; what was done so far is saved."""

    exit_code = 130


class WorkerError(StriateError):
    """A helper process died or hung; what it was doing can be started again."""

    exit_code = 1


class RankError(StriateError):
    """A process of a run on several died, hung or failed; the others have stopped."""

    exit_code = 1
