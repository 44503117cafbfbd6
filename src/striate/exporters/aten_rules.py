"""All operations of torch that can be exported; names as in `torch.ops.aten`."""

from __future__ import annotations

from striate.exporters import (
    aten_elementwise,
    aten_layers,
    aten_pooling,
    aten_shapes,
)
from striate.exporters.aten_registry import RULES

RULE_MODULES = (aten_elementwise, aten_layers, aten_pooling, aten_shapes)
# Importing these modules has filled the registry.
ATEN_RULES = RULES
