"""What a long benchmark has measured so far, a line each: a later start goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Log:
    """Figures by key, in a file where one is given.

    Args:
        path: Of JSON lines; made when the first figure is known.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path and path.exists() else []
        self._kept = {line["key"]: line["figures"] for line in map(json.loads, lines)}
        self.found = len(self._kept)  # by an earlier start

    def get(self, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what is kept, or make it and keep it."""
        if key not in self._kept:
            self._kept[key] = make()
            if self._path:
                with self._path.open("a") as file:
                    line = {"key": key, "figures": self._kept[key]}
                    file.write(json.dumps(line) + "\n")
        return self._kept[key]
