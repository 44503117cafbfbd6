"""Options of `striate export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from striate.core.errors import SettingError
from striate.core.registry import unknown_name_error
from striate.exporters.parity import LOGITS_TOLERANCE

FORMATS = ("onnx", "openvino", "c", "triton", "bundle")
SUFFIXES = {".onnx": "onnx", ".xml": "openvino", ".c": "c", ".striate": "bundle"}
VERIFIED_IMAGES = 100


class ExportSettings(TypedDict, total=False):
    """Keyword arguments of `st.export`, as the fields of `ExportOptions`."""

    format: str | None
    input: str | None
    outputs: tuple[str, ...]
    batch: int | None
    precision: str
    verify: int | None
    tolerance: float
    threshold: float
    sign: Path | None
    overwrite: bool


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Format, inputs and outputs of an exported file, and its comparison with the run.

    Raises:
        SettingError: A value is out of range.
    """

    format: str | None = None  # one of FORMATS; None: by the suffix of the file
    # image: 8-bit pixels of any size; resized: 8-bit pixels of the network's size;
    # tensor: normalized float32 values; None: image, for openvino resized
    input: str | None = None
    outputs: tuple[str, ...] = ("probabilities",)  # also logits, features, cam
    batch: int | None = None  # fixed batch size; None for any
    precision: str = "fp32"  # of the stored weights: fp32, or fp16 for openvino
    verify: int | None = VERIFIED_IMAGES  # validation images to compare; None for all
    # largest difference of the logits, relative to the largest logit if that exceeds 1
    tolerance: float = LOGITS_TOLERANCE
    threshold: float = 0.0  # probability below which the answer is `unknown`
    sign: Path | None = None  # secret key (minisign) that signs a bundle
    overwrite: bool = False  # replace existing files

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in FORMATS:
            raise unknown_name_error("export format", self.format, FORMATS)
        if self.precision not in ("fp32", "fp16"):
            raise unknown_name_error("precision", self.precision, ("fp32", "fp16"))
        if self.verify is not None and self.verify < 1:
            what = f"at least 1 image must be compared, got {self.verify}"
            raise SettingError(what, where="--verify")
        if not 0 < self.tolerance < 1:
            what = f"the tolerance must be between 0 and 1, got {self.tolerance:g}"
            raise SettingError(what, where="--tolerance")
        if not 0 <= self.threshold <= 1:
            what = f"the threshold must be 0–1, got {self.threshold:g}"
            raise SettingError(what, where="--threshold")

    def format_of(self, out: Path | None) -> str:
        """Return the format: as given, or by the suffix of the file.

        Example:
            >>> ExportOptions().format_of(Path("cats.xml"))
            'openvino'
        """
        suffix = "" if out is None else out.suffix.lower()
        name = self.format or SUFFIXES.get(suffix, "" if suffix else "onnx")
        if not name:
            what = f"the suffix {suffix} is that of no export format"
            fix = f"use one of {', '.join(SUFFIXES)}, or --to"
            raise SettingError(what, where=out, fix=fix)
        if self.precision == "fp16" and name != "openvino":
            what = f"fp16 is not available for {name}"
            raise SettingError(what, where="--precision", fix="use --to openvino")
        if self.sign is not None and name != "bundle":
            what = f"only bundles can be signed, not {name}"
            raise SettingError(what, where="--sign", fix="use --to bundle")
        return name
