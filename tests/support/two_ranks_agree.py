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
from striate.core.frozen_eval_mode import freeze_mode
from striate.data.batches import rank_slice
from striate.data.load import load_data
from striate.engine.benchmark import BenchmarkResult, ExecutionChoices
from striate.engine.callbacks import StepResult
from striate.engine.check_rank_weights import check_equal_weights
from striate.engine.distributed.group import join_process_group
from striate.engine.distributed.rank_info import RankInfo
from striate.engine.ema import EMA
from striate.engine.evaluate import evaluate
from striate.engine.execution_config import ExecutionConfig
from striate.engine.loss import ClassBalance, cross_entropy_loss
from striate.engine.optim import make_optimizer
from striate.engine.recoverable_step import RecoverableStep
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


def step_of(group, model, optimizer, loss_fn, **more):
    return RecoverableStep(model, optimizer, loss_fn, group=group, **more)


def own_share(group, x, y):
    rows = rank_slice(len(y), group.rank, group.world_size)
    return x[rows], y[rows]


def train_both_ways(group, *, sizes, norm=False, soft=False, loss_fn=None, **more):
    """Train on all ranks and in one process; return both networks and the losses."""
    loss_fn = loss_fn or cross_entropy_loss(0.1)
    distributed, alone = network(norm), network(norm)
    first = make_optimizer(distributed, "sgd", 0.1, 0.9, 0.01)
    second = make_optimizer(alone, "sgd", 0.1, 0.9, 0.01)
    step_in_group = step_of(group, distributed, first, loss_fn, **more)
    step_alone = RecoverableStep(alone, second, loss_fn)
    losses = []
    for step, (x, y) in enumerate(data(sizes, soft)):
        loss = step_in_group(*own_share(group, x, y), step)
        losses.append((loss, step_alone(x, y, step)))
        assert step_in_group.images == len(y)
    check_equal_weights(distributed, group)
    return distributed, alone, losses


def ema_both_ways(group, sizes, decay):
    """Return the EMAs of all ranks and of one process."""
    distributed, alone = network(False), network(False)
    optimizers = [make_optimizer(n, "sgd", 0.1, 0.9, 0.0) for n in (distributed, alone)]
    loss_fn = cross_entropy_loss(0.1)
    step_in_group = step_of(group, distributed, optimizers[0], loss_fn)
    step_alone = RecoverableStep(alone, optimizers[1], loss_fn)
    emas = EMA(distributed, decay), EMA(alone, decay)
    for step, (x, y) in enumerate(data(sizes, soft=False)):
        step_losses = (
            step_in_group(*own_share(group, x, y), step),
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
    """Running statistics are the mean over the images of all ranks."""
    model = network(True)
    optimizer = make_optimizer(model, "sgd", 0.0, 0.0, 0.0)
    step_in_group = step_of(group, model, optimizer, cross_entropy_loss(0.0))
    # The third batch is too small for the second rank, which then counts nothing.
    for step, (x, y) in enumerate(data((8, 5, 1), soft=False)):
        before = {name: b.clone() for name, b in model.norm.named_buffers()}
        step_in_group(*own_share(group, x, y), step)
        expected = torch.zeros(4).double()
        for rank in range(group.world_size):
            rows = x[rank_slice(len(y), rank, group.world_size)]
            if len(rows):
                mean = model.conv(rows).mean((0, 2, 3)).detach()
                expected += len(rows) / len(y) * mean
        mean = 0.9 * before["running_mean"] + 0.1 * expected
        assert torch.allclose(model.norm.running_mean, mean, atol=1e-12)
    assert int(model.norm.num_batches_tracked) == 3
    check_equal_weights(model, group)


def check_frozen_norm(group):
    """Frozen statistics stay the same to the bit; a mean of equals would be rounded."""
    model = network(True).float()
    nn.init.normal_(model.norm.running_mean)
    model.norm.running_var += 0.3
    freeze_mode(model.norm)
    before = [buffer.clone() for buffer in model.norm.buffers()]
    optimizer = make_optimizer(model, "sgd", 0.1, 0.9, 0.01)
    step_in_group = step_of(group, model, optimizer, cross_entropy_loss(0.0))
    for step, (x, y) in enumerate(data((7, 5, 3), soft=False)):
        step_in_group(*own_share(group, x.float(), y), step)
    assert all(map(torch.equal, before, model.norm.buffers()))


def check_micro_batches_of_norm(group):
    """Batch norm works with micro-batches, however few images there are."""
    distributed, _, losses = train_both_ways(
        group, norm=True, sizes=(8, 3, 2), micro_batches=4
    )
    assert all(torch.isfinite(torch.tensor(losses)).flatten())
    assert all(bool(p.isfinite().all()) for p in distributed.parameters())


def check_sync_batch_norm(group):
    """torch has no synchronized batch norm for the CPU; the layers are put back."""
    recipe = Recipe(data="digits", sync_batch_norm=True, device="cpu")
    with pytest.raises(SettingError, match="synchronized batch norm needs GPUs"):
        ranks_module.check_distributed(recipe, group)
    model = network(True)
    norm = model.norm
    with ranks_module.sync_batch_norm(model, recipe, group):
        assert isinstance(model.norm, nn.SyncBatchNorm)
        assert model.norm.weight is norm.weight
        assert model.norm.running_mean is norm.running_mean
    assert model.norm is norm


def check_evaluation(group):
    """Every image is evaluated once, in the order of one process."""
    model = network(True).eval()
    assert_evaluated_alike(group, model, model, "plain")


def assert_evaluated_alike(group, distributed, alone, tta):
    batches = list(data((7, 6, 3, 1), soft=False))
    shares = [own_share(group, x, y) for x, y in batches]
    gathered = evaluate(distributed, shares, TTA_MODES[tta], group)
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
    step_in_group = step_of(group, model, optimizer, cross_entropy_loss(0.0))
    ((x, y),) = data((8,), soft=False)
    x[6] = float("nan")
    with pytest.raises(NonFiniteError) as caught:
        step_in_group(*own_share(group, x, y), 0)
    assert caught.value.layer == "the images on rank 1"
    assert caught.value.rows == (6,)
    for name, tensor in model.state_dict().items():
        assert tensor.equal(before[name]), name


def check_unequal_weights(group):
    """Weights that differ by one bit on one rank are detected and named."""
    model = network(False)
    check_equal_weights(model, group)
    with torch.no_grad():
        if not group.is_main:
            model.last.bias[1] += 1e-12
    with pytest.raises(RankError, match=r"differ, first in last\.bias"):
        check_equal_weights(model, group)


def check_different_steps(group):
    """A rank that has skipped a step is named."""
    model = network(False)
    optimizer = make_optimizer(model, "sgd", 0.1, 0.9, 0.0)
    step_in_group = step_of(group, model, optimizer, cross_entropy_loss(0.0))
    ((x, y),) = data((8,), soft=False)
    with pytest.raises(RankError, match="rank 0 at step 8; rank 1 at step 9"):
        step_in_group(*own_share(group, x, y), 7 + group.rank)


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


def check_all_gather_and_broadcast(group):
    gathered = group.all_gather_object({"rank": group.rank, "é": [1, None]}, "words")
    assert [each["rank"] for each in gathered] == [0, 1]
    payload = b"\x00\xff weights" * 1000
    assert group.broadcast(payload if group.is_main else b"", "bytes") == payload


def run_checks():
    cpu = torch.device("cpu")
    with join_process_group(RankInfo.from_environment(), cpu) as group:
        for name, check in list(globals().items()):
            if name.startswith("check_") and check.__module__ == __name__:
                check(group)
                if group.is_main:
                    print("ok", name)


def run_second_rank():
    """Run the checks as rank 1, and exit."""
    code = 1
    try:
        run_checks()
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
    run_checks()
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
