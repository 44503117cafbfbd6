"""`striate bundle show`: what a bundle contains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from striate.core.findings import Column, Prose, Table
from striate.core.format import count_text, format_bytes
from striate.core.notebook import NotebookResult
from striate.exporters.bundle.contents import NETWORK
from striate.exporters.bundle.minisign import signature_path
from striate.exporters.bundle.read import Bundle, open_bundle
from striate.exporters.bundle.strict_json import json_from_bytes
from striate.report.format import one_line, percent

MAX_CLASSES = 20  # class names shown


@dataclass(frozen=True)
class BundleFacts(NotebookResult):
    """Contents of a bundle, for the terminal and as JSON."""

    bundle: Bundle

    def as_dict(self) -> dict[str, Any]:
        """Return the contents as JSON values."""
        bundle = self.bundle
        return {
            "bundle": str(bundle.path),
            "classes": list(bundle.classes),
            "preprocess": bundle.preprocess.as_dict(),
            "calibration": dict(bundle.calibration),
            "provenance": dict(bundle.provenance),
            "certificate": dict(bundle.certificate),
            "files": bundle.entry_names,
            "signature": signature_path(bundle.path).exists(),
        }

    @property
    def blocks(self) -> list[Prose | Table]:
        """Return tables of the facts, the metrics and the certificate."""
        return [self._facts(), *self._metrics(), self._certificate()]

    def _facts(self) -> Table:
        bundle, origin = self.bundle, self.bundle.provenance
        network = json_from_bytes(bundle.read(NETWORK), NETWORK)
        names = [one_line(name) for name in bundle.classes]
        shown = ", ".join(names[:MAX_CLASSES])
        if len(names) > MAX_CLASSES:
            shown += f" … and {len(names) - MAX_CLASSES:,} more"
        size = format_bytes(bundle.path.stat().st_size)
        signature = "beside the bundle" if self.as_dict()["signature"] else "none"
        rows = (
            ("run", one_line(str(origin.get("run", "")))),
            ("network", one_line(str(origin.get("network", "")))),
            ("operations", count_text(len(network["nodes"]), "operation")),
            ("input", f"{bundle.preprocess.spec}, {bundle.preprocess.resize}"),
            ("classes", f"{len(names):,}: {shown}"),
            ("temperature", f"{bundle.calibration.get('temperature', 1):.3g}"),
            ("golden images", str(len(bundle.golden_names))),
            ("targets", ", ".join(bundle.target_names)),
            ("size", size),
            ("signature", signature),
        )
        title = one_line(bundle.path.name)
        return Table(columns=(Column("fact"), Column("value")), rows=rows, title=title)

    def _metrics(self) -> list[Table]:
        metrics: Mapping[str, Any] = self.bundle.provenance.get("metrics", {})
        rows = tuple(
            (one_line(split), scores.get("count"), _accuracy(scores))
            for split, scores in metrics.items()
            if "accuracy" in scores
        )
        columns = Column("split"), Column("images", "integer"), Column("accuracy")
        return [Table(columns=columns, rows=rows, title="Metrics")] if rows else []

    def _certificate(self) -> Table:
        rows = tuple(
            (
                one_line(target),
                one_line(str(stage["stage"])),
                stage["images"],
                "equal" if stage["equal"] else "differs",
                f"{stage['max_difference']:.1e}",
            )
            for target, report in self.bundle.certificate.items()
            for stage in report["stages"]
            if stage["images"]
        )
        columns = (
            Column("target"),
            Column("stage"),
            Column("images", "integer"),
            Column("result"),
            Column("largest difference"),
        )
        return Table(columns=columns, rows=rows, title="Comparison with the run")

    def __str__(self) -> str:
        return f"{self.bundle!r}"


def _accuracy(scores: Mapping[str, Any]) -> str:
    text = percent(scores["accuracy"])
    if not scores.get("interval"):
        return text
    low, high = scores["interval"]
    return f"{text} ({percent(low)} to {percent(high)})"


def show_bundle(path: str | Path) -> BundleFacts:
    """Open a bundle and return what it contains; every byte is checked.

    Raises:
        BundleError: The bundle is damaged, forged, or made by a newer striate.
    """
    return BundleFacts(open_bundle(path))
