"""Optimizers by name, with decay on weights only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import unwrap
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from striate.core.errors import SettingError
from striate.core.registry import Registry
from striate.engine.muon import Muon, hidden_kernels

Groups = list[dict[str, Any]]
LR_SCALE = "scale"  # of a group: its share of the rate
OPTIMIZERS: Registry[Callable[[Groups, float, float], Optimizer]] = Registry(
    "optimizer"
)


@OPTIMIZERS.add("sgd")
def sgd(groups: Groups, lr: float, momentum: float) -> Optimizer:
    """Stochastic gradient descent with Nesterov momentum."""
    nesterov = momentum > 0
    return _uncompiled(torch.optim.SGD)(
        groups, lr, momentum, nesterov=nesterov, fused=True
    )


@OPTIMIZERS.add("adam")
def adam(groups: Groups, lr: float, momentum: float) -> Optimizer:
    """Adam (Kingma & Ba 2014); decay enters the gradient."""
    return _uncompiled(torch.optim.Adam)(
        groups, lr, betas=(momentum, 0.999), fused=True
    )


@OPTIMIZERS.add("adamw")
def adamw(groups: Groups, lr: float, momentum: float) -> Optimizer:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2017)."""
    return _uncompiled(torch.optim.AdamW)(
        groups, lr, betas=(momentum, 0.999), fused=True
    )


@OPTIMIZERS.add("muon")
def muon(groups: Groups, lr: float, momentum: float) -> Optimizer:
    """Orthogonal momentum for hidden kernels, AdamW for the rest (Jordan et al. 2024).

    The groups say which those are, by `orthogonal`.
    """
    return Muon(groups, lr, momentum)


def lbfgs(parameters: Sequence[Tensor], **options: Any) -> Optimizer:
    """Newton's method with a memory of so many gradients (Liu & Nocedal 1989).

    Its step is given what computes cost and gradients, of all examples at once.

    Args:
        parameters: What it minimizes over.
        options: Those of `torch.optim.LBFGS`.
    """
    _spare_the_compiler()
    return _uncompiled(torch.optim.LBFGS)(parameters, **options)


def _uncompiled(kind: type[Optimizer]) -> Callable[..., Optimizer]:
    """Return an optimizer of torch's whose step does not import torch's compiler.

    torch's own step does, to say where a compiled program is to be broken; it takes
    more than a second, once. The arithmetic is the same.
    """
    plain = unwrap(kind.step)

    @torch.no_grad()
    def step(self: Optimizer, closure: Any = None) -> None:
        plain(self, closure)

    return type(kind.__name__, (kind,), {"step": step, "__doc__": kind.__doc__})


def make_optimizer(
    model: nn.Module,
    name: str,
    lr: float,
    momentum: float,
    weight_decay: float,
    scales: Mapping[nn.Parameter, float] | None = None,
) -> Optimizer:
    """Build an optimizer over the parameters that are trainable.

    Biases, gains and other vectors are not decayed: shrinking them does not
    regularize what the network computes.

    Args:
        model: Whose parameters learn.
        name: Of `OPTIMIZERS`.
        lr: The rate to begin with.
        momentum: Of sgd; the first beta of the others.
        weight_decay: Of kernels.
        scales: Shares of the rate by parameter, where they differ; 1 for others.

    Raises:
        UnknownNameError: No optimizer has this name.
        SettingError: Nothing is trainable.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    if not trainable:
        fix = "set requires_grad on at least one parameter"
        raise SettingError("the network has no trainable parameter", fix=fix)
    kernels = [p for p in trainable if p.ndim > 1]
    vectors = [p for p in trainable if p.ndim <= 1]
    groups: Groups = [
        {"params": kernels, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    if name == "muon":
        hidden = {id(kernel) for kernel in hidden_kernels(model)}
        inner = [p for p in kernels if id(p) in hidden]
        groups[0]["params"] = [p for p in kernels if id(p) not in hidden]
        first = {"params": inner, "weight_decay": weight_decay, "orthogonal": True}
        groups.insert(0, first)
    if scales:
        groups = [part for group in groups for part in _by_scale(group, scales)]
    _spare_the_compiler()
    optimizer = OPTIMIZERS[name]([g for g in groups if g["params"]], lr, momentum)
    set_lr(optimizer, lr)
    return optimizer


def _by_scale(
    group: dict[str, Any], scales: Mapping[nn.Parameter, float]
) -> Iterator[dict[str, Any]]:
    """Part a group into those of one rate."""
    found: dict[float, list[nn.Parameter]] = {}
    for parameter in group["params"]:
        found.setdefault(scales.get(parameter, 1.0), []).append(parameter)
    for scale, some in found.items():
        yield {**group, "params": some, LR_SCALE: scale}


def _spare_the_compiler() -> None:
    """Keep torch from importing its compiler, which takes more than a second.

    These methods are marked as never to be compiled, and the mark imports it. They get
    themselves as their uncompiled version, unless somebody compiles here already.
    """
    if "torch._dynamo" in sys.modules:
        return
    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        plain = getattr(getattr(Optimizer, name), "__wrapped__", None)
        if plain is not None:
            plain.__dict__.setdefault("__dynamo_disable", plain)


def set_lr(optimizer: Optimizer, rate: float) -> None:
    """Set the learning rate of every group, each to its share of it."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get(LR_SCALE, 1.0)
