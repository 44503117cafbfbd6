"""Options of `load_data` that are not settings of a run: `LoadOptions`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from striate.core.preprocess_config import Preprocess
from striate.data.scan import Tick


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """Options of `load_data` that are not settings of a run.

    Args:
        preprocess: Use this preprocessing instead of the settings.
        margin: Also store training images at this multiple of the input size, for
            random crops.
        given_split: Split of each path, from an earlier `split.csv`.
        given_hashes: SHA-256 of each path; files with another hash are quarantined.
        tick: Progress callback, called with (done, total) while decoding.
    """

    preprocess: Preprocess | None = None
    margin: float = 1.0
    given_split: Mapping[str, str] | None = None
    given_hashes: Mapping[str, str] = field(default_factory=dict)
    tick: Tick | None = None
