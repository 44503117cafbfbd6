"""Run attention and LSTM on the meta device as the operations that a CPU runs.

torch computes both from many small operations on the meta device. On a CPU, each is one
operation, which saves other tensors for the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

aten = torch.ops.aten
LSTM_MODE = 2  # number of the LSTM in torch's list of recurrent networks
GATES = 4  # of an LSTM


class FusedCalls(TorchFunctionMode):
    """Function mode that runs attention and LSTM as one operation each.

    Example:
        >>> q = torch.empty(1, 2, 5, 8, device="meta")
        >>> with FusedCalls():
        ...     torch.nn.functional.scaled_dot_product_attention(q, q, q).shape
        torch.Size([1, 2, 5, 8])
    """

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        out: Any = None
        if func is F.multi_head_attention_forward:
            with _replaced_attention():  # this mode is off inside the call
                return func(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            out = _attention(*args, **kwargs)
        elif getattr(func, "__name__", "") == "lstm" and not kwargs:
            out = _lstm(*args)
        return func(*args, **kwargs) if out is None else out


@contextmanager
def _replaced_attention() -> Iterator[None]:
    """Context manager: fuse attention of meta tensors, called by its name in torch."""
    original = F.scaled_dot_product_attention

    def attention(*args: Any, **kwargs: Any) -> Tensor:
        out = _attention(*args, **kwargs)
        return original(*args, **kwargs) if out is None else out

    F.scaled_dot_product_attention = attention
    try:
        yield
    finally:
        F.scaled_dot_product_attention = original


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor | None:
    """Return the output of fused attention; None if torch does not fuse this call."""
    if not query.is_meta or not is_fused(query, key, value, attn_mask, dropout_p):
        return None
    if attn_mask is not None and attn_mask.dtype is torch.bool:
        attn_mask = torch.empty_like(attn_mask, dtype=query.dtype)
    out = aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, is_causal, attn_mask=attn_mask, scale=scale
    )
    return out[0]  # type: ignore[no-any-return]


def is_fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
) -> bool:
    """Return whether torch computes an attention on a CPU as one operation.

    Example:
        >>> q = torch.empty(1, 2, 5, 8)
        >>> is_fused(q, q, q), is_fused(q, q, q, dropout_p=0.1)
        (True, False)
    """
    tensors = query, key, value
    if dropout_p or (attn_mask is not None and attn_mask.requires_grad):
        return False
    if any(t.dim() != 4 or not t.numel() or t.stride(-1) != 1 for t in tensors):
        return False
    same = {(*t.shape[:2], t.shape[-1], t.dtype) for t in tensors}
    enabled: bool = torch.backends.cuda.flash_sdp_enabled()  # type: ignore[no-untyped-call]
    return len(same) == 1 and enabled


def _lstm(x: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return outputs and last states of an LSTM; None if torch does not fuse it."""
    states = args[0]
    if isinstance(states, Tensor) or not x.is_meta or x.dtype is not torch.float32:
        return None
    params, has_biases, layers, dropout, training, both, batch_first = args[1:]
    directions, count = 2 if both else 1, 4 if has_biases else 2
    if len(params) != layers * directions * count:  # with projections
        return None
    h, c = states
    out = x.transpose(0, 1).contiguous() if batch_first else x
    last: list[tuple[Tensor, Tensor]] = []
    for layer in range(layers):
        outputs = []
        for direction in range(directions):
            number = layer * directions + direction
            weights = _four(params[number * count : (number + 1) * count])
            y, h_out, c_out, _ = aten.mkldnn_rnn_layer(
                *(out, *weights, h[number], c[number], direction == 1, [], LSTM_MODE),
                *(weights[1].shape[1], layers, has_biases, both, batch_first, training),
            )
            outputs.append(y)
            last.append((h_out, c_out))
        out = outputs[0] if directions == 1 else torch.cat(outputs, -1)
        if dropout and training and layer < layers - 1:
            out = F.dropout(out, dropout)
    out = out.transpose(0, 1) if batch_first else out
    return out, torch.stack([a for a, _ in last]), torch.stack([b for _, b in last])


def _four(weights: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return two weights and two biases; the biases are zeros if there are none."""
    if len(weights) == 4:
        return weights
    zeros = torch.zeros(weights[0].shape[0], device=weights[0].device)
    return *weights, zeros, zeros


def lstm_workspace(steps: int, batch: int, inputs: int, units: int) -> int:
    """Return the bytes that oneDNN saves for the backward pass of one LSTM layer.

    These are the gates and the states of each step, with rows of whole cache lines.

    Example:
        >>> round(lstm_workspace(100, 16, 64, 128) / 12_472_320, 2)  # as measured
        0.99
    """
    wide, narrow = _padded(max(inputs, units)), _padded(units)
    numbers = steps * (GATES + 1) * narrow + (steps + 1) * (6 * wide + 4 * narrow)
    return 4 * batch * numbers


def scratch_bytes(func: Any, args: tuple[Any, ...]) -> int:
    """Return the bytes that an operation of oneDNN allocates and frees while it runs.

    An LSTM allocates its gates, and its weights in another layout. A convolution with a
    kernel larger than 1×1 allocates its weights in another layout; their gradient needs
    four of them on maps of at most 2×2 positions (measured with torch 2.13).

    Example:
        >>> scratch_bytes(aten.relu.default, (torch.empty(3),))
        0
    """
    rule = _SCRATCH.get(func)
    return 0 if rule is None else rule(*args)


def _convolution_scratch(x: Tensor, weight: Tensor, *_: Any) -> int:
    return weight.numel() * weight.element_size() if prod(weight.shape[2:]) > 1 else 0


def _gradient_scratch(gradient: Tensor, x: Tensor, weight: Tensor, *_: Any) -> int:
    copies = 4 if max(gradient.shape[2:]) <= 2 else 1
    return copies * _convolution_scratch(x, weight)


def _lstm_scratch(x: Tensor, inputs: Tensor, states: Tensor, *rest: Any) -> int:
    steps, batch, _ = x.shape
    gates = steps * batch * GATES * _padded(states.shape[1])
    return 4 * (gates + inputs.numel() + states.numel())


def _lstm_gradient_scratch(
    x: Tensor, inputs: Tensor, states: Tensor, *rest: Any
) -> int:
    weights = 4 * (inputs.numel() + states.numel())
    return _lstm_scratch(x, inputs, states) + weights


_SCRATCH: dict[Any, Callable[..., int]] = {
    aten.convolution.default: _convolution_scratch,
    aten.convolution_backward.default: _gradient_scratch,
    aten.mkldnn_rnn_layer.default: _lstm_scratch,
    aten.mkldnn_rnn_layer_backward.default: _lstm_gradient_scratch,
}


def _padded(count: int) -> int:
    whole = -(-count // 16) * 16
    return whole if whole % 256 else whole + 16
