"""`st.export`: write a run for other programs, after a comparison with the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from striate.core.errors import StriateError
from striate.core.files import refuse_existing, write_files_together
from striate.core.findings import Column, Prose, Table
from striate.core.format import count_text, format_bytes
from striate.core.notebook import NotebookResult
from striate.exporters.bundle.minisign import sign_bundle
from striate.exporters.fold import fold_batch_norm
from striate.exporters.parity import ParityReport, ParityTarget, check_parity
from striate.exporters.trace_graph import trace_graph
from striate.run.run import Run
from striate.workflows.export.formats import FOLDERS, WRITERS, ExportSource, Files
from striate.workflows.export.options import (
    SUFFIXES,
    ExportOptions,
    ExportSettings,
)
from striate.workflows.export.pipeline import export_metadata, run_pipeline
from striate.workflows.export.samples import validation_samples


class ExportRefusedError(StriateError):
    """Error of an export whose answers differ from those of the run."""

    exit_code = 1


@dataclass(frozen=True, kw_only=True)
class ExportResult(NotebookResult):
    """The written files, and their comparison with the run."""

    paths: tuple[Path, ...]
    format: str
    input: str  # image, resized or tensor
    size: int  # bytes of all files
    report: ParityReport

    @property
    def path(self) -> Path:
        """Return the first file."""
        return self.paths[0]

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {
            "files": [str(path) for path in self.paths],
            "format": self.format,
            "input": self.input,
            "bytes": self.size,
            "parity": self.report.as_dict(),
        }

    @property
    def blocks(self) -> list[Prose | Table]:
        """Return the comparison as a table, and the files."""
        columns = (
            Column("stage"),
            Column("images", "integer"),
            Column("differing", "integer"),
            Column("largest difference"),
            Column("allowed"),
        )
        rows = tuple(
            (
                stage.stage,
                stage.images,
                stage.differing,
                f"{stage.max_difference:.1e}" if stage.max_difference else "0",
                f"{stage.tolerance:.1e}" if stage.tolerance else "0",
            )
            for stage in self.report.stages
            if stage.images
        )
        count = count_text(self.report.images, "validation image")
        text = f"The same class for {self.report.same_class:,} of {count}."
        return [
            Table(columns=columns, rows=rows, title="Comparison with the run"),
            Prose(text, "good"),
        ]

    def __str__(self) -> str:
        size = format_bytes(self.size)
        return f"{self.path}  {self.format}, {size}, input {self.input}"


def export(
    run: Run | str | Path,
    out: str | Path | None = None,
    **settings: Unpack[ExportSettings],
) -> ExportResult:
    """Write a run to a file for other programs: images in, probabilities out.

    The file is compared with the run on images of the validation split, stage by stage.
    If a stage differs, nothing is written.

    Args:
        run: A finished run, or its folder.
        out: The file; its suffix decides the format: `.onnx`, `.xml` (OpenVINO) or
            `.c`.
            Default: `NAME.onnx` in the folder `export` of the run.
        settings: Fields of `ExportOptions`, such as `input="resized"`, `verify=1000`.

    Raises:
        ExportRefusedError: The answers differ; the message names the first stage.
        UnsupportedOperationError: An operation of the network cannot be exported.
        RunError: The run is not finished, or a file exists.

    Example:
        >>> import striate as st  # doctest: +SKIP
        >>> st.export("runs/train/digits", "digits.onnx")  # doctest: +SKIP
    """
    run = run if isinstance(run, Run) else Run(run)
    options = ExportOptions(**settings)
    path = None if out is None else Path(out)
    name = options.format_of(path)
    if path is None:
        suffix = {kind: suffix for suffix, kind in SUFFIXES.items()}.get(name, "")
        path = run.path / "export" / f"{run.path.name}{suffix}"
    _refuse_existing(path, name, options.overwrite)
    pipeline = run_pipeline(run, options.threshold)
    samples = validation_samples(run, options.verify, "val")
    graph = trace_graph(pipeline.model, run.preprocess.spec.shape)
    source = ExportSource(
        name=path.stem,
        graph=fold_batch_norm(graph),
        pipeline=pipeline,
        options=options,
        metadata=export_metadata(run),
        samples=samples,
    )

    def check(target: ParityTarget) -> ParityReport:
        report = check_parity(target, pipeline, samples, tolerance=options.tolerance)
        refuse_difference(report, path)
        return report

    exported = WRITERS[name](source, check)
    paths = write_files(exported.files, path, folder=name in FOLDERS)
    if options.sign is not None:
        signature = sign_bundle(paths[0], options.sign, overwrite=options.overwrite)
        paths = (*paths, signature)
    return ExportResult(
        paths=paths,
        format=name,
        input=exported.input,
        size=sum(map(len, exported.files.values())),
        report=exported.report,
    )


def _refuse_existing(path: Path, name: str, overwrite: bool) -> None:
    refuse_existing(path, overwrite)
    for suffix in _FURTHER_FILES.get(name, ()):
        refuse_existing(path.with_suffix(suffix), overwrite)


def write_files(files: Files, path: Path, *, folder: bool) -> tuple[Path, ...]:
    """Write files by suffix, or by name below a folder: all of them or none."""
    contents = {
        path / key if folder else path.with_suffix(key): payload
        for key, payload in files.items()
    }
    write_files_together(contents)
    return tuple(contents)


def refuse_difference(report: ParityReport, path: Path) -> None:
    """Raise an error if the answers differ.

    Raises:
        ExportRefusedError: Names the first stage that differs, with its values.
    """
    stage = report.first_difference
    if stage is None:
        return
    images = f"{stage.differing:,} of {count_text(stage.images, 'image')}"
    if stage.stage == "classes":
        images = count_text(stage.differing, "class name")
    what = (
        f"not written: the exported network differs from the run at the stage "
        f"'{stage.stage}' ({images}; {stage.detail})"
    )
    raise ExportRefusedError(what, where=path, fix=_FIXES.get(stage.stage, _OTHER_FIX))


_FURTHER_FILES = {"openvino": (".bin",), "c": (".h", ".weights")}
_FIXES: Mapping[str, str] = {
    "decode": "Pillow decodes these files otherwise; save them as plain JPEG or PNG",
    "resize": "use --input resized, and resize the images with striate",
}
_OTHER_FIX = (
    "please report this network; a larger --tolerance accepts small differences"
)
