"""Summarize a network without running it: shapes, MACs, memory, receptive fields."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from striate.cli.command import add_flags, check_output_files
from striate.cli.run_flags import TRUST_FLAG

if TYPE_CHECKING:
    from striate.audit.network import ForwardError
    from striate.workflows.summary.summary import Summary

INPUT_FLAGS = {
    "--image-size SIZE": "input size in pixels, or HEIGHTxWIDTH (default: that of the "
    "network)",
    "--in-chans N": "number of input channels (default: that of the network)",
    "--num-classes N": "number of classes (default: that of the network)",
}
FLAGS = {
    "target TARGET": "network: a name listed by `striate models`; FILE.py:CLASS "
    "(executes the file); a run folder; or a sketch such as '28x28x1 > conv 5x5 8 "
    "same > pool 2 > dense 10'",
    "--against OTHER": "second TARGET to compare with, side by side",
    "--explain LAYER": "show how each number in the table row of this layer is "
    "computed",
    "--depth N": "maximum depth of nested modules to show (default: all)",
    **INPUT_FLAGS,
    "--batch-size N": "batch size used to estimate training memory (default 32)",
    "--real": "run one real forward pass, for models that depend on tensor values",
    "--effective DATA": "measure effective receptive fields on images of this data set",
    "--csv FILE": "write the layer table to this CSV file",
    "--html FILE": "write an HTML report",
    "--overwrite": "replace output files that already exist",
    **TRUST_FLAG,
}


STDOUT = "-"  # value of --code without a file


def configure_summary(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `striate summary`."""
    add_flags(parser, FLAGS, batch_size=32)
    text = "write the network as Python code that needs only torch, to FILE or to "
    text += "stdout; for a name, a sketch, or a run of one of them"
    parser.add_argument("--code", nargs="?", const=STDOUT, metavar="FILE", help=text)


def run_summary(options: argparse.Namespace) -> int:
    """Print a network summary; after an error, print the layers that ran before it."""
    check_output_files(options, "csv", "html")
    if options.code:
        return _write_code(options)
    from striate.audit.network import ForwardError
    from striate.workflows.summary.summary import save_csv, save_html, summary_page

    try:
        first = _summary(options, options.target)
        second = _summary(options, options.against) if options.against else None
    except ForwardError as error:
        if not options.json:
            _print_partial(error, options.depth)
        raise
    page = summary_page(first, second, options.explain)
    if options.csv:
        save_csv(first.table, options.csv)
    if options.html:
        save_html(page, options.html)
    if options.json:
        print(json.dumps(_data(first, second, options.explain)))
    else:
        _print(first, second, options.explain)
    return 0


def _write_code(options: argparse.Namespace) -> int:
    """Write the code of the network to stdout or to a file."""
    from striate.core.errors import SettingError
    from striate.core.files import refuse_existing, write_text
    from striate.run.resolve_model import SummaryRequest
    from striate.workflows.summary.summary import standalone_code

    for name in ("against", "explain", "effective", "csv", "html", "depth", "real"):
        if getattr(options, name):
            what, fix = f"--{name} has no effect with --code", f"remove --{name}"
            raise SettingError(what, where=f"--{name}", fix=fix)
    path = None if options.code == STDOUT else Path(options.code)
    if path is not None:
        refuse_existing(path, options.overwrite)
    request = SummaryRequest(
        image_size=image_size_option(options.image_size),
        in_chans=options.in_chans,
        num_classes=options.num_classes,
    )
    code = standalone_code(options.target, request)
    if path is not None:
        write_text(path, code)
    if options.json:
        print(json.dumps({"file": path and str(path), "code": code}))
    elif path is None:
        print(code, end="")
    else:
        print(f"code    {path}")
    return 0


def _summary(options: argparse.Namespace, target: str) -> Summary:
    from striate.workflows.summary.summary import summary

    # Output of a user's file must not mix with JSON.
    with redirect_stdout(sys.stderr):
        return summary(
            target,
            batch_size=options.batch_size,
            depth=options.depth,
            real=options.real,
            image_size=image_size_option(options.image_size),
            in_chans=options.in_chans,
            num_classes=options.num_classes,
            effective=options.effective,
            trust=options.trust,
        )


def image_size_option(text: str | None) -> int | tuple[int, int] | None:
    """Parse the value of --image-size: `N` or `HEIGHTxWIDTH`."""
    from striate.core.errors import SettingError
    from striate.core.format import parse_image_size

    if text is None:
        return None
    try:
        return parse_image_size(text)
    except ValueError:
        what, fix = f"'{text}' is not an image size", "write 224 or 224x320"
        raise SettingError(what, where="--image-size", fix=fix) from None


def _data(
    first: Summary, second: Summary | None, layer: str | None
) -> dict[str, object]:
    from striate.report.table_records import records
    from striate.workflows.summary.summary import compare_summaries

    data = first.as_dict()
    if second is not None:
        data["against"] = second.as_dict()
        data["side_by_side"] = records(compare_summaries(first, second))
    if layer is not None:
        data["explain"] = records(first.explain(layer))
    return data


def _print(first: Summary, second: Summary | None, layer: str | None) -> None:
    from striate.cli.printing import console
    from striate.report.terminal import print_blocks
    from striate.workflows.summary.summary import compare_summaries

    out = console()
    if layer is not None:
        print_blocks([first.explain(layer)], out)
        return
    if second is not None:
        print_blocks([compare_summaries(first, second)], out)
        for each in (first, second):
            out.print(f"{each.name}  {each.image}\n", style="bold", markup=False)
            print_blocks([each.table], out)
        return
    out.print(f"{first.name}  {first.image}\n", style="bold", markup=False)
    print_blocks(first.blocks, out)


def _print_partial(error: ForwardError, depth: int | None) -> None:
    from striate.audit.findings import layer_table
    from striate.cli.printing import console
    from striate.report.terminal import print_blocks

    if error.audit.layers:
        title = "Layers that ran before the error"
        print_blocks([layer_table(error.audit, depth, title)], console())
