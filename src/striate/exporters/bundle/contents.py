"""Contents of a bundle, and the names of its files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from striate.core.preprocess_config import Preprocess
from striate.exporters.graph import NetworkGraph

MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
NETWORK = "network.json"
PREPROCESS = "preprocess.json"
CLASSES = "classes.json"
CALIBRATION = "calibration.json"
CARD = "card.md"
CERTIFICATE = "certificate.json"
PROVENANCE = "provenance.json"
GOLDEN, TARGETS = "golden/", "targets/"
GOLDEN_ARRAYS = "golden/expected.safetensors"
# All files in order, with the two folders.
ORDER = (
    *(MANIFEST, WEIGHTS, NETWORK, PREPROCESS, CLASSES, CALIBRATION, CARD),
    *(TARGETS, GOLDEN, CERTIFICATE, PROVENANCE),
)
REQUIRED = frozenset(ORDER) - {TARGETS, GOLDEN} | {GOLDEN_ARRAYS}
INPUTS, LOGITS, PROBABILITIES = "inputs", "logits", "probabilities"


@dataclass(frozen=True, kw_only=True)
class BundleContents:
    """What a bundle is made of.

    The first dimension of all golden arrays is the number of golden images, whose order
    is that of their file names.
    """

    graph: NetworkGraph
    preprocess: Preprocess
    classes: Sequence[str]  # names in the order of the outputs
    calibration: Mapping[str, Any] = field(default_factory=dict)
    card: str = ""  # Markdown
    certificate: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    golden_images: Mapping[str, bytes] = field(default_factory=dict)  # by file name
    # `inputs`: resized input tensors; `logits`, `probabilities`, and others
    golden_arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    targets: Mapping[str, bytes] = field(default_factory=dict)  # by file name
    versions: Mapping[str, str] = field(default_factory=dict)  # by package

    def json_files(self) -> Iterator[tuple[str, Any]]:
        """Yield the names and values of the JSON files, without the manifest."""
        yield NETWORK, self.graph.as_dict()
        yield PREPROCESS, self.preprocess.as_dict()
        yield CLASSES, {"names": list(self.classes)}
        yield CALIBRATION, dict(self.calibration)
        yield CERTIFICATE, dict(self.certificate)
        yield PROVENANCE, dict(self.provenance)


def position_of(name: str) -> tuple[int, str]:
    """Return the sort key of a file in a bundle; a ValueError for an unknown name.

    Example:
        >>> sorted(["targets/b", "card.md", "targets/a"], key=position_of)
        ['card.md', 'targets/a', 'targets/b']
    """
    folder, slash, _ = name.partition("/")
    return ORDER.index(folder + slash), name
