"""Our shape rules against torch's own, operation by operation."""

import pytest
import torch
from torch import nn

from striate.audit.meta_device import MetaMode, init_empty_weights
from striate.audit.shapes import output_of
from striate.core.errors import GeometryError
from striate.models.catalogue import model_entry
from striate.run.create_model import create_model

aten = torch.ops.aten


def ghost(*shape, **more):
    return torch.empty(*shape, device="meta", **more)


X, W, B = ghost(2, 4, 9, 8), ghost(6, 4, 3, 3), ghost(4)
CONV = (None, [2, 1], [1, 0], [1, 2], False, [0, 0], 1)
TURNED = (None, [2, 2], [1, 1], [1, 1], True, [1, 1], 2)
NORM = (B, B, B, B)
POOLED, INDICES = ghost(2, 4, 4, 4), ghost(2, 4, 4, 4, dtype=torch.int64)
B2 = (None, None)
NORM_BACK = (ghost(2, 4, 9, 1), ghost(2, 4, 9, 1), ghost(8), ghost(8))
Q, K = ghost(2, 3, 5, 8), ghost(2, 3, 7, 8)
BACK = ([0, 0], [1, 1], False, [0, 0], 1)
CASES = {
    "convolution": (aten.convolution.default, (X, W, *CONV)),
    "transposed": (aten.convolution.default, (X, ghost(4, 3, 3, 3), *TURNED)),
    "conv1d": (
        aten.convolution.default,
        (ghost(1, 2, 9), ghost(3, 2, 3), None, [1], [0], [1], False, [0], 1),
    ),
    "batch_norm": (aten.native_batch_norm.default, (X, *NORM, True, 0.1, 1e-5)),
    "max_pool": (aten.max_pool2d_with_indices.default, (X, [2, 2])),
    "max_pool_ceil": (
        aten.max_pool2d_with_indices.default,
        (X, [3], [2], [1], [1], True),
    ),
    "avg_pool": (aten.avg_pool2d.default, (X, [3, 2], [2, 1], [1, 0], True)),
    "adaptive": (aten._adaptive_avg_pool2d.default, (X, [3, 2])),
    "mean": (aten.mean.dim, (X, [2, 3])),
    "mean_keep": (aten.mean.dim, (X, [-1], True)),
    "sum_all": (aten.sum.default, (X,)),
    "cat": (aten.cat.default, ([X, X], 1)),
    "mm": (aten.mm.default, (ghost(2, 3), ghost(3, 5))),
    "addmm": (aten.addmm.default, (ghost(5), ghost(2, 3), ghost(3, 5))),
    "bmm": (aten.bmm.default, (ghost(4, 2, 3), ghost(4, 3, 5))),
    "relu": (aten.relu.default, (X,)),
    "add": (aten.add.Tensor, (X, X)),
    "broadcast": (aten.mul.Tensor, (ghost(4, 1, 1), X)),
    "layer_norm": (aten.native_layer_norm.default, (X, [9, 8], None, None, 1e-5)),
    "layer_norm_back": (
        aten.native_layer_norm_backward.default,
        (X, X, [8], *NORM_BACK, [True, True, False]),
    ),
    "attention": (aten._scaled_dot_product_flash_attention_for_cpu.default, (Q, K, K)),
    "attention_back": (
        aten._scaled_dot_product_flash_attention_for_cpu_backward.default,
        (Q, Q, K, K, Q, ghost(2, 3, 5), 0.0, False),
    ),
    "add_number": (aten.add.Tensor, (X, 2)),
    "expanded": (aten.div.Scalar, (ghost(1).expand(2, 3), 2)),
    "in_place": (aten.relu_.default, (X,)),
    "convolution_backward": (
        aten.convolution_backward.default,
        (ghost(2, 6, 7, 6), X, W, [6], [1, 1], *BACK, [True, True, True]),
    ),
    "batch_norm_backward": (
        aten.native_batch_norm_backward.default,
        (X, X, B, B, B, B, B, True, 1e-5, [True, True, False]),
    ),
    "max_pool_backward": (
        aten.max_pool2d_with_indices_backward.default,
        (POOLED, X, [2, 2], [2, 2], [0, 0], [1, 1], False, INDICES),
    ),
}


def result(out):
    parts = out if isinstance(out, tuple | list) else [out]
    return [p if p is None else (tuple(p.shape), p.dtype) for p in parts]


@pytest.mark.parametrize(("func", "args"), CASES.values(), ids=CASES)
def test_shapes_equal_torch(func, args):
    output = output_of(func, args, {})
    assert output is not None
    assert result(output) == result(func(*args))


LEFT = {
    "channels_last": (aten.relu.default, (X.to(memory_format=torch.channels_last),)),
    "whole_numbers": (aten.add.Tensor, (ghost(2, dtype=torch.int64), 1)),
    "two_larger": (aten.add.Tensor, (ghost(4, 1), ghost(1, 5))),
    "more_dimensions": (aten.add.Tensor, (ghost(1, 1, 1), ghost(4, 5))),
    "turned_and_small": (aten.add.Tensor, (X.mT, ghost(1))),
    "layer_norm_turned": (aten.native_layer_norm.default, (X.mT, [9], *B2, 1e-5)),
    "layer_norm_types": (
        aten.native_layer_norm.default,
        (X, [8], ghost(8, dtype=torch.double), None, 1e-5),
    ),
    "layer_norm_back": (
        aten.native_layer_norm_backward.default,
        (X.mT, X.mT, [9], B, B, *B2, [True, True, True]),
    ),
    "two_types": (aten.add.Tensor, (X, X.double())),
    "real": (aten.relu.default, (torch.ones(2),)),
    "groups": (aten.convolution.default, (X, W, *CONV[:-1], 3)),
    "channels": (aten.convolution.default, (ghost(1, 3, 9, 9), W, *CONV)),
    "too_small": (aten.convolution.default, (ghost(1, 4, 1, 1), W, *CONV)),
    "uneven": (aten.convolution.default, (X, ghost(5, 2, 3, 3), *CONV[:-1], 2)),
    "norm_flat": (aten.native_batch_norm.default, (X.mT, *NORM, False, 0.1, 1e-5)),
    "pool_3d": (aten.max_pool2d_with_indices.default, (ghost(4, 9, 8), [2, 2])),
    "pool_small": (aten.max_pool2d_with_indices.default, (ghost(1, 1, 1, 1), [2, 2])),
    "adaptive": (aten._adaptive_avg_pool2d.default, (X.mT, [1, 1])),
    "mean_all": (aten.mean.dim, (X, None)),
    "mix": (aten.cat.default, ([X, X.double()], 1)),
    "mm": (aten.mm.default, (ghost(2, 3), ghost(2, 3))),
    "bmm": (aten.bmm.default, (ghost(2, 3, 2), ghost(2, 3, 2))),
    "addmm": (aten.addmm.default, (ghost(4), ghost(2, 3), ghost(3, 5))),
    "sum_real": (aten.sum.default, (torch.ones(2),)),
    "unknown": (aten.sort.default, (X,)),
    "turn": (aten.t_.default, (ghost(2, 3),)),
}


@pytest.mark.parametrize(("func", "args"), LEFT.values(), ids=LEFT)
def test_unknown_cases_are_left_to_torch(func, args):
    assert output_of(func, args, {}) is None


def test_a_transposed_convolution_that_leaves_nothing_is_refused():
    """torch's kernels refuse it; its rule for the meta device does not."""
    settings = (None, [1, 1], [2, 2], [1, 1], True, [0, 0], 1)
    with pytest.raises(GeometryError, match="leaves no output"):
        output_of(aten.convolution.default, (ghost(1, 4, 2, 2), W[:4], *settings), {})


def test_other_layouts_and_types_are_left_to_torch():
    assert (
        output_of(aten.clone.default, (X,), {"memory_format": torch.channels_last})
        is None
    )
    assert output_of(aten.mean.dim, (X, [1]), {"dtype": torch.float64}) is None


@pytest.mark.parametrize("name", ["lenet5", "cifar_resnet20", "mobilenet_v2"])
def test_whole_networks_give_the_shapes_of_a_real_run(name):
    """Every operation of a forward pass, real against ghostly."""
    shape = model_entry(name).image.shape
    shapes = {}
    for real in (True, False):
        seen = shapes.setdefault(real, [])
        model = create_model(name).eval() if real else None
        if model is None:
            with init_empty_weights():
                model = create_model(name).eval()
        note = lambda op, args, out, seen=seen: seen.append((str(op), result(out)[:1]))  # noqa: E731
        image = torch.zeros(1, *shape, device="cpu" if real else "meta")
        with torch.no_grad(), MetaMode(note, real=real):
            model(image)
    assert shapes[True] == shapes[False]


def test_batch_norm_in_evaluation_keeps_no_statistics():
    """As the real kernel does; torch's rule for the meta device says otherwise."""
    settings = (*NORM, False, 0.1, 1e-5)
    real = [torch.ones(t.shape) if isinstance(t, torch.Tensor) else t for t in settings]
    out = aten.native_batch_norm.default(torch.ones(X.shape), *real)
    assert result(
        output_of(aten.native_batch_norm.default, (X, *settings), {})
    ) == result(out)


def test_constants_become_meta_tensors():
    with MetaMode(lambda op, args, out: None):
        out = torch.cat([X, torch.tensor([1.0]).expand(2, 1, 9, 8)], 1)
        assert torch.zeros(3).is_meta
        assert out.shape == (2, 5, 9, 8)


def test_init_empty_weights_allocates_nothing():
    state = torch.get_rng_state()
    with init_empty_weights():
        layer = nn.Linear(10**6, 10**6)
    assert layer.weight.is_meta
    assert torch.equal(torch.get_rng_state(), state)
