"""Fault G1: NaN and infinity never reach the weights, and are traced back."""

import math
import random

import pytest
import torch
from torch import nn

from striate.core.errors import NonFiniteError
from striate.engine import nonfinite
from striate.engine import step as room
from striate.engine.loop import FitConfig, fit
from striate.engine.nonfinite import Buffers, first_bad_layer, gradients_are_finite
from striate.engine.optim import make_optimizer
from striate.engine.schedule import SCHEDULES
from striate.engine.train_state import TrainState
from support.small_run import batches, network

KINDS = ("input", "activation", "loss", "gradient")
LAYERS = ("0", "1", "4")
STEPS = 5


class Poison:
    """Puts bad numbers somewhere, in one step of a run, every time that it is run."""

    def __init__(self, kind, step, value, layer="0", row=0):
        self.kind, self.step, self.value = kind, step, value
        self.layer, self.row = layer, row
        self.now = -1

    @classmethod
    def drawn(cls, number):
        draw = random.Random(number)
        value = (float("nan"), float("inf"))[number // 4 % 2]
        kind, layer = KINDS[number % 4], draw.choice(LAYERS)
        return cls(kind, draw.randrange(2 * STEPS), value, layer, draw.randrange(2))

    @property
    def expected(self):
        """What is to be named."""
        return {
            "input": "the images",
            "activation": self.layer,
            "loss": "the cost",
            "gradient": f"{self.layer}.weight",
        }[self.kind]

    def batches(self, made):
        return Poisoned(self, made)

    def attach(self, model):
        layer = model.get_submodule(self.layer)
        if self.kind == "activation":
            layer.forward = self._after(layer.forward, model, self._one_bad)
        if self.kind == "loss":
            model.forward = self._after(model.forward, model, _costly)
        if self.kind == "gradient":
            layer.weight.register_hook(lambda grad: grad * self._factor(model))

    def _after(self, forward, model, change):
        def poisoned(x):
            return change(forward(x)) if self._hits(model) else forward(x)

        return poisoned

    def _hits(self, model):
        return model.training and self.now == self.step

    def _one_bad(self, output):
        output = output.clone()
        output[(self.row,) + (0,) * (output.ndim - 1)] = self.value
        return output

    def _factor(self, model):
        return self.value if self._hits(model) else 1.0


def _costly(output):
    """Finite answers whose cost is not."""
    return output * 0 + torch.tensor([3e38, -3e38])


class Poisoned:
    """Batches that tell the poison which step it is, and may hold it."""

    def __init__(self, poison, made):
        self.poison, self.made = poison, made

    def __call__(self, epoch, start=0):
        for i, (x, y) in enumerate(self.made(epoch, start), start):
            self.poison.now = epoch * len(self.made) + i
            if (self.poison.kind, self.poison.now) == ("input", self.poison.step):
                x = x.clone()
                x[self.poison.row, 0, 1, 2] = self.poison.value
            yield x, y

    def __len__(self):
        return len(self.made)


class Trial:
    """A run with a poison in it; keeps the state after the last good step."""

    def __init__(self, poison):
        self.poison = poison
        self.model = network()
        self.optimizer = make_optimizer(self.model, "adamw", 0.05, 0.9, 0.01)
        self.at = TrainState()
        poison.attach(self.model)
        self.good = self.state()
        self.losses = []

    def state(self):
        held = {k: v.clone() for k, v in self.model.state_dict().items()}
        for i, entries in self.optimizer.state_dict()["state"].items():
            held |= {f"{i}.{key}": value.clone() for key, value in entries.items()}
        return held

    def on_step(self, done):
        self.good = self.state()
        self.losses.append(done.loss)

    def on_epoch(self, done):
        assert math.isfinite(done.val_loss)

    def go(self, **options):
        settings = {"label_smoothing": 0.1, "seed": 7}
        schedule = SCHEDULES["constant"]
        plan = FitConfig(epochs=2, lr=0.05, schedule=schedule, **settings)
        train = self.poison.batches(batches())
        val = batches(9, pixels=1, shuffle=False)
        words = self.model, self.optimizer, train, val, plan, [self]
        return fit(*words, at=self.at, **options)


def same(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(one[k], other[k]) for k in one
    )


def check(number):
    poison = Poison.drawn(number)
    trial = Trial(poison)
    with pytest.raises(NonFiniteError) as caught:
        trial.go()
    error = caught.value
    assert trial.at.step == poison.step
    assert error.layer == poison.expected
    assert f", first in {poison.expected}" in error.what
    epoch, batch = divmod(poison.step, STEPS)
    assert error.where == f"epoch {epoch + 1}, step {batch + 1}"
    assert error.split == "train"
    assert same(trial.state(), trial.good)
    assert all(p.grad is None for p in trial.model.parameters())
    rows = (poison.row,) if poison.kind in ("input", "activation") else ()
    assert error.rows == rows


def test_100_injections_are_caught_and_named():
    """At random steps, in input, activation, cost and gradient, NaN and infinity."""
    for number in range(100):
        check(number)


@pytest.mark.parametrize("guard", ["gradients_are_finite", "put_back"])
def test_that_bites(monkeypatch, guard):
    """Without a guard, weights or running statistics are NaN for good."""
    if guard == "put_back":
        monkeypatch.setattr(Buffers, "put_back", lambda self: None)
    else:
        monkeypatch.setattr(room, "gradients_are_finite", lambda optimizer: True)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        test_100_injections_are_caught_and_named()


# --- skipping


def test_a_skipped_batch_leaves_no_trace():
    """Weights, moments and statistics are as if it had not been; the rest goes on."""
    poison = Poison("input", 3, float("nan"))
    trial = Trial(poison)
    seen = []

    def skip(error, at):
        seen.append((at.step, same(trial.state(), trial.good)))

    history = trial.go(blown=skip)
    assert seen == [(3, True)]
    assert len(history) == 2
    assert [i for i, loss in enumerate(trial.losses) if math.isnan(loss)] == [3]
    assert all(math.isfinite(done.train_loss) for done in history)
    assert trial.at.skipped == 0
    assert all(t.isfinite().all() for t in trial.model.state_dict().values())
    counted = trial.model[1].num_batches_tracked.item()
    assert counted == 2 * STEPS - 1


def test_an_epoch_of_which_all_was_skipped():
    """Its mean of nothing is 0, and not a division by it."""
    poison = Poison("input", 0, float("nan"))
    trial = Trial(poison)
    met = []

    def skip(error, at):
        met.append(at.skipped)
        poison.step = at.step + 1 if at.step < STEPS - 1 else -1

    history = trial.go(blown=skip)
    assert met == [0, 1, 2, 3, 4]
    assert history[0].train_loss == 0


# --- validation


def test_validation_names_layer_and_images():
    trial = Trial(Poison("none", -1, 0.0))
    clean = batches(9, pixels=1, shuffle=False)

    def val(epoch, start=0):
        for number, (x, y) in enumerate(clean(0)):
            if number == 1:
                x[2] = float("inf")
            yield x, y

    optimizer, plan = (
        trial.optimizer,
        FitConfig(epochs=1, lr=0.1, schedule=lambda t: 1.0),
    )
    with pytest.raises(NonFiniteError) as caught:
        fit(trial.model, optimizer, batches(), val, plan)
    assert caught.value.what.startswith("the validation loss became ")
    assert caught.value.what.endswith(", first in the images")
    assert (caught.value.split, caught.value.rows) == ("val", (6,))
    assert trial.model.training


def test_validation_whose_cost_alone_is_not_finite():
    trial = Trial(Poison("none", -1, 0.0))
    forward = trial.model.forward
    trial.model.forward = lambda x: (
        forward(x) if trial.model.training else _costly(forward(x))
    )
    with pytest.raises(NonFiniteError, match="first in the cost"):
        trial.go()


# --- the parts


def test_a_norm_that_overflows_is_no_fault():
    weight = nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    assert gradients_are_finite(optimizer)
    weight.grad = torch.full((4,), 3e38)
    assert gradients_are_finite(optimizer)
    weight.grad[2] = float("inf")
    assert not gradients_are_finite(optimizer)
    weight.grad[2] = float("nan")
    assert not gradients_are_finite(optimizer)


class Pair(nn.Module):
    """Answers with more than a tensor."""

    def __init__(self, answer):
        super().__init__()
        self.inner = nn.Identity()
        self.answer = answer

    def forward(self, x):
        self.inner(x)
        return self.answer(x / 0)


@pytest.mark.parametrize(
    ("answer", "rows"),
    [
        (lambda bad: (1, [bad]), (0, 1)),
        (lambda bad: {"a": "word", "b": bad}, (0, 1)),
        (lambda bad: bad.sum(), ()),
        (lambda bad: bad[:1], ()),
        (lambda bad: bad[0, 0].repeat(2), (0, 1)),
    ],
)
def test_answers_of_many_kinds_are_looked_into(answer, rows):
    assert first_bad_layer(Pair(answer), torch.ones(2, 3)) == ("Pair", rows)


def test_answers_that_hold_no_fraction():
    model = Pair(lambda bad: (bad.argmax(1), None))
    assert first_bad_layer(model, torch.ones(2, 3)) == ("", ())


def test_the_gradient_that_was_bad_first_is_named():
    """Backwards from the cost, so of two bad layers the later one was first."""
    model = network()
    for name, parameter in model.named_parameters():
        bad = name in ("0.weight", "1.bias")
        parameter.grad = torch.full_like(parameter, float("nan") if bad else 0.0)
    assert nonfinite.first_bad_gradient(model, torch.zeros(2, 1, 4, 4)) == "1.bias"
    model.zero_grad()
    assert nonfinite.first_bad_gradient(model, torch.zeros(2, 1, 4, 4)) == ""


class Moving(nn.Module):
    """Replaces its buffer instead of changing it, and grows it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))
        self.register_buffer("none", None)

    def forward(self, x):
        self.seen = torch.cat([self.seen, x])
        return x


def test_buffers_come_back_whatever_was_done_to_them():
    model = Moving()
    buffers = Buffers(model)
    for length in (1, 2, 3):
        buffers.keep()
        model(torch.ones(1))
        assert len(model.seen) == length + 1
        buffers.put_back()
        assert len(model.seen) == length
        model(torch.ones(1))
