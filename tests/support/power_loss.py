"""Simulated power loss: records every system call of a test and replays every crash.

`watched` notes what a program does to the files below a folder. `crashes` then yields
the trees that the disk may hold if the power fails after any of those calls:

- what was synced is there; a file's content by `fsync` of the file, a name by `fsync`
  of its folder, and neither by the other;
- of the rest any part may be there, in any order: names without content, content
  without names, one of them alone, the last write torn at 512 bytes.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

SECTOR = 512
NAMES = ("mkdir", "create", "rename", "unlink", "rmdir")


@dataclass
class Call:
    """One change or sync: of names in a folder, or of a file's content."""

    kind: str
    path: str = ""
    target: str = ""
    inode: int = -1
    offset: int = 0
    payload: bytes = b""

    @property
    def folders(self) -> set[str]:
        return {os.path.dirname(p) for p in (self.path, self.target) if p}


@dataclass
class Log:
    """The calls in order; `mark` notes how many there were when something was done."""

    root: Path
    calls: list[Call] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)

    def mark(self):
        self.marks.append(len(self.calls))


@contextmanager
def watched(root: Path, monkeypatch) -> Iterator[Log]:
    """Note every change below a folder, which begins empty."""
    log, handles, inodes = Log(root), {}, {}
    real = {name: getattr(os, name) for name in (*_HOOKS, "close")}

    def inside(path):
        return os.path.relpath(path, root) if str(path).startswith(str(root)) else None

    with monkeypatch.context() as patch:
        for name, hook in _HOOKS.items():
            patch.setattr(os, name, hook(log, real[name], inside, handles, inodes))
        yield log


def _open(log, real, inside, handles, inodes):
    def call(path, flags, *rest, **options):
        name = inside(os.fspath(path))
        new = name is not None and not os.path.lexists(path)
        handle = real(path, flags, *rest, **options)
        if name is not None and os.path.isdir(path):
            handles[handle] = ["folder", name, 0]
        elif name is not None and flags & (os.O_WRONLY | os.O_RDWR):
            inode = os.fstat(handle).st_ino
            handles[handle] = ["file", inodes.setdefault(inode, len(inodes)), 0]
            if new:
                log.calls.append(Call("create", name, inode=inodes[inode]))
        else:
            handles.pop(handle, None)
        return handle

    return call


def _write(log, real, inside, handles, inodes):
    def call(handle, payload):
        count = real(handle, payload)
        if handle in handles:
            offset = os.lseek(handle, 0, os.SEEK_CUR) - count
            data = bytes(payload[:count])
            inode = handles[handle][1]
            log.calls.append(Call("write", inode=inode, offset=offset, payload=data))
        return count

    return call


def _ftruncate(log, real, inside, handles, inodes):
    def call(handle, length):
        real(handle, length)
        if handle in handles:
            inode = handles[handle][1]
            log.calls.append(Call("truncate", inode=inode, offset=length))

    return call


def _fsync(log, real, inside, handles, inodes):
    def call(handle):  # the real disk is spared
        kind, what, _ = handles.get(handle, ("", "", 0))
        if kind == "folder":
            log.calls.append(Call("sync names", what))
        elif kind == "file":
            log.calls.append(Call("sync data", inode=what))

    return call


def _two_names(log, real, inside, handles, inodes):
    def call(source, target, **options):
        real(source, target, **options)
        if inside(os.fspath(source)):
            names = inside(os.fspath(source)), inside(os.fspath(target))
            log.calls.append(Call("rename", *names))

    return call


def _one_name(kind):
    def hook(log, real, inside, handles, inodes):
        def call(path, *rest, **options):
            real(path, *rest, **options)
            if inside(os.fspath(path)):
                log.calls.append(Call(kind, inside(os.fspath(path))))

        return call

    return hook


_HOOKS = {
    "open": _open,
    "write": _write,
    "ftruncate": _ftruncate,
    "fsync": _fsync,
    "rename": _two_names,
    "replace": _two_names,
    "mkdir": _one_name("mkdir"),
    "unlink": _one_name("unlink"),
    "rmdir": _one_name("rmdir"),
}

Tree = dict[str, bytes | None]  # content of each file, None for a folder


@dataclass(frozen=True)
class Crash:
    """What the disk may hold if the power fails after so many calls."""

    after: int
    how: str
    tree: Tree


def crashes(
    log: Log, seed: int = 0, draws: int = 3, after: Iterable[int] | None = None
) -> Iterator[Crash]:
    """Yield what may be left after each call, or those asked for; no tree twice."""
    draw = random.Random(seed)
    for count in range(len(log.calls) + 1) if after is None else after:
        calls = log.calls[:count]
        sure, open_ones = _synced(calls)
        seen = set()
        for how, kept, tear in _choices(calls, open_ones, draw, draws):
            tree = _replay(calls, sure | kept, tear)
            key = tuple(sorted(tree.items(), key=lambda item: item[0]))
            if key not in seen:
                seen.add(key)
                yield Crash(count, how, tree)


def _synced(calls: list[Call]) -> tuple[set[int], list[int]]:
    """Return the changes that a sync has made sure of, and the others in order."""
    sure: set[int] = set()
    waiting: list[int] = []
    for i, call in enumerate(calls):
        if call.kind.startswith("sync"):
            done = {k for k in waiting if _covers(call, calls[k])}
            sure |= done
            waiting = [k for k in waiting if k not in done]
        else:
            waiting.append(i)
    return sure, waiting


def _covers(sync: Call, call: Call) -> bool:
    if sync.kind == "sync data":
        return call.kind in ("write", "truncate") and call.inode == sync.inode
    folder = "" if sync.path == "." else sync.path
    return call.kind in NAMES and folder in call.folders


def _choices(calls, open_ones, draw, draws):
    """Yield (how, changes that came through too, where the last write is torn)."""
    names = {i for i in open_ones if calls[i].kind in NAMES}
    data = set(open_ones) - names
    yield "nothing unsynced", set(), None
    yield "everything", set(open_ones), None
    yield "names only", names, None
    yield "data only", data, None
    for i in open_ones:
        yield f"all but {calls[i].kind}", set(open_ones) - {i}, None
        yield f"{calls[i].kind} alone", {i}, None
    writes = [i for i in sorted(data) if calls[i].kind == "write"]
    if writes:
        size = len(calls[writes[-1]].payload)
        for cut in sorted({0, *(draw.randrange(0, size, SECTOR) for _ in range(3))}):
            yield f"torn at {cut}", set(open_ones), (writes[-1], cut, False)
            yield f"zeros from {cut}", set(open_ones), (writes[-1], cut, True)
    for _ in range(draws):
        yield "some", {i for i in open_ones if draw.random() < 0.5}, None


def _replay(calls: list[Call], kept: set[int], tear) -> Tree:
    """Return the tree after the kept changes, in their order, where they apply."""
    names: dict[str, int | None] = {"": None}
    contents: dict[int, bytearray] = {}
    for i, call in enumerate(calls):
        if i in kept:
            payload = call.payload
            if tear and tear[0] == i:
                payload = payload[: tear[1]]
                payload += bytes(len(call.payload) - len(payload)) if tear[2] else b""
            _apply(call, payload, names, contents)
    return {
        name: None if inode is None else bytes(contents.get(inode, b""))
        for name, inode in names.items()
        if name
    }


def _apply(call: Call, payload: bytes, names, contents) -> None:
    parents_exist = all(folder in names for folder in call.folders)
    if call.kind in NAMES and not parents_exist:
        return
    if call.kind == "mkdir":
        names.setdefault(call.path, None)
    elif call.kind == "create":
        names.setdefault(call.path, call.inode)
    elif call.kind == "unlink" or call.kind == "rmdir":
        if not any(name.startswith(call.path + "/") for name in names):
            names.pop(call.path, None)
    elif call.kind == "rename" and call.path in names:
        _rename(call.path, call.target, names)
    elif call.kind == "write":
        content = contents.setdefault(call.inode, bytearray())
        content.extend(bytes(max(0, call.offset - len(content))))
        content[call.offset : call.offset + len(payload)] = payload
    elif call.kind == "truncate":
        content = contents.setdefault(call.inode, bytearray())
        content.extend(bytes(max(0, call.offset - len(content))))
        del content[call.offset :]


def _rename(source: str, target: str, names) -> None:
    moved = {n for n in names if n == source or n.startswith(source + "/")}
    for name in sorted(moved):
        names[target + name[len(source) :]] = names.pop(name)


@contextmanager
def in_memory() -> Iterator[Path]:
    """Lend an empty folder, in memory if we can: trees come by the thousand."""
    shared = Path("/", "dev", "shm")
    place = shared if shared.is_dir() else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        yield Path(folder)


def lay_out(tree: Tree, root: Path) -> None:
    """Make a tree real in an empty folder."""
    for name in sorted(tree):
        content = tree[name]
        if content is None:
            (root / name).mkdir(parents=True, exist_ok=True)
        else:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)


def found(root: Path) -> Tree:
    """Return the tree that lies in a folder."""
    return {
        str(p.relative_to(root)): None if p.is_dir() else p.read_bytes()
        for p in root.rglob("*")
    }
