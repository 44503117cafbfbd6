"""A moving average of the weights, which is judged and kept in their place."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from striate.engine.callbacks import EpochResult, StepResult
from striate.engine.weights_io import assign_weights

FILE = Path("average.safetensors")


class EMA:
    """The exponential moving average of a network that learns.

    After step k (from 1) of the run, average ← d·average + (1 − d)·weights with
    d = min(decay, (1 + k)/(10 + k)), so that the first weights are soon forgotten
    (Polyak & Juditsky 1992; Tan & Le 2019 for networks with batch norm). The running
    means and variances of batch norms are averaged alike: they belong to the averaged
    weights, as near as the weights lie together, and no pass over the images is
    needed. Counters are copied, and so is what is frozen: to the bit, also numbers too
    small for arithmetic that flushes denormals.

    Args:
        model: The network that learns; `self.model` is the average of it.
        decay: Share of the average that stays, each step; 1/(1 − decay) steps count.

    Example:
        >>> learning = nn.Linear(1, 1, bias=False)
        >>> average = EMA(learning, decay=0.9)
        >>> before = average.model.weight.item()
        >>> _ = learning.weight.data.add_(1.0)
        >>> average.on_step(StepResult(0, 0, 0, loss=1.0, lr=0.1, images=4))
        >>> round(average.model.weight.item() - before, 4)  # d is 2/11 at first
        0.8182
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self._learning = model
        self._decay = decay

    @torch.no_grad()
    def on_step(self, done: StepResult) -> None:
        """Take in the weights of a step; a skipped one changed none."""
        if math.isnan(done.loss):
            return
        k = done.step + 1
        kept = min(self._decay, (1 + k) / (10 + k))
        mine, theirs = [], []
        own = self.model.state_dict(keep_vars=True)
        moving, met = _moving(self._learning), set()
        for name, tensor in self._learning.state_dict(keep_vars=True).items():
            if id(own[name]) in met:
                continue  # a shared tensor has several names, and moves once a step
            met.add(id(own[name]))
            if id(tensor) in moving and tensor.is_floating_point():
                mine.append(own[name])
                theirs.append(tensor)
            else:
                own[name].copy_(tensor)
        torch._foreach_lerp_(mine, theirs, 1 - kept)

    def on_epoch(self, done: EpochResult) -> None:
        """Nothing was learned since the last step."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averages by name."""
        return dict(self.model.state_dict())

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            WeightsError: They are of another network.
        """
        assign_weights(self.model, dict(tensors), FILE)


def _moving(model: nn.Module) -> set[int]:
    """Return which tensors of a network that is learning may change."""
    learned = {id(p) for p in model.parameters() if p.requires_grad}
    busy = (module for module in model.modules() if module.training)
    return learned | {id(b) for m in busy for b in m.buffers(recurse=False)}
