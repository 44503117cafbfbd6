"""Large JPEGs and lossless copies of them, which are known by different hashes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from striate.core.spec import Preprocess
from striate.data.decode.decode import ImageHeader, pixel_hash
from striate.data.decode.file_bytes import UndecodableError
from striate.data.decode.hashing import is_coded_hash
from striate.data.scan import FileScan
from striate.data.sources.source import Source


def united(
    source: Source,
    scan: FileScan,
    index: Sequence[int],
    contents: Sequence[str],
    preprocess: Preprocess,
) -> list[str]:
    """Return the contents, those of a large JPEG's lossless copies made its own.

    A large JPEG is known by its coded bytes, because not all of its pixels need be
    made; a PNG of the same pixels is known by those. Only where both kinds have the
    same sides, which is rare, are the JPEGs decoded in full to compare.

    Args:
        source: Where the records come from.
        scan: Their headers.
        index: Positions of the usable records.
        contents: What each is known by.
        preprocess: Whose background and white images are decoded with.
    """
    coded: dict[tuple[int, int], list[int]] = defaultdict(list)
    plain: dict[tuple[int, int], list[int]] = defaultdict(list)
    for k, i in enumerate(index):
        header = scan.headers[i]
        if isinstance(header, ImageHeader):
            kind = coded if is_coded_hash(contents[k]) else plain
            kind[header.height, header.width].append(k)
    renamed: dict[str, str] = {}
    for sides in coded.keys() & plain.keys():
        others = {contents[k] for k in plain[sides]}
        for k in coded[sides]:
            try:
                payload = scan.payload(source, index[k])
                known = pixel_hash(
                    payload, preprocess.background, preprocess.white_level
                )
            except UndecodableError:
                continue  # gone or changed since; training will say so
            if known in others:
                renamed[known] = contents[k]
    return [renamed.get(content, content) for content in contents]
