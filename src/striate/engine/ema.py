"""Exponential moving average (EMA) of the weights, evaluated instead of the weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

from striate.engine.callbacks import Callback, StepResult
from striate.engine.weights_io import assign_weights

FILE_NAME = Path("ema.safetensors")


class EMA(Callback):
    """Callback that keeps an exponential moving average of a network's weights.

    After step k (from 1) of the run, average ← d·average + (1 − d)·weights with d =
    min(decay, (1 + k)/(10 + k)), so that the initial weights soon lose influence
    (Polyak & Juditsky 1992; Tan & Le 2019 for networks with batch norm). Running means
    and variances of batch norms are averaged too: they suit the averaged weights as
    long as the weights are close together, and no pass over the images is needed.
    Counters and frozen tensors are copied exactly, including denormal numbers. The
    average covers about the last 1/(1 − decay) steps.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> ema = EMA(model, decay=0.9)
        >>> before = ema.model.weight.item()
        >>> _ = model.weight.data.add_(1.0)
        >>> ema.on_step_end(StepResult(0, 0, 0, loss=1.0, lr=0.1, images=4))
        >>> round(ema.model.weight.item() - before, 4)  # d is 2/11 at first
        0.8182
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self._source = model
        self._decay = decay

    @torch.no_grad()
    def on_step_end(self, step: StepResult) -> None:
        """Update the average of the weights, unless the batch was skipped."""
        if math.isnan(step.loss):
            return
        k = step.step + 1
        decay = min(self._decay, (1 + k) / (10 + k))
        averages, weights = [], []
        trainable = _trainable(self._source)
        pairs = zip(_tensors(self.model), _tensors(self._source), strict=True)
        for average, tensor in pairs:
            if id(tensor) in trainable and tensor.is_floating_point():
                averages.append(average)
                weights.append(tensor)
            else:
                average.copy_(tensor)
        torch._foreach_lerp_(averages, weights, 1 - decay)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averaged tensors by name."""
        return dict(self.model.state_dict())

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Load tensors that `state_dict` has returned."""
        assign_weights(self.model, dict(tensors), FILE_NAME)


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    """Return all parameters and buffers; a shared tensor is returned only once."""
    return chain(model.parameters(), model.buffers())


def _trainable(model: nn.Module) -> set[int]:
    """Return `id()` of each parameter and buffer that training can change."""
    parameters = {id(p) for p in model.parameters() if p.requires_grad}
    training = (module for module in model.modules() if module.training)
    return parameters | {id(b) for m in training for b in m.buffers(recurse=False)}
