"""Checks that two ranks compute the same as one process on the same batches.

Every check runs in double precision, so that only rounding remains: 1e-10. One process
runs all checks and forks the second rank, because importing torch takes longer than
checking.
"""

from __future__ import annotations

import copy
import os
import socket
import sys
import traceback
from dataclasses import replace

import pytest
import torch
from torch import nn

from striate.core.aux_heads import HeadOutputs
from striate.core.errors import NonFiniteError, RankError, SettingError
from striate.core.frozen_mode import freeze_mode
from striate.data.batches import rank_slice
from striate.data.load import load_data
from striate.engine.benchmark import BenchmarkResult, ExecutionChoices
from striate.engine.callbacks import StepResult
from striate.engine.distributed.gradients import GradientExchange
from striate.engine.distributed.group import process_group
from striate.engine.distributed.rank_info import RankInfo
from striate.engine.distributed.sync_batch_norm import sync_batch_norms
from striate.engine.ema import EMA
from striate.engine.evaluate import evaluate
from striate.engine.execution_config import ExecutionConfig
from striate.engine.loss import ClassBalance, cross_entropy_loss
from striate.engine.optim import make_optimizer
from striate.engine.recoverable_step import DEFAULT_EXECUTION, Stepper
from striate.engine.tta import TTA_MODES
from striate.run.parse_settings import make_recipe
from striate.run.recipe import Recipe
from striate.workflows.train import auto_settings, autotune
from striate.workflows.train import ranks as ranks_module

CLASSES = 3


class Net(nn.Module):
    """A network with convolution, norm, auxiliary head and an unused layer."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.way = nn.Linear(4, CLASSES)
        self.last = nn.Linear(4, CLASSES)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        x = self.norm(self.conv(x)).relu().mean((2, 3))
        if self.training:
            return HeadOutputs(self.last(x), (self.way(x),), 0.3)
        return self.last(x)


def network(norm: bool) -> Net:
    torch.manual_seed(5)
    return Net(norm).double()


def data(sizes, soft):
    draw = torch.Generator().manual_seed(1)
    for size in sizes:
        x = torch.randn(size, 1, 6, 6, generator=draw).double()
        y = torch.randint(CLASSES, (size,), generator=draw)
        if soft:
            y = torch.rand(size, CLASSES, generator=draw).double().softmax(1)
        yield x, y


def train_both_ways(
    group,
    *,
    norm,
    sizes,
    soft=False,
    loss_fn=None,
    micro_batches=1,
    sync=False,
    execution=DEFAULT_EXECUTION,
):
    """Train on all ranks and in one process; return both networks and the losses."""
    loss_fn = loss_fn or cross_entropy_loss(0.1)
    distributed, alone = network(norm), network(norm)
    first = make_optimizer(distributed, "sgd", 0.1, 0.9, 0.01)
    second = make_optimizer(alone, "sgd", 0.1, 0.9, 0.01)
    exchange = GradientExchange(group, distributed, first)
    step_in_group = Stepper(
        distributed,
        first,
        loss_fn,
        0,
        group.rank_info.rank,
        micro_batches,
        exchange,
        execution,
    )
    step_alone = Stepper(alone, second, loss_fn)
    losses = []
    for step, (x, y) in enumerate(data(sizes, soft)):
        own_share = rank_slice(len(y), group.rank_info.rank, group.world_size)
        with sync_batch_norms(distributed, group) if sync else torch.enable_grad():
            loss = step_in_group(x[own_share], y[own_share], step)
        losses.append((loss, step_alone(x, y, step)))
        assert step_in_group.images == len(y)
    exchange.check_equal()
    return distributed, alone, losses


def ema_both_ways(group, sizes, decay):
    """Return the EMAs of all ranks and of one process."""
    distributed, alone = network(True), network(True)
    optimizers = [make_optimizer(n, "sgd", 0.1, 0.9, 0.0) for n in (distributed, alone)]
    exchange = GradientExchange(group, distributed, optimizers[0])
    loss_fn = cross_entropy_loss(0.1)
    step_in_group = Stepper(
        distributed, optimizers[0], loss_fn, 0, group.rank_info.rank, 1, exchange
    )
    step_alone = Stepper(alone, optimizers[1], loss_fn)
    emas = EMA(distributed, decay), EMA(alone, decay)
    for step, (x, y) in enumerate(data(sizes, soft=False)):
        own_share = rank_slice(len(y), group.rank_info.rank, group.world_size)
        with sync_batch_norms(distributed, group):
            step_losses = (
                step_in_group(x[own_share], y[own_share], step),
                step_alone(x, y, step),
            )
        for average, loss in zip(emas, step_losses, strict=True):
            average.on_step_end(StepResult(0, step, step, loss, 0.1, len(y)))
    return emas


def assert_same(distributed, alone, losses):
    for a, b in losses:
        assert abs(a - b) < 1e-10, losses
    pairs = zip(
        distributed.state_dict().items(), alone.state_dict().values(), strict=True
    )
    for (name, a), b in pairs:
        difference = (a - b).abs().max().item()
        assert difference < 1e-10, (name, difference)


def check_training(group):
    weights = ClassBalance(weights=torch.tensor([0.5, 1.0, 4.0]).double())
    prior = ClassBalance(prior=torch.tensor([0.2, 0.3, 0.5]).double())
    uneven = (8, 7, 5, 3, 2)
    assert_same(*train_both_ways(group, norm=False, sizes=uneven))
    assert_same(*train_both_ways(group, norm=False, sizes=uneven, soft=True))
    for loss_fn in (cross_entropy_loss(0.1, weights), cross_entropy_loss(0.1, prior)):
        assert_same(*train_both_ways(group, norm=False, sizes=uneven, loss_fn=loss_fn))
    assert_same(
        *train_both_ways(group, norm=False, sizes=(16, 13, 9, 3), micro_batches=3)
    )
    nchw = ExecutionConfig(layout="nchw")
    assert_same(*train_both_ways(group, norm=False, sizes=uneven, execution=nchw))


def check_norm(group):
    """Synchronized batch norm, also if a rank has no image of the batch."""
    assert_same(*train_both_ways(group, norm=True, sizes=(8, 7, 5, 3, 2), sync=True))
    unsynced = train_both_ways(group, norm=True, sizes=(8, 7))
    assert abs(unsynced[2][-1][0] - unsynced[2][-1][1]) > 1e-6  # each its own share's
    count = train_both_ways(group, norm=True, sizes=(8, 3, 2))[
        0
    ].norm.num_batches_tracked
    assert int(count) == 3


def check_frozen_norm(group):
    """Frozen statistics stay the same to the bit; a mean of equals would be rounded."""
    model = network(True).float()
    nn.init.normal_(model.norm.running_mean)
    model.norm.running_var += 0.3
    freeze_mode(model.norm)
    before = [buffer.clone() for buffer in model.norm.buffers()]
    optimizer = make_optimizer(model, "sgd", 0.1, 0.9, 0.01)
    exchange = GradientExchange(group, model, optimizer)
    loss_fn, rank = cross_entropy_loss(0.0), group.rank_info.rank
    step_in_group = Stepper(model, optimizer, loss_fn, 0, rank, 1, exchange)
    for step, (x, y) in enumerate(data((7, 5, 3), soft=False)):
        own_share = rank_slice(len(y), rank, group.world_size)
        step_in_group(x[own_share].float(), y[own_share], step)
    assert all(map(torch.equal, before, model.norm.buffers()))


def check_micro_batches_of_norm(group):
    """Synchronized norms work with micro-batches, however few images there are."""
    distributed, _, losses = train_both_ways(
        group, norm=True, sizes=(8, 3, 2), sync=True, micro_batches=4
    )
    assert all(torch.isfinite(torch.tensor(losses)).flatten())
    assert all(bool(p.isfinite().all()) for p in distributed.parameters())


def check_norm_gradients(group):
    """The gradients of a synchronized norm equal those of autograd."""
    for layout in (torch.contiguous_format, torch.channels_last):
        for affine in (True, False):
            assert_norm_gradients(
                group, nn.BatchNorm2d(2, affine=affine), (3, 3), layout
            )
    assert_norm_gradients(group, nn.BatchNorm1d(2), (), torch.contiguous_format)
    assert_norm_gradients(group, nn.BatchNorm1d(2), (4,), torch.contiguous_format)


def assert_norm_gradients(group, norm, sides, layout):
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(5, 2, *sides, generator=draw).double()
    x = (3 + x * torch.arange(1, 6).view(-1, 1, *[1] * len(sides))).double()
    x = x.contiguous(memory_format=layout)
    weights = torch.randn(5, 2, *sides, generator=draw).double()
    norm.double()
    if norm.affine:
        nn.init.normal_(norm.weight, generator=draw)
    reference = copy.deepcopy(norm)
    own_share = rank_slice(5, group.rank_info.rank, group.world_size)
    own_x, all_x = x[own_share].clone().requires_grad_(), x.clone().requires_grad_()
    with sync_batch_norms(norm, group):
        (norm(own_x) * weights[own_share]).sum().backward()
    (reference(all_x) * weights).sum().backward()
    assert torch.allclose(own_x.grad, all_x.grad[own_share], atol=1e-12)
    assert torch.allclose(norm.running_mean, reference.running_mean, atol=1e-12)
    assert torch.allclose(norm.running_var, reference.running_var, atol=1e-12)
    for distributed, b in zip(norm.parameters(), reference.parameters(), strict=True):
        group.all_reduce(distributed.grad, "a slope")
        assert torch.allclose(distributed.grad, b.grad, atol=1e-12)
    assert "forward" not in vars(norm)


def check_norm_of_one_number_a_rank(group):
    """A rank with one number for each channel has no variance of its own."""
    norm, reference = nn.BatchNorm1d(3).double(), nn.BatchNorm1d(3).double()
    x = torch.tensor([[1.0, 2.0, 3.0], [5.0, 2.0, -1.0]]).double()
    with sync_batch_norms(norm, group):
        y = norm(x[group.rank_info.rank][None])
    assert torch.allclose(y[0], reference(x)[group.rank_info.rank])


def check_norm_of_half_precision(group):
    """Statistics are computed in fp32 for maps in half precision."""
    draw = torch.Generator().manual_seed(4)
    x = 7 + torch.randn(13, 2, 7, 9, generator=draw)
    norm, reference = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
    own_share = rank_slice(13, group.rank_info.rank, group.world_size)
    with sync_batch_norms(norm, group):
        y = norm(x[own_share].bfloat16())
    assert y.dtype == torch.bfloat16
    assert torch.allclose(y.float(), reference(x)[own_share], atol=0.05)
    assert torch.allclose(norm.running_var, reference.running_var, rtol=0.01)


def check_without_shared_memory(group):
    """Results are the same by gloo, as between machines."""
    reducer, group.shared_memory = group.shared_memory, None
    assert reducer is not None
    check_norm(group)
    check_norm_gradients(group)
    group.shared_memory = reducer


def check_evaluation(group):
    """Every image is evaluated once, in the order of one process."""
    model = network(True).eval()
    assert_evaluated_alike(group, model, model, "plain")


def assert_evaluated_alike(group, distributed, alone, tta):
    batches = list(data((7, 6, 3, 1), soft=False))
    rank, world = group.rank_info.rank, group.world_size
    shares = [rank_slice(len(y), rank, world) for _, y in batches]
    own_share = [(x[s], y[s]) for (x, y), s in zip(batches, shares, strict=True)]
    gathered = evaluate(distributed, own_share, TTA_MODES[tta], group)
    step_alone = evaluate(alone, batches, TTA_MODES[tta])
    assert gathered.labels.equal(step_alone.labels)
    assert torch.allclose(gathered.logits, step_alone.logits, atol=1e-6)
    assert len(gathered.labels) == 17


def check_ema(group):
    """EMA and its evaluation with TTA are those of one process."""
    distributed, alone = ema_both_ways(group, (8, 7, 5, 3), 0.9)
    assert_same(distributed.model, alone.model, [])
    assert not distributed.model.conv.weight.equal(distributed._source.conv.weight)
    assert_evaluated_alike(group, distributed.model, alone.model, "flip")


def check_auto_settings(group):
    """Only rank 0 determines batch size and learning rate, for all."""
    options = {"data": "digits", "batch_size": "auto", "lr": "auto", "cache": "off"}
    recipe = make_recipe(options).resolved()
    images = load_data("digits", cache="off")
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.MonkeyPatch.context() as patch:
        if not group.is_main:
            patch.setattr(
                auto_settings,
                "_choose",
                lambda *options: pytest.fail("chosen twice"),
            )
        decided = auto_settings.resolve_auto_settings(recipe, model, images, group)
    sizes = group.all_gather_object(decided.recipe.images_per_step, "the batch size")
    rates = group.all_gather_object(decided.recipe.max_lr, "the rate")
    assert sizes == [32, 32]
    assert rates[0] == rates[1] > 0
    assert bool(decided.lr_range) is group.is_main


def check_nonfinite(group):
    """A NaN on one rank stops all, and names the rank and the image."""
    model = network(True)
    before = copy.deepcopy(model.state_dict())
    optimizer = make_optimizer(model, "sgd", 0.1, 0.9, 0.0)
    exchange = GradientExchange(group, model, optimizer)
    loss_fn = cross_entropy_loss(0.0)
    step_in_group = Stepper(
        model, optimizer, loss_fn, 0, group.rank_info.rank, 1, exchange
    )
    ((x, y),) = data((8,), soft=False)
    x[6] = float("nan")
    own_share = rank_slice(8, group.rank_info.rank, group.world_size)
    for sync in (False, True):
        context = sync_batch_norms(model, group) if sync else torch.enable_grad()
        with context, pytest.raises(NonFiniteError) as caught:
            step_in_group(x[own_share], y[own_share], 0)
        assert caught.value.layer == "the images on rank 1"
        assert caught.value.rows == (6,)
    for name, tensor in model.state_dict().items():
        assert tensor.equal(before[name]), name


def check_unequal_weights(group):
    """Weights that differ by one bit on one rank are detected and named."""
    model = network(False)
    exchange = GradientExchange(
        group, model, make_optimizer(model, "sgd", 0.1, 0.9, 0.0)
    )
    exchange.check_equal()
    with torch.no_grad():
        if not group.is_main:
            model.last.bias[1] += 1e-12
    with pytest.raises(RankError, match=r"differ, first last\.bias"):
        exchange.check_equal()


def check_execution(group):
    """All use the execution mode that rank 0 measured and every rank supports."""
    calls = []

    def choose_execution(model, batch, start, choices, steps):
        calls.append((len(batch[0]), choices))
        return BenchmarkResult(
            execution=ExecutionConfig(layout="nchw"),
            seconds={"nhwc fp32": 2, "nchw fp32": 1},
        )

    data = load_data("digits", cache="off", workers=1)
    recipe = Recipe(data="digits", cache="off", batch_size=64, accumulate=2)
    reason = "" if group.is_main else "no bf16 here"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(autotune, "MIN_STEPS", 1)
        patch.setattr(autotune, "bf16_obstacle", lambda device: reason)
        patch.setattr(autotune, "has_compiler", lambda: True)
        patch.setattr(autotune, "choose_execution", choose_execution)
        result = autotune.autotune(network(True), data, recipe, group)
        # Norms that exchange statistics are not compiled.
        recipe = replace(recipe, sync_batch_norm=True)
        autotune.autotune(network(True), data, recipe, group)
    assert autotune.recipe_execution(result.recipe) == ExecutionConfig(layout="nchw")
    assert result.milliseconds == {"nhwc fp32": 2000, "nchw fp32": 1000}
    expected = [(16, ExecutionChoices(compiled=True)), (16, ExecutionChoices())]
    assert calls == (expected if group.is_main else [])
    with pytest.raises(SettingError, match="cannot be compiled"):
        ranks_module.check_distributed(replace(recipe, compile="on"), group)


def check_all_gather_and_broadcast(group):
    gathered = group.all_gather_object(
        {"rank": group.rank_info.rank, "é": [1, None]}, "words"
    )
    assert [each["rank"] for each in gathered] == [0, 1]
    payload = b"\x00\xff weights" * 1000
    assert group.broadcast(payload if group.is_main else b"", "bytes") == payload
    assert group.max_over_ranks(3 + group.rank_info.rank, "numbers") == 4


def check_all():
    with process_group(RankInfo.from_environment(), torch.device("cpu")) as group:
        for name, check in list(globals().items()):
            if name.startswith("check_") and name != "check_all":
                check(group)
                if group.is_main:
                    print("ok", name)


def run_second_rank():
    """Run the checks as rank 1, and exit."""
    code = 1
    try:
        check_all()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with socket.create_server(("127.0.0.1", 0)) as choices:
        port = choices.getsockname()[1]
    start = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": "0"}
    os.environ |= start | {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    if not (child := os.fork()):
        os.environ |= {"RANK": "1", "LOCAL_RANK": "1"}
        run_second_rank()
    check_all()
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
