"""Options of `load_data` that are not settings of a run: `LoadOptions`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from striate.core.preprocess_config import Preprocess
from striate.data.scan import Tick


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """Options of `load_data` that are not settings of a run."""

    # Use this preprocessing instead of the settings.
    preprocess: Preprocess | None = None
    # Also store training images at this multiple of the input size, for random crops.
    margin: float = 1.0
    # Split of each path, from an earlier `split.csv`.
    given_split: Mapping[str, str] | None = None
    # SHA-256 of each path; files with another hash are quarantined.
    given_hashes: Mapping[str, str] = field(default_factory=dict)
    # Progress callback, called with (done, total) while decoding.
    tick: Tick | None = None
