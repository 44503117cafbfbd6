"""Race engines and 8-bit integers on this machine, and write the fastest variant."""

from __future__ import annotations

import argparse
import json
from typing import Any

from striate.cli.command import add_flags, stdout_for_json
from striate.cli.run_flags import NETWORK_FLAGS, open_run

FLAGS = {
    "run_folder RUN": "run folder or its name",
    "--goal {latency,size,both}": "what to improve: the time for one image, the size "
    "of the file, or both (default: latency)",
    "--max-drop F": "percentage points of accuracy that a variant may lose, with 95 %% "
    "confidence (default: 0.5)",
    "--methods NAMES": "comma-separated: engine (other programs than PyTorch), int8 "
    "(8-bit integers); default: both",
    "--budget TIME": "time for the measurements, such as 90s, 30m or 1h (default: 30m)",
    "--out DIR": "output folder (default: the folder `optimized` of the run)",
    "--overwrite": "replace files that already exist",
    **NETWORK_FLAGS,
}


def configure_optimize(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `striate optimize`."""
    add_flags(parser, FLAGS)


def run_optimize(options: argparse.Namespace) -> int:
    """Race the engines, and print the table and the recommendation."""
    settings = _settings(options)
    from striate.cli.printing import console
    from striate.report.terminal import print_blocks
    from striate.workflows.optimize.optimize import optimize

    run = open_run(options)
    with stdout_for_json(options):
        result = optimize(run, options.out, **settings)
    if options.json:
        print(json.dumps(result.as_dict()))
        return 0
    out = console()
    print_blocks(result.blocks, out)
    for path in result.paths:
        out.print(f"written  {path}", markup=False)
    return 0


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the given flags as keyword arguments of `st.optimize`."""
    settings: dict[str, Any] = {
        "goal": options.goal,
        "max_drop": options.max_drop,
        "overwrite": options.overwrite,
    }
    if options.methods is not None:
        settings["methods"] = tuple(options.methods.split(","))
    if options.budget is not None:
        from striate.workflows.optimize.options import parse_budget

        settings["budget"] = parse_budget(options.budget)
    return {key: value for key, value in settings.items() if value is not None}
