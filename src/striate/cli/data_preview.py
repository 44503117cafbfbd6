"""Show images before and after preprocessing, for every resize mode."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from striate.cli.command import add_flags, check_output_files
from striate.cli.train import add_setting
from striate.core.settings import AUTO
from striate.run.parse_settings import make_recipe, parse_setting, setting_fields

# The settings of a run that affect preprocessing.
SETTINGS = (
    *("image_size", "in_chans", "resize", "background", "white_level", "jpeg"),
    *("normalize", "mean", "std", "seed", "cache", "cache_gb"),
)

DEFAULT_OUT = Path("preview.html")
FLAGS = {
    "--count N": "number of images to show (default 6)",
    "--out FILE": "HTML file to write (default preview.html, or preview-2.html … if it "
    "exists)",
    "--overwrite": "replace the file given by --out",
}


def configure_data_preview(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `striate data preview`."""
    parser.add_argument("data", metavar="DATA", help="images, as for `striate train`")
    for field in setting_fields(SETTINGS):
        add_setting(parser, field, field.default)
    add_flags(parser, FLAGS, count=6)


def run_data_preview(options: argparse.Namespace) -> int:
    """Write the HTML page and print a summary."""
    given = vars(options)
    settings = {n: parse_setting(n, given[n]) for n in SETTINGS if n in given}
    check_output_files(options, "out")
    make_recipe({"data": options.data, **settings})  # refuses what is out of range
    if settings.get("normalize") == AUTO:
        del settings["normalize"]

    from striate.cli.printing import console, print_set
    from striate.core.files import next_free_file, write_text
    from striate.report.html import render_page
    from striate.report.terminal import print_blocks
    from striate.workflows.data_preview.findings import (
        preview_page,
        preview_summary,
        rule_table,
    )
    from striate.workflows.data_preview.preview import preview

    result = preview(options.data, count=options.count, **settings)
    out_file = options.out or next_free_file(DEFAULT_OUT)
    write_text(out_file, render_page(preview_page(result)))
    if options.json:
        print(json.dumps({"page": str(out_file), **result.as_dict()}))
        return 0
    out = console()
    print_set(result.data)
    print_blocks([*preview_summary(result), rule_table(result)], out)
    out.print(f"page  {out_file}", markup=False)
    return 0
