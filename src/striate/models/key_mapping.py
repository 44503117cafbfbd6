"""Names in weight files that differ from the names in a network's state_dict.

Networks of the catalogue have torchvision's names, so no names are mapped. But training
programs add prefixes to names, and GoogLeNet's files may contain auxiliary heads.
"""

from __future__ import annotations

import re
from typing import TypeVar

from torch import nn

from striate.layers.residual import Residual
from striate.models.classifier import ClassifierMethods
from striate.models.head import last_dense
from striate.models.timm import classifiers_of

T = TypeVar("T")

PREFIXES = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile


def without_prefixes(state: dict[str, T]) -> dict[str, T]:
    """Remove the name prefixes of DistributedDataParallel and torch.compile.

    Example:
        >>> without_prefixes({"module._orig_mod.fc.weight": 1})
        {'fc.weight': 1}
    """
    for prefix in PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def classifier_pattern(model: nn.Module) -> str:
    r"""Return a regex for the names of all tensors of the classifier.

    Example:
        >>> classifier_pattern(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(4, 2)))
        '1\\.'
    """
    if isinstance(model, ClassifierMethods):
        names = tuple(model.classifiers)
    elif not (names := classifiers_of(model)):
        dense = last_dense(model)
        names = (dense,) if dense else ()
    return "|".join(rf"{re.escape(name)}\." for name in names) or r"(?!)"


def has_stride_in_1x1(model: nn.Module) -> bool:
    """Return whether bottlenecks have the stride in the first 1×1 convolution.

    Public weights have the same names and shapes, but were trained with the stride in
    the 3×3 convolution.
    """
    blocks = (m for m in model.modules() if isinstance(m, Residual))
    bottlenecks = (block for block in blocks if hasattr(block, "conv3"))
    return any(block.conv1.stride != (1, 1) for block in bottlenecks)
