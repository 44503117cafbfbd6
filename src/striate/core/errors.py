"""The exceptions of striate: each says what happened, where, and what to do."""

from __future__ import annotations


class StriateError(Exception):
    """An error that the user can fix; shown as a message, never as a traceback.

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
    reported_elsewhere = False  # another process of the same run prints it

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
    """A setting has an invalid value."""


class UnknownNameError(SettingError):
    """A name that is in no registry; the message lists the nearest ones."""


class DataError(StriateError):
    """The images, or the layout of their folders, cannot be used."""


class GeometryError(StriateError):
    """An image's size or channels do not fit a network."""


class WeightsError(StriateError):
    """Stored weights do not belong to the network they are loaded into."""


class RunError(StriateError):
    """A run folder is missing or incomplete, or already exists."""


class StorageError(StriateError):
    """A write to the disk failed; earlier files are intact."""


class NonFiniteError(StriateError):
    """A loss or gradient became NaN or infinite; the weights are unchanged.

    `layer` is the first layer with such a value. `rows` are the positions of the bad
    images, if known: in the batch, or in the whole `split` if it is not `train`.
    """

    exit_code = 1
    layer: str = ""
    split: str = "train"
    rows: tuple[int, ...] = ()


class InterruptedRunError(StriateError):
    """The user stopped the run; its state so far is saved."""

    exit_code = 130


class WorkerError(StriateError):
    """A worker process died or hung; the command can be started again."""

    exit_code = 1


class RankError(StriateError):
    """A rank of a distributed run died, hung or failed; the others have stopped."""

    exit_code = 1
