"""Log of a long benchmark: stored results are reused after an interruption."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Log:
    """Results by key, stored in a file if a path is given.

    Args:
        path: JSON lines file, created with the first result; None: no file.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path and path.exists() else []
        self._kept = {line["key"]: line["figures"] for line in map(json.loads, lines)}
        self.found = len(self._kept)  # by an earlier start

    def stored(self, key: str) -> dict[str, Any]:
        """Return the stored result of a key; empty if missing."""
        return self._kept.get(key, {})

    def get(self, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the stored result of a key; if missing, call `make` and store it."""
        if key not in self._kept:
            self._kept[key] = make()
            if self._path:
                with self._path.open("a") as file:
                    line = {"key": key, "figures": self._kept[key]}
                    file.write(json.dumps(line) + "\n")
        return self._kept[key]
