"""Predict the classes of new images with a trained model."""

from __future__ import annotations

import argparse
import json

from striate.cli.command import add_flags

FLAGS = {
    "run_folder RUN": "run folder or its name",
    "images IMAGE+": "image file, folder, or quoted pattern such as 'photos/*.jpg'",
    "--out FILE": "output file: .csv or .json; with --layers: .safetensors, or .npy "
    "for one layer (default: print only)",
    "--layers NAMES": "write the outputs (features) of these layers instead of "
    "classes; comma-separated names or patterns such as 'layer*'",
}


def configure_predict(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `striate predict`."""
    add_flags(parser, FLAGS)


def run_predict(options: argparse.Namespace) -> int:
    """Predict and print the classes; return 1 if files could not be used."""
    if options.layers:
        return _write_features(options)
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


def _write_features(options: argparse.Namespace) -> int:
    """Write the layer outputs (features) of the images to a file."""
    from striate.cli.printing import print_features
    from striate.core.errors import SettingError
    from striate.run.run import Run
    from striate.workflows.explain.features import features

    if options.out is None:
        what = "the outputs of layers are too large to print"
        fix = "add --out rows.safetensors, or rows.npy for one layer"
        raise SettingError(what, where="--layers", fix=fix)
    run = Run(options.run_folder)
    names = options.layers.split(",")
    result = features(run, options.images, names, out=options.out)
    if options.json:
        layers = {name: list(shape) for name, shape in result.shapes.items()}
        data = {"file": str(options.out), "layers": layers, "images": result.paths}
        keys = "path", "reason", "detail"
        skipped = [{key: getattr(s, key) for key in keys} for s in result.skipped]
        print(json.dumps({**data, "skipped": skipped}))
    else:
        print_features(result, options.out)
    return 1 if result.skipped else 0
