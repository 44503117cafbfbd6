"""Write the tensors of a weights file to a file of another format."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from striate.cli.command import add_flags, stdout_for_json

FLAGS = {
    "source IN": "a .safetensors, .pth or .pt file, or a run (for its best weights)",
    "--trust": "open a .pth or .pt file that has other objects than tensors; this runs "
    "code in the file",
    "--overwrite": "replace the file OUT if it exists",
}


def configure_weights_convert(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `striate weights convert`."""
    add_flags(parser, FLAGS)
    text = "file to write; its suffix gives the format: .safetensors, .pth or .pt"
    parser.add_argument("out", metavar="OUT", type=Path, help=text)


def run_weights_convert(options: argparse.Namespace) -> int:
    """Convert the weights, and print the new file with its hash."""
    from striate.cli.printing import console
    from striate.core.format import count_text
    from striate.workflows.weights_convert.convert import convert_weights

    with stdout_for_json(options):
        result = convert_weights(
            options.source,
            options.out,
            trust=options.trust,
            overwrite=options.overwrite,
        )
    if options.json:
        print(json.dumps(asdict(result), default=str))
        return 0
    out = console()
    count = count_text(result.tensors, "tensor")
    text = f"{result.path}  {count}, {count_text(result.values, 'value')}, unchanged"
    out.print(text, markup=False)
    out.print(f"sha256  {result.sha256}", markup=False)
    if result.left_out:
        text = f"not weights, left out: {', '.join(result.left_out)}"
        out.print(text, style="yellow", markup=False)
    return 0
