"""Predict the classes of new images with a trained model."""

from __future__ import annotations

import argparse
import json

from striate.cli.command import add_flags, check_output_files, stdout_for_json
from striate.cli.run_flags import NETWORK_FLAGS, open_run
from striate.core.errors import SettingError
from striate.core.files import refuse_existing

# With --layers these flags would have no effect.
CLASS_FLAGS = ("top", "threshold", "operating_point", "html")

FLAGS = {
    "run_folder RUN": "run folder or its name",
    "images IMAGE+": "image file, folder, or quoted pattern such as 'photos/*.jpg'",
    "--top N": "number of most probable classes to show for each image (default 5)",
    "--threshold F": "mark images as 'needs review' if the probability of the "
    "predicted class is lower, 0-1",
    "--operating-point CLASS": "use the stored operating point of CLASS (see `striate "
    "evaluate --operating-point`), or of a file",
    "--out FILE": "output file: .csv or .json; with --layers: .safetensors, or .npy "
    "for one layer (default: print only)",
    "--html FILE": "write an HTML page with thumbnails; images that need review come "
    "first",
    "--overwrite": "replace output files that already exist",
    "--layers NAMES": "write the outputs (features) of these layers instead of "
    "classes; comma-separated names or patterns such as 'layer*'",
    **NETWORK_FLAGS,
}


def configure_predict(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `striate predict`."""
    add_flags(parser, FLAGS)


def run_predict(options: argparse.Namespace) -> int:
    """Predict and print the classes; return 1 if files could not be used."""
    check_output_files(options, "out", "html")
    if options.layers:
        return _write_features(options)
    top = 5 if options.top is None else options.top
    if top < 1:
        what = f"--top must be at least 1, got {top}"
        raise SettingError(what, where="--top", fix="give a number of classes")
    from striate.cli.printing import print_predictions
    from striate.core.files import write_text
    from striate.report.html import render_page
    from striate.workflows.predict.page import predictions_page

    run = open_run(options)
    with stdout_for_json(options):
        result = run.predict(
            options.images,
            threshold=options.threshold,
            operating_point=options.operating_point,
        )
    if options.out:
        result.save(options.out, options.overwrite)
    if options.html:
        write_text(options.html, render_page(predictions_page(run, result, top)))
    if options.json:
        print(json.dumps(result.as_dict()))
    else:
        print_predictions(result, top, options.html)
    return 1 if result.skipped else 0


def _write_features(options: argparse.Namespace) -> int:
    """Write the layer outputs (features) of the images to a file."""
    from striate.cli.printing import print_features
    from striate.run.predict_images import skipped_dict
    from striate.workflows.explain.features import features

    for name in CLASS_FLAGS:
        if getattr(options, name) is not None:
            flag = f"--{name.replace('_', '-')}"
            what = f"{flag} has no effect with --layers"
            raise SettingError(what, where=flag, fix=f"remove {flag} or --layers")
    if options.out is None:
        what = "the outputs of layers are too large to print"
        fix = "add --out rows.safetensors, or rows.npy for one layer"
        raise SettingError(what, where="--layers", fix=fix)
    refuse_existing(options.out.with_suffix(".csv"), options.overwrite)
    run = open_run(options)
    names = options.layers.split(",")
    with stdout_for_json(options):
        result = features(run, options.images, names, out=options.out)
    if options.json:
        layers = {name: list(shape) for name, shape in result.shapes.items()}
        data = {"file": str(options.out), "layers": layers, "images": result.paths}
        skipped = [*map(skipped_dict, result.skipped)]
        rest = {"skipped": skipped, "left_out": result.left_out}
        print(json.dumps({**data, **rest}))
    else:
        print_features(result, options.out)
    return 1 if result.skipped else 0
