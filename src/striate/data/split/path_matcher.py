"""Match paths of a split file to the images of a data set, however they are written."""

from __future__ import annotations

import os
import posixpath
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path


class PathMatcher:
    """Finds the images that the paths of another file mean.

    Example:
        >>> matcher = PathMatcher(["cat/1.png"], Path("photos"), Path())
        >>> matcher.match("./cat/1.png"), matcher.match("photos/Cat/1.PNG")
        ('cat/1.png', 'cat/1.png')
        >>> matcher.match("dog/1.png")
        'dog/1.png'
    """

    def __init__(self, paths: Collection[str], root: Path | None, base: Path) -> None:
        # Images of arrays and of remote folders have no local root.
        self._roots = list(dict.fromkeys(map(_folder, [root, base] if root else [])))
        self._root = self._roots[0] if root else ""
        self._paths = {posixpath.normpath(path): path for path in paths}
        self._paths.update((path, path) for path in paths)
        folded: dict[str, set[str]] = defaultdict(set)
        for path in paths:
            folded[posixpath.normpath(path).casefold()].add(path)
        # A path that differs from two others in its case only means neither.
        self._folded = {k: min(s) for k, s in folded.items() if len(s) == 1}

    def match(self, name: str) -> str:
        """Return the path of the image in the data set; `name` if there is none."""
        if name in self._paths:
            return self._paths[name]
        candidates = list(self._candidates(name))
        for path in candidates:
            if path in self._paths:
                return self._paths[path]
        for path in candidates:
            if path.casefold() in self._folded:
                return self._folded[path.casefold()]
        return name

    def _candidates(self, name: str) -> Iterator[str]:
        """Yield the path as it would be relative to the folder of the images."""
        plain = posixpath.normpath(name.replace("\\", "/"))
        yield plain
        if not self._root:
            return
        for base in (*self._roots, _folder(Path())):
            full = posixpath.normpath(posixpath.join(base, plain))
            if full.startswith(f"{self._root}/"):
                yield full.removeprefix(f"{self._root}/")
        top = f"{posixpath.basename(self._root)}/"
        if plain.startswith(top):
            yield plain.removeprefix(top)


def _folder(path: Path) -> str:
    return os.path.abspath(path).replace(os.sep, "/")  # noqa: PTH100 - keeps links
