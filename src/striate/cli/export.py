"""Export a run to ONNX, OpenVINO, C or a bundle: images in, probabilities out."""

from __future__ import annotations

import argparse
import json
from typing import Any

from striate.cli.command import add_flags, stdout_for_json
from striate.cli.run_flags import NETWORK_FLAGS, open_run
from striate.core.errors import SettingError

FLAGS = {
    "run_folder RUN": "run folder or its name",
    "--to {onnx,openvino,c,triton,bundle}": "file format (default: by the suffix of "
    "--out, else onnx)",
    "--out FILE": "output file: .onnx, .xml for OpenVINO, .c, .striate for a bundle; "
    "for Triton a folder (default: in the folder `export` of the run)",
    "--input {image,resized,tensor}": "what the file takes: 8-bit images of any size, "
    "8-bit images of the network's size, or normalized tensors (default: image; for "
    "OpenVINO resized)",
    "--outputs NAMES": "comma-separated names: probabilities, logits, features, cam "
    "(default: probabilities)",
    "--batch SIZE": "batch size, or dynamic for any (default: dynamic)",
    "--precision {fp32,fp16}": "type of the stored weights; fp16 for OpenVINO only "
    "(default: fp32)",
    "--verify COUNT": "number of validation images on which the file is compared with "
    "the run, or all (default: 100)",
    "--tolerance F": "largest allowed difference of a logit; relative to the largest "
    "logit if that exceeds 1 (default: 0.0001)",
    "--threshold F": "probability below which the answer is `unknown`, 0-1 (default: "
    "0, never)",
    "--sign FILE": "sign the bundle with this secret key of minisign",
    "--overwrite": "replace files that already exist",
    **NETWORK_FLAGS,
}


def configure_export(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `striate export`."""
    add_flags(parser, FLAGS)


def run_export(options: argparse.Namespace) -> int:
    """Export the run and print the comparison; return 1 if the export is refused."""
    settings = _settings(options)
    from striate.cli.printing import console
    from striate.report.terminal import print_blocks
    from striate.workflows.export.export import export

    run = open_run(options)
    with stdout_for_json(options):
        result = export(run, options.out, **settings)
    if options.json:
        print(json.dumps(result.as_dict()))
        return 0
    out = console()
    print_blocks(result.blocks, out)
    for path in result.paths:
        out.print(f"written  {path}", markup=False)
    return 0


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the given flags as keyword arguments of `st.export`."""
    settings: dict[str, Any] = {
        "format": options.to,
        "input": options.input,
        "precision": options.precision,
        "tolerance": options.tolerance,
        "threshold": options.threshold,
        "sign": options.sign,
        "overwrite": options.overwrite,
    }
    if options.outputs:
        settings["outputs"] = tuple(options.outputs.split(","))
    if options.batch not in (None, "dynamic"):
        settings["batch"] = _count(options.batch, "--batch", "dynamic")
    if options.verify == "all":
        return {**_given(settings), "verify": None}
    if options.verify is not None:
        settings["verify"] = _count(options.verify, "--verify", "all")
    return _given(settings)


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if value is not None}


def _count(text: str, flag: str, word: str) -> int:
    if not text.isdecimal():
        what = f"{flag} needs a number or '{word}', got '{text}'"
        raise SettingError(what, where=flag)
    return int(text)
