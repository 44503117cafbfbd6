"""striate: the workbench for convolutional networks.

```python
import striate as st

data = st.load_data("digits")
model = st.create_model("tutorial_gray", num_classes=10, in_chans=1, image_size=8)
run = st.train(model, data, epochs=10)
```

Importing this imports no torch; each name brings what it needs when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from striate.data.image_data import ImageData as ImageData
    from striate.data.load import load_data as load_data
    from striate.data.sources.source import from_arrays as from_arrays
    from striate.models.catalogue import create_model as create_model
    from striate.models.catalogue import list_models as list_models
    from striate.models.weights import load_pretrained as load_pretrained
    from striate.runs.check.check import check_data as check_data
    from striate.runs.compare.result import compare as compare
    from striate.runs.curve.curve import LearningCurve as LearningCurve
    from striate.runs.curve.curve import learning_curve as learning_curve
    from striate.runs.explain.explain import explain as explain
    from striate.runs.explain.features import features as features
    from striate.runs.predict import predict as predict
    from striate.runs.preview.preview import preview as preview
    from striate.runs.recipe import Recipe as Recipe
    from striate.runs.resume import resume as resume
    from striate.runs.run import Run as Run
    from striate.runs.run import load_run as load_run
    from striate.runs.summary import summary as summary
    from striate.runs.train import train as train
    from striate.runs.train import train_recipe as train_recipe
    from striate.transfer.freeze import freeze as freeze

_HOMES = {
    "ImageData": "striate.data.image_data",
    "LearningCurve": "striate.runs.curve.curve",
    "Recipe": "striate.runs.recipe",
    "Run": "striate.runs.run",
    "check_data": "striate.runs.check.check",
    "compare": "striate.runs.compare.result",
    "create_model": "striate.models.catalogue",
    "explain": "striate.runs.explain.explain",
    "features": "striate.runs.explain.features",
    "freeze": "striate.transfer.freeze",
    "from_arrays": "striate.data.sources.source",
    "learning_curve": "striate.runs.curve.curve",
    "list_models": "striate.models.catalogue",
    "load_data": "striate.data.load",
    "load_pretrained": "striate.models.weights",
    "load_run": "striate.runs.run",
    "predict": "striate.runs.predict",
    "preview": "striate.runs.preview.preview",
    "resume": "striate.runs.resume",
    "summary": "striate.runs.summary",
    "train": "striate.runs.train",
    "train_recipe": "striate.runs.train",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"striate has no '{name}'; it has: {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
