"""Explain predictions: heatmaps, feature maps, and how one unit's value is computed."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

from striate.cli.command import add_flags, stdout_for_json
from striate.cli.run_flags import NETWORK_FLAGS
from striate.cli.summary import INPUT_FLAGS, image_size_option

if TYPE_CHECKING:
    from striate.workflows.explain.load_model import LoadedModel
    from striate.workflows.explain.options import Channels, ExplainOptions, OnProgress

FLAGS = {
    "network TARGET": "run folder or its name; or a name listed by `striate models`, "
    "with --weights; or FILE.py:CLASS (executes the file); or a sketch",
    "images IMAGE*": "image file, folder, or quoted pattern such as 'photos/*.jpg' "
    "(default for a run: the most confident correct prediction and the highest-loss "
    "error)",
    "--target CLASS": "class to explain: its name, or #INDEX from 0 (default: the "
    "predicted class)",
    "--against CLASS": "second class: explain the score of --target minus that of "
    "this class",
    "--method NAMES": "heatmap methods, comma-separated: auto (cam or gradcam), cam, "
    "gradcam, gradcam++, layercam, scorecam, occlusion, integrated_gradients (default "
    "auto,occlusion,integrated_gradients)",
    "--layer NAME": "target layer of the CAM methods (default: the last layer whose "
    "feature maps are at least 4×4)",
    "--unit UNIT": "unit (one output value of a layer) whose arithmetic the report "
    "shows, as 'LAYER CHANNEL,ROW,COLUMN' (default: the largest value in the target "
    "layer)",
    "--visualize CHANNELS": "add images optimized for channels of a layer, as "
    "'LAYER CHANNEL,CHANNEL…'",
    "--ablate CHANNELS": "add the change of logits and accuracy if channels of a layer "
    "are set to zero or to their mean, as 'LAYER CHANNEL,CHANNEL…'",
    "--open UNIT": "only print how the value of one unit is computed: 'conv2 3,10,12' "
    "(layer channel,row,column) or 'output 7' (logit of class 7)",
    "--sections NAMES": "extra report sections for a run, comma-separated: dataset "
    "(heatmaps of many images), invariance (robustness to transforms), depth "
    "(gradient norms by layer), nonlinearity (why activation functions are needed)",
    "--weights FILE": "weights file of TARGET: .safetensors, .pth or .pt",
    **NETWORK_FLAGS,
    "--trust": "execute the network code of a run folder from another machine, or code "
    "in the file of --weights",
    **INPUT_FLAGS,
    "--seed N": "random seed of the sanity checks (default 0)",
    "--out DIR": "output folder (default runs/explain/NAME)",
    "--overwrite": "replace the folder given by --out",
}
METHODS = "auto,occlusion,integrated_gradients"


def configure_explain(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `striate explain`."""
    add_flags(parser, FLAGS, method=METHODS, layer="auto", seed=0)


def run_explain(options: argparse.Namespace) -> int:
    """Write the explanation report, or print the arithmetic of one unit."""
    from striate.report.progress import stage_progress
    from striate.workflows.explain.explain import explain_images

    # Output of a user's file must not end up in the JSON.
    with redirect_stdout(sys.stderr):
        loaded = _model(options)
    if options.open:
        return _open(options, loaded)
    with (
        stdout_for_json(options),
        stage_progress(quiet=options.json) as on_progress,
    ):
        request = _request(options, on_progress)
        explanation = explain_images(
            loaded, options.images, request, options.out, options.overwrite
        )
    if options.json:
        print(json.dumps({"folder": str(explanation.folder), **explanation.data}))
        return 0
    from striate.cli.printing import print_explanation

    print_explanation(explanation, loaded.remarks)
    return 0


def _model(options: argparse.Namespace) -> LoadedModel:
    from striate.run.resolve_model import SummaryRequest
    from striate.workflows.explain.load_model import load_model

    summary_request = SummaryRequest(
        image_size=image_size_option(options.image_size),
        in_chans=options.in_chans,
        num_classes=options.num_classes,
    )
    return load_model(
        options.network,
        summary_request,
        options.weights,
        model=options.model,
        trust=options.trust,
    )


def _request(options: argparse.Namespace, on_progress: OnProgress) -> ExplainOptions:
    from striate.workflows.explain.options import ExplainOptions

    return ExplainOptions(
        target=_class(options.target),
        against=_class(options.against),
        methods=tuple(options.method.split(",")),
        layer=options.layer,
        unit=_unit(options.unit, "--unit") if options.unit else None,
        visualize=_channels(options.visualize, "--visualize"),
        ablate=_channels(options.ablate, "--ablate"),
        seed=options.seed,
        sections=tuple(options.sections.split(",")) if options.sections else (),
        on_progress=on_progress,
    )


def _class(word: str | None) -> str | int | None:
    """Return the class name, or the class index if the text is `#INDEX`."""
    if word is not None and word.startswith("#") and word[1:].isdecimal():
        return int(word[1:])
    return word


def _open(options: argparse.Namespace, loaded: LoadedModel) -> int:
    from striate.cli.printing import console
    from striate.interpret.arithmetic.tree import arithmetic_tree
    from striate.interpret.arithmetic.unit_arithmetic import UnitArithmetic
    from striate.interpret.arithmetic.worked_example import (
        nearest_convolution,
        worked_example,
    )
    from striate.report.terminal import print_blocks
    from striate.workflows.explain.images import read_images, run_images

    name, unit = _unit(options.open, "--open")
    paths = options.images
    images = read_images(loaded, paths) if paths else run_images(loaded)
    arithmetic = UnitArithmetic(loaded.model, images[0].x)
    names = loaded.labels.names if loaded.labels else ()
    tree = arithmetic_tree(arithmetic, name, unit, names, lines=24)
    entry = nearest_convolution(arithmetic, arithmetic.open(name, unit))
    table = None if entry is None else worked_example(arithmetic, entry)
    if options.json:
        from striate.report.table_records import table_dict, tree_dicts

        example = None if table is None else table_dict(table)
        result = {"image_path": images[0].name, "tree": tree_dicts(tree)}
        print(json.dumps({**result, "worked_example": example}))
        return 0
    out = console()
    out.print(images[0].name, style="bold", markup=False)
    print_blocks([tree] if table is None else [tree, table], out)
    return 0


def _channels(text: str | None, flag: str) -> Channels | None:
    if text is None:
        return None
    fix = "use LAYER CHANNEL, such as 'conv2 3', or several: 'conv2 3,7'"
    return _layer_and_numbers(text, f"'{text}' names no channel", flag, fix)


def _unit(text: str, flag: str) -> tuple[str, tuple[int, ...]]:
    fix = "use LAYER CHANNEL,ROW,COLUMN, such as 'conv2 3,10,12', or 'output 7'"
    return _layer_and_numbers(text, f"'{text}' is not a unit", flag, fix)


def _layer_and_numbers(
    text: str, what: str, flag: str, fix: str
) -> tuple[str, tuple[int, ...]]:
    """Parse a layer's name, a space, and numbers with commas between them."""
    from striate.core.errors import SettingError

    layer, _, numbers = text.rpartition(" ")
    parts = numbers.split(",")
    if not layer or not all(part.isdecimal() for part in parts):
        raise SettingError(what, where=flag, fix=fix)
    return layer, tuple(int(part) for part in parts)
