"""Show a network without running it: shapes, cost, memory, receptive fields."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from striate.audit.network import ForwardError
    from striate.workflows.summary.summary import Summary


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the network, its image, and what to make of it."""
    parser.add_argument(
        "target",
        metavar="TARGET",
        help="a name of `striate models`; FILE.py:CLASS, which runs your file; a run "
        "folder; or a sketch: '28x28x1 > conv 5x5 8 same > pool 2 > dense 10'",
    )
    parser.add_argument(
        "--against", metavar="OTHER", help="a second TARGET, side by side"
    )
    parser.add_argument(
        "--explain", metavar="LAYER", help="write a layer's arithmetic out"
    )
    parser.add_argument("--depth", type=int, metavar="N", help="unite deeper modules")
    parser.add_argument("--image-size", metavar="SIZE", help="side, or HEIGHTxWIDTH")
    parser.add_argument("--in-chans", type=int, metavar="N", help="image channels")
    parser.add_argument("--num-classes", type=int, metavar="N", help="outputs")
    parser.add_argument(
        "--batch-size",
        type=int,
        default=32,
        metavar="N",
        help="of a training step (32)",
    )
    parser.add_argument(
        "--real",
        action="store_true",
        help="compute one image, where a network looks at values",
    )
    parser.add_argument(
        "--effective",
        metavar="DATA",
        help="measure effective receptive fields on some of these images",
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="keep the layers")
    parser.add_argument("--html", type=Path, metavar="FILE", help="keep a report")


def run(options: argparse.Namespace) -> int:
    """Summarize and print; of a network that stops half way, what ran is shown."""
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


def _summary(options: argparse.Namespace, target: str) -> Summary:
    from striate.workflows.summary.summary import summary

    # What a user's file prints must not end up inside JSON.
    with redirect_stdout(sys.stderr):
        return summary(
            target,
            batch_size=options.batch_size,
            depth=options.depth,
            real=options.real,
            image_size=size_of(options.image_size),
            in_chans=options.in_chans,
            num_classes=options.num_classes,
            effective=options.effective,
        )


def size_of(text: str | None) -> int | tuple[int, int] | None:
    """Read a side, or HEIGHTxWIDTH, from the command line."""
    from striate.core.errors import SettingError
    from striate.core.format import parse_image_size

    if text is None:
        return None
    try:
        return parse_image_size(text)
    except ValueError:
        what, fix = f"'{text}' is no image size", "write 224 or 224x320"
        raise SettingError(what, where="--image-size", fix=fix) from None


def _data(
    first: Summary, second: Summary | None, layer: str | None
) -> dict[str, object]:
    from striate.report.records import records
    from striate.workflows.summary.summary import compare_summaries

    data = first.as_dict()
    if second is not None:
        data["against"] = second.as_dict()
        data["side_by_side"] = records(compare_summaries(first, second))
    if layer is not None:
        data["explain"] = records(first.explain(layer))
    return data


def _print(first: Summary, second: Summary | None, layer: str | None) -> None:
    from striate.cli.printing import wide_console
    from striate.report.terminal import show
    from striate.workflows.summary.summary import compare_summaries

    out = wide_console()
    if layer is not None:
        show([first.explain(layer)], out)
        return
    if second is not None:
        show([compare_summaries(first, second)], out)
        for one in (first, second):
            out.print(f"{one.name}  {one.image}\n", style="bold", markup=False)
            show([one.table], out)
        return
    out.print(f"{first.name}  {first.image}\n", style="bold", markup=False)
    show(first.blocks, out)


def _print_partial(error: ForwardError, depth: int | None) -> None:
    from striate.audit.findings import layer_table
    from striate.cli.printing import wide_console
    from striate.report.terminal import show

    if error.audit.layers:
        title = "What ran before it stopped"
        show([layer_table(error.audit, depth, title)], wide_console())
