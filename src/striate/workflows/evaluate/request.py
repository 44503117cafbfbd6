"""What is asked: which class, how much of it is to be found, how right to be."""

from __future__ import annotations

from dataclasses import dataclass

from striate.core.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class OperatingPointRequest:
    """What is asked of a run.

    Args:
        target: The class to be found among all others.
        recall: The share of it that is to be found.
        band: The share of answers that are to be right outside the unsure band.
        by: Columns of the CSV by whose values everything is told too.

    Raises:
        SettingError: A share is none, or a column is named twice.

    Example:
        >>> OperatingPointRequest(target="defect", recall=0.9).band
        0.98
    """

    target: str
    recall: float = 0.95
    band: float = 0.98
    by: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_share("recall", self.recall, 0.0)
        # Half of all yes-or-no answers are right by tossing a coin.
        _check_share("band", self.band, 0.5)
        twice = [name for name in self.by if self.by.count(name) > 1]
        if twice:
            what = f"column '{twice[0]}' is named twice"
            raise SettingError(what, where="--by", fix="name it once")


def _check_share(name: str, value: float, least: float) -> None:
    if not least < value <= 1:
        what = f"{name} must be above {least:g} and at most 1, got {value:g}"
        raise SettingError(what, where=f"--{name}", fix="give a share, such as 0.95")
