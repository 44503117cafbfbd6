"""Zip files in one single form: stored entries without gaps, at a fixed time.

A file is accepted only if writing its entries again would give the same bytes. So no
byte outside of the contents can carry anything, and no two readers can disagree.
"""

from __future__ import annotations

import re
import stat
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from striate.core.format import count_text
from striate.exporters.bundle.errors import DAMAGED, BundleError

MAX_ENTRIES = 512
MAX_NAME = 100  # characters
MAX_BYTES = 2**32 - 2  # of a zip file without zip64
CHUNK = 1 << 20
_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL_BEGIN = struct.Struct("<4s6H3I")
_CENTRAL_END = struct.Struct("<5H2I")
_CENTRAL = struct.Struct("<4s6H3I5H2I")  # both
_END = struct.Struct("<4s4H2IH")
MAX_DIRECTORY = MAX_ENTRIES * (_CENTRAL.size + MAX_NAME)
_LOCAL_MAGIC, _CENTRAL_MAGIC, _END_MAGIC = b"PK\3\4", b"PK\1\2", b"PK\5\6"
_VERSION = 20
_UNIX = 3 << 8 | _VERSION
_TIME, _DATE = 0, 1 << 5 | 1  # 1980-01-01 00:00
_MODE = (stat.S_IFREG | 0o644) << 16
_ZIP64 = 0xFFFFFFFF
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_PART}(?:/{_PART}){{0,3}}")
# File names that are devices on Windows.
_DEVICES = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)


@dataclass(frozen=True)
class ZipEntry:
    """One file in a zip file, and where it is."""

    name: str
    size: int
    crc: int
    offset: int  # of the local header

    @property
    def start(self) -> int:
        """Return the position of the contents."""
        return self.offset + _LOCAL.size + len(self.name)

    def local_header(self) -> bytes:
        """Return the bytes before the contents."""
        name = self.name.encode("ascii")
        return _LOCAL.pack(_LOCAL_MAGIC, *self._fields, len(name), 0) + name

    def central_header(self) -> bytes:
        """Return the record in the directory at the end of the file."""
        name = self.name.encode("ascii")
        begin = _CENTRAL_BEGIN.pack(_CENTRAL_MAGIC, _UNIX, *self._fields)
        end = _CENTRAL_END.pack(len(name), 0, 0, 0, 0, _MODE, self.offset)
        return begin + end + name

    @property
    def _fields(self) -> tuple[int, ...]:
        """Return what both headers have in common."""
        return _VERSION, 0, 0, _TIME, _DATE, self.crc, self.size, self.size


def stored_zip(files: Iterable[tuple[str, bytes]]) -> bytes:
    """Return a zip file; the same files give the same bytes.

    Raises:
        BundleError: A name is not allowed, or the files are too large.

    Example:
        >>> import io, zipfile
        >>> payload = stored_zip([("a/b.txt", b"text")])
        >>> zipfile.ZipFile(io.BytesIO(payload)).read("a/b.txt")
        b'text'
    """
    entries, parts, offset = [], [], 0
    for name, payload in files:
        check_name(name)
        if len(payload) > MAX_BYTES:
            raise BundleError(f"{name} has {len(payload):,} bytes, too many for a zip")
        entry = ZipEntry(name, len(payload), zlib.crc32(payload), offset)
        parts += [entry.local_header(), payload]
        offset = entry.start + entry.size
        entries.append(entry)
    check_names([entry.name for entry in entries])
    if offset + MAX_DIRECTORY > MAX_BYTES or len(entries) > MAX_ENTRIES:
        files_text = count_text(len(entries), "file")
        what = f"the bundle would have {offset:,} bytes in {files_text}"
        what += f"; the limits are {MAX_BYTES:,} and {MAX_ENTRIES}"
        raise BundleError(what, fix="leave out targets")
    return b"".join([*parts, _directory(entries, offset)])


def _directory(entries: Sequence[ZipEntry], offset: int) -> bytes:
    records = b"".join(entry.central_header() for entry in entries)
    count = len(entries)
    end = _END.pack(_END_MAGIC, 0, 0, count, count, len(records), offset, 0)
    return records + end


def check_name(name: str) -> None:
    """Raise an error unless a name is a plain relative path on every system."""
    if len(name) > MAX_NAME:
        raise BundleError(f"entry name too long: {name[:40]!r}…", fix=DAMAGED)
    devices = any(_DEVICES.fullmatch(part) for part in name.split("/"))
    if devices or not _NAME.fullmatch(name):
        what = f"entry name {name!r} is not a plain relative path"
        raise BundleError(what, fix=DAMAGED)


def check_names(names: Sequence[str]) -> None:
    """Raise an error if two names are one file, on any system."""
    folded: dict[str, str] = {}
    folders = {
        "/".join(name.lower().split("/")[:count])
        for name in names
        for count in range(1, name.count("/") + 1)
    }
    for name in names:
        other = folded.setdefault(name.lower(), name)
        if other is not name or name.lower() in folders:
            what = f"entries {other!r} and {name!r} are the same file"
            raise BundleError(what, fix=DAMAGED)


class StoredZip:
    """Reader of a zip file that `stored_zip` has written; others raise an error.

    Args:
        file: The file, open for reading.
        size: Its size in bytes.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        records = self._read_records()
        self.entries = [entry for entry, _ in records]
        self._problems = [problem for _, problem in records]

    def _read_records(self) -> list[tuple[ZipEntry, str]]:
        """Return the entries in the directory, and what is not allowed in each."""
        if not _END.size < self._size <= MAX_BYTES:
            raise BundleError(f"no bundle: it has {self._size:,} bytes", fix=DAMAGED)
        if self._at(0, 4) != _LOCAL_MAGIC:
            raise BundleError("no bundle: it does not begin as one", fix=DAMAGED)
        end = _END.unpack(self._at(self._size - _END.size, _END.size))
        magic, disk, first_disk, count, total, length, offset, comment = end
        if magic != _END_MAGIC or comment:
            what = "damaged: it is cut short, or other data follow its end"
            raise BundleError(what, fix=DAMAGED)
        if not count == total <= MAX_ENTRIES or disk or first_disk:
            raise BundleError(f"damaged: {max(count, total):,} entries", fix=DAMAGED)
        if offset + length + _END.size != self._size:
            raise BundleError("damaged: its directory is not at its end", fix=DAMAGED)
        if length > MAX_DIRECTORY:
            raise BundleError("damaged: its directory is too long", fix=DAMAGED)
        self._end = offset
        return list(_records(self._at(offset, length), count))

    def _at(self, offset: int, count: int) -> bytes:
        self._file.seek(offset)
        payload = self._file.read(count)
        if len(payload) != count:
            raise BundleError("damaged: the file is cut short", fix=DAMAGED)
        return payload

    def check(self) -> None:
        """Check that the bytes between the contents are those of `stored_zip`."""
        position = 0
        for number, entry in enumerate(self.entries):
            self.check_record(number)
            if entry.offset != position:
                what = f"entry {entry.name!r} overlaps another, or follows a gap"
                raise BundleError(what, fix=DAMAGED)
            position = entry.start + entry.size
        check_names([entry.name for entry in self.entries])
        if position != self._end:
            what = "the sizes of the entries disagree with the size of the file"
            raise BundleError(what, fix=DAMAGED)
        for entry in self.entries:
            header = entry.local_header()
            if self._at(entry.offset, len(header)) != header:
                what = f"entry {entry.name!r} differs from the directory"
                raise BundleError(what, fix=DAMAGED)

    def check_record(self, number: int) -> None:
        """Check what the directory says about an entry."""
        entry, problem = self.entries[number], self._problems[number]
        check_name(entry.name)
        if problem:
            raise BundleError(f"entry {entry.name!r} {problem}", fix=DAMAGED)

    def begin(self, entry: ZipEntry, count: int) -> bytes:
        """Return the first bytes of an entry, as many as there are up to `count`."""
        return self._at(entry.start, min(count, entry.size))

    def chunks(self, entry: ZipEntry) -> Iterator[bytes]:
        """Yield the contents of an entry; at the end the checksum is compared."""
        crc, rest, position = 0, entry.size, entry.start
        while rest:
            chunk = self._at(position, min(rest, CHUNK))
            crc = zlib.crc32(chunk, crc)
            rest, position = rest - len(chunk), position + len(chunk)
            yield chunk
        if crc != entry.crc:
            what = f"entry {entry.name!r} is damaged: its checksum differs"
            raise BundleError(what, fix=DAMAGED)

    def read(self, entry: ZipEntry) -> bytes:
        """Return the contents of an entry."""
        return b"".join(self.chunks(entry))


def _records(payload: bytes, count: int) -> Iterator[tuple[ZipEntry, str]]:
    position = 0
    for _ in range(count):
        header = payload[position : position + _CENTRAL.size]
        if len(header) < _CENTRAL.size or header[:4] != _CENTRAL_MAGIC:
            raise BundleError("damaged: its directory is not valid", fix=DAMAGED)
        fields = _CENTRAL.unpack(header)
        crc, size, offset = fields[7], fields[9], fields[16]
        lengths = fields[10:13]
        end = position + _CENTRAL.size + sum(lengths)
        name = payload[position + _CENTRAL.size :][: lengths[0]].decode("latin-1")
        entry = ZipEntry(name, size, crc, offset)
        yield entry, _problem(fields, entry, payload[position:end])
        position = end
    if position != len(payload):
        raise BundleError("damaged: its directory is not valid", fix=DAMAGED)


def _problem(fields: tuple[int, ...], entry: ZipEntry, record: bytes) -> str:
    """Return what is not allowed in a record of the directory; "" if nothing."""
    flags, method, stored, extra = fields[3], fields[4], fields[8], fields[11]
    kind = stat.S_IFMT(fields[15] >> 16)
    if flags & 1:
        return "is encrypted"
    if method:
        return "is compressed; bundles are stored without compression"
    if kind not in (0, stat.S_IFREG):
        return "is not a file: a link, device or folder"
    if _ZIP64 in (entry.size, stored, entry.offset) or extra:
        return "has additional fields (zip64)"
    if stored != entry.size:
        return f"has two sizes: {stored:,} and {entry.size:,} bytes"
    if not entry.name.isascii() or record != entry.central_header():
        return "has a header that no bundle has"
    return ""
