"""Name the class of new images: files, folders or patterns."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from striate.workflows.explain.features import Features


def configure_predict(parser: argparse.ArgumentParser) -> None:
    """Add the run, the images, and where to keep the answers."""
    parser.add_argument("run_folder", metavar="RUN", help="a run folder, or its name")
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="file, folder or 'pattern'"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="a .csv or .json; with --layers a .safetensors, or a .npy for one layer",
    )
    parser.add_argument(
        "--layers",
        metavar="NAMES",
        help="give what these layers make of the images in place of classes: names "
        "and 'patterns', with commas; nothing after the last of them runs",
    )


def run_predict(options: argparse.Namespace) -> int:
    """Predict and print; with files that could not be used the exit code is 1."""
    if options.layers:
        return _inner(options)
    from striate.cli.printing import print_predictions
    from striate.run.run import Run
    from striate.workflows.predict.predict import predict

    result = predict(Run(options.run_folder), options.images)
    if options.out:
        result.save(options.out)
    if options.json:
        print(json.dumps(result.as_dict()))
    else:
        print_predictions(result)
    return 1 if result.skipped else 0


def _inner(options: argparse.Namespace) -> int:
    """Write inner outputs to a file, batch by batch."""
    from striate.cli.printing import print_features
    from striate.core.errors import SettingError
    from striate.run.run import Run
    from striate.workflows.explain.features import features

    if options.out is None:
        what = "inner outputs are too large to print"
        fix = "add --out rows.safetensors, or rows.npy for one layer"
        raise SettingError(what, where="--layers", fix=fix)
    run = Run(options.run_folder)
    names = options.layers.split(",")
    found = features(run, options.images, names, out=options.out)
    if options.json:
        print(json.dumps(_as_data(found, options.out)))
    else:
        print_features(found, options.out)
    return 1 if found.skipped else 0


def _as_data(found: Features, out: Path) -> dict[str, Any]:
    skipped = [
        {"path": s.path, "reason": s.reason, "detail": s.detail} for s in found.skipped
    ]
    layers = {name: list(shape) for name, shape in found.shapes.items()}
    return {
        "file": str(out),
        "layers": layers,
        "images": list(found.paths),
        "skipped": skipped,
    }
