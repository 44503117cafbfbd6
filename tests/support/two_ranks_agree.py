"""Two ranks and one process learn from the same batches.

Every check is made in double precision, so that what remains is rounding: 1e-10. One
start does them all, and becomes the second rank by a fork, because importing torch
takes longer than checking.
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
from striate.core.frozen_mode import hold
from striate.data.batches import rank_slice
from striate.data.load import load_data
from striate.engine.benchmark import BenchmarkResult, Free
from striate.engine.distributed.gradients import Exchange
from striate.engine.distributed.group import joined
from striate.engine.distributed.rank_info import RankInfo
from striate.engine.distributed.sync_batch_norm import synchronized
from striate.engine.ema import EMA
from striate.engine.evaluate import evaluate
from striate.engine.execution import ExecutionConfig
from striate.engine.loop import StepDone
from striate.engine.loss import ClassCost, softmax_cost
from striate.engine.optim import make_optimizer
from striate.engine.stepper import USUAL, Stepper
from striate.engine.tta import VIEWS
from striate.run.recipe import Recipe, make_recipe
from striate.workflows.train import auto_settings as auto
from striate.workflows.train import autotune as speed
from striate.workflows.train import ranks as together

CLASSES = 3


class Net(nn.Module):
    """A convolution, a norm, a head on the way, and a layer that nothing uses."""

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
    made = torch.Generator().manual_seed(1)
    for size in sizes:
        x = torch.randn(size, 1, 6, 6, generator=made).double()
        y = torch.randint(CLASSES, (size,), generator=made)
        if soft:
            y = torch.rand(size, CLASSES, generator=made).double().softmax(1)
        yield x, y


def both(ranks, *, norm, sizes, soft=False, cost=None, pieces=1, sync=False, way=USUAL):
    """Return the networks and losses of all ranks together, and of one process."""
    cost = cost or softmax_cost(0.1)
    ours, alone = network(norm), network(norm)
    first = make_optimizer(ours, "sgd", 0.1, 0.9, 0.01)
    second = make_optimizer(alone, "sgd", 0.1, 0.9, 0.01)
    exchange = Exchange(ranks, ours, first)
    learn = Stepper(ours, first, cost, 0, ranks.place.rank, pieces, exchange, way)
    single = Stepper(alone, second, cost)
    losses = []
    for step, (x, y) in enumerate(data(sizes, soft)):
        mine = rank_slice(len(y), ranks.place.rank, ranks.world)
        with synchronized(ours, ranks) if sync else torch.enable_grad():
            loss = learn(x[mine], y[mine], step)
        losses.append((loss, single(x, y, step)))
        assert learn.images == len(y)
    exchange.check_equal()
    return ours, alone, losses


def averages(ranks, sizes, decay):
    """Return the averages that two ranks and one process keep."""
    ours, alone = network(True), network(True)
    optimizers = [make_optimizer(n, "sgd", 0.1, 0.9, 0.0) for n in (ours, alone)]
    exchange = Exchange(ranks, ours, optimizers[0])
    cost = softmax_cost(0.1)
    learn = Stepper(ours, optimizers[0], cost, 0, ranks.place.rank, 1, exchange)
    single = Stepper(alone, optimizers[1], cost)
    kept = EMA(ours, decay), EMA(alone, decay)
    for step, (x, y) in enumerate(data(sizes, soft=False)):
        mine = rank_slice(len(y), ranks.place.rank, ranks.world)
        with synchronized(ours, ranks):
            costs = learn(x[mine], y[mine], step), single(x, y, step)
        for average, loss in zip(kept, costs, strict=True):
            average.on_step(StepDone(0, step, step, loss, 0.1, len(y)))
    return kept


def assert_same(ours, alone, losses):
    for one, other in losses:
        assert abs(one - other) < 1e-10, losses
    pairs = zip(ours.state_dict().items(), alone.state_dict().values(), strict=True)
    for (name, one), other in pairs:
        difference = (one - other).abs().max().item()
        assert difference < 1e-10, (name, difference)


def check_learning(ranks):
    weights = ClassCost(weights=torch.tensor([0.5, 1.0, 4.0]).double())
    prior = ClassCost(prior=torch.tensor([0.2, 0.3, 0.5]).double())
    uneven = (8, 7, 5, 3, 2)
    assert_same(*both(ranks, norm=False, sizes=uneven))
    assert_same(*both(ranks, norm=False, sizes=uneven, soft=True))
    for cost in (softmax_cost(0.1, weights), softmax_cost(0.1, prior)):
        assert_same(*both(ranks, norm=False, sizes=uneven, cost=cost))
    assert_same(*both(ranks, norm=False, sizes=(16, 13, 9, 3), pieces=3))
    nchw = ExecutionConfig(layout="nchw")
    assert_same(*both(ranks, norm=False, sizes=uneven, way=nchw))


def check_norm(ranks):
    """Batch norm of the whole batch, also where a rank has no image of it."""
    assert_same(*both(ranks, norm=True, sizes=(8, 7, 5, 3, 2), sync=True))
    apart = both(ranks, norm=True, sizes=(8, 7))
    assert abs(apart[2][-1][0] - apart[2][-1][1]) > 1e-6  # each its own share's
    count = both(ranks, norm=True, sizes=(8, 3, 2))[0].norm.num_batches_tracked
    assert int(count) == 3


def check_held_norm(ranks):
    """To the bit, for any number of images: a mean of equals would be rounded."""
    model = network(True).float()
    nn.init.normal_(model.norm.running_mean)
    model.norm.running_var += 0.3
    hold(model.norm)
    before = [buffer.clone() for buffer in model.norm.buffers()]
    optimizer = make_optimizer(model, "sgd", 0.1, 0.9, 0.01)
    exchange = Exchange(ranks, model, optimizer)
    cost, rank = softmax_cost(0.0), ranks.place.rank
    learn = Stepper(model, optimizer, cost, 0, rank, 1, exchange)
    for step, (x, y) in enumerate(data((7, 5, 3), soft=False)):
        mine = rank_slice(len(y), rank, ranks.world)
        learn(x[mine].float(), y[mine], step)
    assert all(map(torch.equal, before, model.norm.buffers()))


def check_pieces_of_norm(ranks):
    """Pieces of a shared norm meet piece by piece, however few images there are."""
    ours, _, losses = both(ranks, norm=True, sizes=(8, 3, 2), sync=True, pieces=4)
    assert all(torch.isfinite(torch.tensor(losses)).flatten())
    assert all(bool(p.isfinite().all()) for p in ours.parameters())


def check_slopes(ranks):
    """The shared norm's slopes are those of the same formula, by autograd."""
    for layout in (torch.contiguous_format, torch.channels_last):
        for affine in (True, False):
            assert_slopes(ranks, nn.BatchNorm2d(2, affine=affine), (3, 3), layout)
    assert_slopes(ranks, nn.BatchNorm1d(2), (), torch.contiguous_format)
    assert_slopes(ranks, nn.BatchNorm1d(2), (4,), torch.contiguous_format)


def assert_slopes(ranks, norm, sides, layout):
    made = torch.Generator().manual_seed(3)
    x = torch.randn(5, 2, *sides, generator=made).double()
    x = (3 + x * torch.arange(1, 6).view(-1, 1, *[1] * len(sides))).double()
    x = x.contiguous(memory_format=layout)
    wish = torch.randn(5, 2, *sides, generator=made).double()
    norm.double()
    if norm.affine:
        nn.init.normal_(norm.weight, generator=made)
    twin = copy.deepcopy(norm)
    mine = rank_slice(5, ranks.place.rank, ranks.world)
    part, whole = x[mine].clone().requires_grad_(), x.clone().requires_grad_()
    with synchronized(norm, ranks):
        (norm(part) * wish[mine]).sum().backward()
    (twin(whole) * wish).sum().backward()
    assert torch.allclose(part.grad, whole.grad[mine], atol=1e-12)
    assert torch.allclose(norm.running_mean, twin.running_mean, atol=1e-12)
    assert torch.allclose(norm.running_var, twin.running_var, atol=1e-12)
    for ours, other in zip(norm.parameters(), twin.parameters(), strict=True):
        ranks.total(ours.grad, "a slope")
        assert torch.allclose(ours.grad, other.grad, atol=1e-12)
    assert "forward" not in vars(norm)


def check_norm_of_one_number_a_rank(ranks):
    """A rank with one number a channel has no variance of its own."""
    norm, twin = nn.BatchNorm1d(3).double(), nn.BatchNorm1d(3).double()
    x = torch.tensor([[1.0, 2.0, 3.0], [5.0, 2.0, -1.0]]).double()
    with synchronized(norm, ranks):
        y = norm(x[ranks.place.rank][None])
    assert torch.allclose(y[0], twin(x)[ranks.place.rank])


def check_norm_of_half_precision(ranks):
    """Statistics are counted in single precision, whatever the maps are in."""
    made = torch.Generator().manual_seed(4)
    x = 7 + torch.randn(13, 2, 7, 9, generator=made)
    norm, twin = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
    mine = rank_slice(13, ranks.place.rank, ranks.world)
    with synchronized(norm, ranks):
        y = norm(x[mine].bfloat16())
    assert y.dtype == torch.bfloat16
    assert torch.allclose(y.float(), twin(x)[mine], atol=0.05)
    assert torch.allclose(norm.running_var, twin.running_var, rtol=0.01)


def check_without_shared_memory(ranks):
    """By gloo, as ranks of several machines, it is the same."""
    held, ranks.beside = ranks.beside, None
    assert held is not None
    check_norm(ranks)
    check_slopes(ranks)
    ranks.beside = held


def check_judging(ranks):
    """Every image is judged once, and in the order of one process."""
    model = network(True).eval()
    assert_judged_alike(ranks, model, model, "plain")


def assert_judged_alike(ranks, ours, alone, view):
    batches = list(data((7, 6, 3, 1), soft=False))
    rank, world = ranks.place.rank, ranks.world
    shares = [rank_slice(len(y), rank, world) for _, y in batches]
    mine = [(x[s], y[s]) for (x, y), s in zip(batches, shares, strict=True)]
    together = evaluate(ours, mine, VIEWS[view], ranks)
    single = evaluate(alone, batches, VIEWS[view])
    assert together.labels.equal(single.labels)
    assert torch.allclose(together.logits, single.logits, atol=1e-6)
    assert len(together.labels) == 17


def check_average(ranks):
    """The ranks keep one process's average, and judge it alike in both views."""
    ours, alone = averages(ranks, (8, 7, 5, 3), 0.9)
    assert_same(ours.model, alone.model, [])
    assert not ours.model.conv.weight.equal(ours._learning.conv.weight)
    assert_judged_alike(ranks, ours.model, alone.model, "flip")


def check_auto(ranks):
    """Batch size and rate are found out by rank 0 alone, for all."""
    words = {"data": "digits", "batch_size": "auto", "lr": "auto", "cache": "off"}
    recipe = make_recipe(words).resolved()
    images = load_data("digits", cache="off")
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.MonkeyPatch.context() as patch:
        if not ranks.first:
            patch.setattr(auto, "_found", lambda *words: pytest.fail("found out twice"))
        found = auto.decide(recipe, model, images, ranks)
    sizes = ranks.words(found.recipe.images_a_step, "the batch size")
    rates = ranks.words(found.recipe.rate, "the rate")
    assert sizes == [32, 32]
    assert rates[0] == rates[1] > 0
    assert bool(found.tried) is ranks.first


def check_blown(ranks):
    """A number that is none on one rank stops all, names the rank and the image."""
    model = network(True)
    before = copy.deepcopy(model.state_dict())
    optimizer = make_optimizer(model, "sgd", 0.1, 0.9, 0.0)
    exchange = Exchange(ranks, model, optimizer)
    cost = softmax_cost(0.0)
    learn = Stepper(model, optimizer, cost, 0, ranks.place.rank, 1, exchange)
    ((x, y),) = data((8,), soft=False)
    x[6] = float("nan")
    mine = rank_slice(8, ranks.place.rank, ranks.world)
    for sync in (False, True):
        how = synchronized(model, ranks) if sync else torch.enable_grad()
        with how, pytest.raises(NonFiniteError) as caught:
            learn(x[mine], y[mine], 0)
        assert caught.value.layer == "the images on rank 1"
        assert caught.value.rows == (6,)
    for name, tensor in model.state_dict().items():
        assert tensor.equal(before[name]), name


def check_parted(ranks):
    """Weights that differ by one bit on one rank are found and named."""
    model = network(False)
    exchange = Exchange(ranks, model, make_optimizer(model, "sgd", 0.1, 0.9, 0.0))
    exchange.check_equal()
    with torch.no_grad():
        if not ranks.first:
            model.last.bias[1] += 1e-12
    with pytest.raises(RankError, match=r"differ, first last\.bias"):
        exchange.check_equal()


def check_way(ranks):
    """All compute as rank 0 has measured, in what every rank is able to do."""
    asked = []

    def tune(model, batch, start, free, steps):
        asked.append((len(batch[0]), free))
        return BenchmarkResult(
            way=ExecutionConfig(layout="nchw"), seconds={"nhwc fp32": 2, "nchw fp32": 1}
        )

    data = load_data("digits", cache="off", workers=1)
    recipe = Recipe(data="digits", cache="off", batch_size=64, accumulate=2)
    reason = "" if ranks.first else "no bf16 here"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed, "FEWEST_STEPS", 1)
        patch.setattr(speed, "why_not_bf16", lambda device: reason)
        patch.setattr(speed, "has_compiler", lambda: True)
        patch.setattr(speed, "tune", tune)
        settled = speed.settle(network(True), data, recipe, ranks)
        # Norms that exchange statistics are not compiled.
        recipe = replace(recipe, sync_batch_norm=True)
        speed.settle(network(True), data, recipe, ranks)
    assert speed.way_of(settled.recipe) == ExecutionConfig(layout="nchw")
    assert settled.measured == {"nhwc fp32": 2000, "nchw fp32": 1000}
    expected = [(16, Free(compiled=True)), (16, Free())]
    assert asked == (expected if ranks.first else [])
    with pytest.raises(SettingError, match="cannot be compiled"):
        together.check_together(replace(recipe, compile="on"), ranks)


def check_words(ranks):
    said = ranks.words({"rank": ranks.place.rank, "é": [1, None]}, "words")
    assert [each["rank"] for each in said] == [0, 1]
    payload = b"\x00\xff weights" * 1000
    assert ranks.spread(payload if ranks.first else b"", "bytes") == payload
    assert ranks.largest(3 + ranks.place.rank, "numbers") == 4


def check_all():
    with joined(RankInfo.of(), torch.device("cpu")) as ranks:
        for name, check in list(globals().items()):
            if name.startswith("check_") and name != "check_all":
                check(ranks)
                if ranks.first:
                    print("ok", name)


def be_the_other():
    """Check as rank 1, and end."""
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
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    start = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": "0"}
    os.environ |= start | {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    if not (other := os.fork()):
        os.environ |= {"RANK": "1", "LOCAL_RANK": "1"}
        be_the_other()
    check_all()
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]))
