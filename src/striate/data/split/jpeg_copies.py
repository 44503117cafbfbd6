"""Give large JPEGs and their lossless copies (PNG, …) the same content hash."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from striate.core.preprocess_config import Preprocess
from striate.data.decode.decode import ImageHeader, pixel_hash
from striate.data.decode.file_bytes import UndecodableError
from striate.data.decode.hashing import is_coded_hash
from striate.data.scan import FileScan
from striate.data.sources.source import Source


def merge_jpeg_hashes(
    source: Source,
    scan: FileScan,
    index: Sequence[int],
    contents: Sequence[str],
    preprocess: Preprocess,
) -> list[str]:
    """Return content hashes; a lossless copy of a JPEG gets the hash of the JPEG.

    A large JPEG is hashed by its compressed data, because it may not be decoded in
    full. A PNG of the same pixels is hashed by its pixels. Only if both kinds have the
    same image size, which is rare, are the JPEGs decoded in full to compare the pixels.
    """
    jpegs: dict[tuple[int, int], list[int]] = defaultdict(list)
    lossless: dict[tuple[int, int], set[str]] = defaultdict(set)
    for k, i in enumerate(index):
        header = scan.headers[i]
        if isinstance(header, ImageHeader):
            sides = header.height, header.width
            if is_coded_hash(contents[k]):
                jpegs[sides].append(k)
            else:
                lossless[sides].add(contents[k])
    renamed: dict[str, str] = {}
    p = preprocess
    for sides in jpegs.keys() & lossless.keys():
        for k in jpegs[sides]:
            try:
                payload = scan.payload(source, index[k])
                pixels = pixel_hash(payload, p.background, p.white_level)
            except UndecodableError:
                continue  # removed or changed since; training will report it
            if pixels in lossless[sides]:
                renamed[pixels] = contents[k]
    return [renamed.get(content, content) for content in contents]
