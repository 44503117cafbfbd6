"""striate: design, train, inspect and evaluate convolutional networks.

```python
import striate as st

data = st.load_data("digits")
model = st.create_model("tutorial_gray", num_classes=10, in_chans=1, image_size=8)
run = st.train(model, data, epochs=10)
```

Importing striate does not import torch; each public name is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from striate.data.image_data import ImageData as ImageData
    from striate.data.load import load_data as load_data
    from striate.data.sources.source import from_arrays as from_arrays
    from striate.finetune.freeze import freeze as freeze
    from striate.models.catalogue import list_models as list_models
    from striate.models.weights import load_pretrained as load_pretrained
    from striate.run.bundle_run import load_bundle as load_bundle
    from striate.run.create_model import create_model as create_model
    from striate.run.recipe import Recipe as Recipe
    from striate.run.run import Run as Run
    from striate.run.run import load_run as load_run
    from striate.workflows.compare.compare import compare as compare
    from striate.workflows.data_check.check import check_data as check_data
    from striate.workflows.data_curve.learning_curve import (
        LearningCurve as LearningCurve,
    )
    from striate.workflows.data_curve.learning_curve import (
        learning_curve as learning_curve,
    )
    from striate.workflows.data_preview.preview import preview as preview
    from striate.workflows.evaluate.operating_point import (
        operating_point as operating_point,
    )
    from striate.workflows.explain.explain import explain as explain
    from striate.workflows.explain.features import features as features
    from striate.workflows.export.export import export as export
    from striate.workflows.lab.lab import lab as lab
    from striate.workflows.optimize.optimize import optimize as optimize
    from striate.workflows.predict.predict import predict as predict
    from striate.workflows.runs.list_runs import list_runs as list_runs
    from striate.workflows.summary.summary import summary as summary
    from striate.workflows.train.resume import resume as resume
    from striate.workflows.train.train import train as train
    from striate.workflows.train.train import train_recipe as train_recipe
    from striate.workflows.transfer.transfer import transfer as transfer

_HOMES = {
    "ImageData": "striate.data.image_data",
    "LearningCurve": "striate.workflows.data_curve.learning_curve",
    "Recipe": "striate.run.recipe",
    "Run": "striate.run.run",
    "check_data": "striate.workflows.data_check.check",
    "compare": "striate.workflows.compare.compare",
    "create_model": "striate.run.create_model",
    "explain": "striate.workflows.explain.explain",
    "export": "striate.workflows.export.export",
    "features": "striate.workflows.explain.features",
    "freeze": "striate.finetune.freeze",
    "from_arrays": "striate.data.sources.source",
    "lab": "striate.workflows.lab.lab",
    "learning_curve": "striate.workflows.data_curve.learning_curve",
    "list_models": "striate.models.catalogue",
    "list_runs": "striate.workflows.runs.list_runs",
    "load_bundle": "striate.run.bundle_run",
    "load_data": "striate.data.load",
    "load_pretrained": "striate.models.weights",
    "load_run": "striate.run.run",
    "operating_point": "striate.workflows.evaluate.operating_point",
    "optimize": "striate.workflows.optimize.optimize",
    "predict": "striate.workflows.predict.predict",
    "preview": "striate.workflows.data_preview.preview",
    "resume": "striate.workflows.train.resume",
    "summary": "striate.workflows.summary.summary",
    "train": "striate.workflows.train.train",
    "train_recipe": "striate.workflows.train.train",
    "transfer": "striate.workflows.transfer.transfer",
}

__all__ = sorted(_HOMES)

# Modules with the HTML that a notebook shows for the results of a public name.
_RUN_CARDS = "striate.run.notebook_cards"
_CARDS = {
    **dict.fromkeys(("ImageData", "Run", "load_data", "load_run"), _RUN_CARDS),
    **dict.fromkeys(("predict", "resume", "train", "train_recipe"), _RUN_CARDS),
    "transfer": _RUN_CARDS,
    "check_data": "striate.workflows.data_check.findings",
    "lab": "striate.workflows.lab.lab",
    "learning_curve": "striate.workflows.data_curve.findings",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(
            f"striate has no attribute '{name}'; public names: {', '.join(__all__)}"
        )
    if name in _CARDS:
        importlib.import_module(_CARDS[name])
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
