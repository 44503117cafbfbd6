"""Contents of the bundle of a run: network, golden images, card, certificate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from striate.core.errors import SettingError
from striate.core.format import count_text
from striate.exporters.bundle.contents import (
    INPUTS,
    LOGITS,
    PROBABILITIES,
    BundleContents,
)
from striate.exporters.graph import NetworkGraph
from striate.exporters.parity import NetworkPipeline, ParityReport, ParitySample
from striate.exporters.portable_decode import encode_png
from striate.report.format import percent

GOLDEN_IMAGES = 20
BUNDLED_ONNX = "model.onnx"


def bundle_contents(
    *,
    graph: NetworkGraph,
    pipeline: NetworkPipeline,
    samples: Sequence[ParitySample],
    metadata: Mapping[str, Any],
    reports: Mapping[str, ParityReport],
    onnx: bytes,
) -> BundleContents:
    """Return the contents of a bundle.

    Args:
        graph: The network, with batch normalization folded.
        pipeline: The network of the run, its preprocessing and probabilities.
        samples: Validation images; the first 20 become the golden images.
        metadata: Name, network, metrics and versions of the run.
        reports: Comparisons with the run, by target.
        onnx: ONNX file of the same network.

    Raises:
        SettingError: The images are neither gray nor RGB.
    """
    golden = samples[:GOLDEN_IMAGES]
    if pipeline.preprocess.channels not in (1, 3):
        channels = count_text(pipeline.preprocess.channels, "channel")
        what = f"a bundle holds image files, and the images have {channels}"
        raise SettingError(what, where="--to bundle", fix="use --to onnx")
    resized = pipeline.resized(golden)
    logits = pipeline.logits(pipeline.normalized(resized))
    values = pipeline.probabilities.as_dict()
    classes = values.pop("classes")
    return BundleContents(
        graph=graph,
        preprocess=pipeline.preprocess,
        classes=classes,
        calibration=values,
        card=model_card(metadata, pipeline),
        certificate={name: report.as_dict() for name, report in reports.items()},
        provenance=metadata,
        golden_images=_image_files(golden),
        golden_arrays={
            INPUTS: resized,
            LOGITS: logits,
            PROBABILITIES: pipeline.probabilities(logits),
        },
        targets={BUNDLED_ONNX: onnx},
        versions=metadata.get("versions", {}),
    )


def _image_files(samples: Sequence[ParitySample]) -> dict[str, bytes]:
    """Return the original files; images that are only arrays become PNG files."""
    files = {}
    for index, sample in enumerate(samples):
        suffix = PurePosixPath(sample.path).suffix.lower() if sample.file else ".png"
        payload = sample.file or encode_png(sample.pixels)
        files[f"{index:02}{suffix}"] = payload
    return files


def model_card(metadata: Mapping[str, Any], pipeline: NetworkPipeline) -> str:
    """Return a model card in Markdown: purpose, metrics with intervals, limits."""
    preprocess, classes = pipeline.preprocess, pipeline.probabilities.classes
    lines = [
        f"# {_plain(metadata.get('run', 'network'))}",
        "",
        f"Image classifier ({_plain(metadata.get('network', ''))}) with "
        f"{count_text(len(classes), 'class', 'classes')}; input {preprocess.spec}.",
        "",
        "| split | images | accuracy | 95 % interval |",
        "|---|---|---|---|",
    ]
    for split, scores in metadata.get("metrics", {}).items():
        if "accuracy" not in scores:
            continue
        low, high = scores.get("interval") or (0.0, 1.0)
        lines.append(
            f"| {split} | {scores.get('count', '')} | {percent(scores['accuracy'])} | "
            f"{percent(low)} to {percent(high)} |"
        )
    limits = (
        "The accuracy holds for images like those of the training data set. The "
        "network has no class for anything else: it gives one of its classes to every "
        "image."
    )
    names = ", ".join(_plain(name) for name in classes[:50])
    return "\n".join([*lines, "", f"Classes: {names}", "", limits, ""])


def _plain(text: object) -> str:
    """Return a text on one line, without characters that have a meaning in Markdown."""
    return " ".join("".join(c for c in str(text) if c not in "|`*_<>[]").split())
