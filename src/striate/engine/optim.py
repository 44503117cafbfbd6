"""Optimizers by name; weight decay applies to kernels only."""

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
LR_SCALE = "lr_scale"  # key of a parameter group: factor on its learning rate
MakeOptimizer = Callable[[Groups, float, float], Optimizer]
OPTIMIZERS: Registry[MakeOptimizer] = Registry("optimizer")


@OPTIMIZERS.add("sgd")
def sgd(groups: Groups, lr: float, momentum: float) -> Optimizer:
    """Create an SGD optimizer with Nesterov momentum."""
    make = _uncompiled(torch.optim.SGD)
    return make(groups, lr, momentum, nesterov=momentum > 0, fused=True)


@OPTIMIZERS.add("adam")
def adam(groups: Groups, lr: float, momentum: float) -> Optimizer:
    """Create an Adam optimizer with L2 regularization (Kingma & Ba 2014)."""
    make = _uncompiled(torch.optim.Adam)
    return make(groups, lr, betas=(momentum, 0.999), fused=True)


@OPTIMIZERS.add("adamw")
def adamw(groups: Groups, lr: float, momentum: float) -> Optimizer:
    """Create an AdamW optimizer: decoupled weight decay (Loshchilov & Hutter 2017)."""
    make = _uncompiled(torch.optim.AdamW)
    return make(groups, lr, betas=(momentum, 0.999), fused=True)


@OPTIMIZERS.add("muon")
def muon(groups: Groups, lr: float, momentum: float) -> Optimizer:
    """Create a Muon optimizer for hidden kernels, with AdamW for all other parameters.

    Jordan et al. 2024. The key `orthogonal` of a parameter group marks hidden kernels.
    """
    return Muon(groups, lr, momentum)


def lbfgs(parameters: Sequence[Tensor], **options: Any) -> Optimizer:
    """Create an L-BFGS optimizer, a quasi-Newton method (Liu & Nocedal 1989).

    `step` takes a closure that computes the loss and the gradients of all examples.
    """
    _avoid_compiler_import()
    return _uncompiled(torch.optim.LBFGS)(parameters, **options)


def _uncompiled(kind: type[Optimizer]) -> Callable[..., Optimizer]:
    """Return a torch optimizer class whose step does not import torch's compiler.

    torch's own `step` imports the compiler to mark a graph break, and the import takes
    more than a second. The computed updates are the same.
    """
    original = unwrap(kind.step)

    @torch.no_grad()
    def step(self: Optimizer, closure: Any = None) -> None:
        original(self, closure)

    return type(kind.__name__, (kind,), {"step": step, "__doc__": kind.__doc__})


def make_optimizer(
    model: nn.Module,
    name: str,  # name of the optimizer, a key of `OPTIMIZERS`
    lr: float,
    momentum: float,  # momentum of SGD and Muon; first beta of Adam and AdamW
    weight_decay: float,  # weight decay of kernels
    # Learning-rate factors by parameter; default 1.
    lr_scales: Mapping[nn.Parameter, float] | None = None,
) -> Optimizer:
    """Create an optimizer for the trainable parameters of a network.

    Biases, gains and other vectors have no weight decay: shrinking them does not
    regularize the network. `momentum` is the first beta of Adam and AdamW. `lr_scales`
    are learning-rate factors by parameter (default 1).

    Raises:
        UnknownNameError: No optimizer has this name.
        SettingError: The network has no trainable parameter.
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
        decay: dict[str, Any] = {"weight_decay": weight_decay, "orthogonal": True}
        groups.insert(0, {"params": inner, **decay})
    if lr_scales:
        groups = [g for group in groups for g in _groups_by_scale(group, lr_scales)]
    _avoid_compiler_import()
    optimizer = OPTIMIZERS[name]([g for g in groups if g["params"]], lr, momentum)
    set_lr(optimizer, lr)
    return optimizer


def _groups_by_scale(
    group: dict[str, Any], lr_scales: Mapping[nn.Parameter, float]
) -> Iterator[dict[str, Any]]:
    """Split a parameter group into groups with one learning-rate factor each."""
    by_scale: dict[float, list[nn.Parameter]] = {}
    for parameter in group["params"]:
        by_scale.setdefault(lr_scales.get(parameter, 1.0), []).append(parameter)
    for scale, parameters in by_scale.items():
        yield {**group, "params": parameters, LR_SCALE: scale}


def _avoid_compiler_import() -> None:
    """Prevent torch from importing its compiler, which takes more than a second.

    Some optimizer methods are marked as never compiled, and the mark imports the
    compiler. This function registers each such method as its own uncompiled version,
    unless the compiler is already imported.
    """
    if "torch._dynamo" in sys.modules:
        return
    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        original = getattr(getattr(Optimizer, name), "__wrapped__", None)
        if original is not None:
            original.__dict__.setdefault("__dynamo_disable", original)


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Set each parameter group's learning rate to `lr` times the group's factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get(LR_SCALE, 1.0)
