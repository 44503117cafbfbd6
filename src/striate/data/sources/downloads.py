"""Public data sets that can be downloaded: addresses, SHA-256, sizes and licenses.

Every hash was compared with the publisher's repository: Fashion-MNIST byte by byte,
TrashNet with public records of the same commit.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_GITHUB = "https://raw.githubusercontent.com"
_FASHION = f"{_GITHUB}/zalandoresearch/fashion-mnist"
_FASHION += "/b2617bb6d3ffa2e429640350f613e3291e10b141/data/fashion"
_TRASHNET = f"{_GITHUB}/garythung/trashnet"
_TRASHNET += "/6fa2b878c6c1b4304b91109070ce0edf9279bb31/data"


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file of a data set: its address, its SHA-256 and its size in bytes."""

    url: str
    sha256: str
    size: int

    @property
    def name(self) -> str:
        """Return the file name in the address."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True, kw_only=True)
class PublicDataset:
    """A public data set: what it is, its license, and its files."""

    about: str  # number and kind of its images
    license: str  # the publisher's license, and the publisher
    files: tuple[RemoteFile, ...]
    archive_root: str = ""  # folder of the class folders in a ZIP archive, if it is one

    @property
    def size(self) -> int:
        """Return the number of bytes to download."""
        return sum(file.size for file in self.files)


def _fashion_file(name: str, sha256: str, size: int) -> RemoteFile:
    url = f"{_FASHION}/{name}-ubyte.gz"
    return RemoteFile(url=url, sha256=sha256, size=size)


PUBLIC_DATASETS = {
    "fashion-mnist": PublicDataset(
        about="70,000 gray images of clothes, 28×28 pixels, 10 classes",
        license="MIT, Zalando SE",
        files=(
            _fashion_file(
                "train-images-idx3",
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                26_421_880,
            ),
            _fashion_file(
                "train-labels-idx1",
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                29_515,
            ),
            _fashion_file(
                "t10k-images-idx3",
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                4_422_102,
            ),
            _fashion_file(
                "t10k-labels-idx1",
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                5_148,
            ),
        ),
    ),
    "trashnet": PublicDataset(
        about="2,527 color photographs of waste, 512×384 pixels, 6 classes",
        license="MIT, Gary Thung",
        files=(
            RemoteFile(
                url=f"{_TRASHNET}/dataset-resized.zip",
                sha256="0bf472790f8b20e5c950d5b5012a9d38af0d3392efd65f8ce171334fc16b07c2",
                size=42_834_870,
            ),
        ),
        archive_root="dataset-resized",
    ),
}


def dataset_folders(name: str) -> list[Path]:
    """Return where a data set is searched; it is downloaded to the first folder."""
    home = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local/share")
    shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    folders = [home, *filter(None, shared.split(":"))]
    return [Path(folder) / "datasets" / name for folder in folders]
