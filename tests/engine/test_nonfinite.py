"""NaN and infinity never reach the weights, and their source is named (fault G1)."""

import math
import random

import pytest
import torch
from torch import nn

from striate.core.errors import NonFiniteError
from striate.engine import nonfinite
from striate.engine import train_step as step_module
from striate.engine.nonfinite import (
    BufferSnapshot,
    first_bad_layer,
    gradients_are_finite,
)
from striate.engine.optim import make_optimizer
from striate.engine.schedule import SCHEDULES
from striate.engine.train_state import TrainState
from striate.engine.training_loop import FitConfig, FitSession, fit
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
    def from_seed(cls, number):
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
            "loss": "the loss",
            "gradient": f"{self.layer}.weight",
        }[self.kind]

    def batches(self, inner):
        return PoisonedBatches(self, inner)

    def attach(self, model):
        layer = model.get_submodule(self.layer)
        if self.kind == "activation":
            layer.forward = self._after(layer.forward, model, self._one_bad)
        if self.kind == "loss":
            model.forward = self._after(model.forward, model, _with_infinite_loss)
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


def _with_infinite_loss(output):
    """Finite answers whose cost is not."""
    return output * 0 + torch.tensor([3e38, -3e38])


class PoisonedBatches:
    """Batches that tell the poison which step it is, and may hold it."""

    def __init__(self, poison, inner):
        self.poison, self.inner = poison, inner

    def __call__(self, epoch, start=0):
        for i, (x, y) in enumerate(self.inner(epoch, start), start):
            self.poison.now = epoch * len(self.inner) + i
            if (self.poison.kind, self.poison.now) == ("input", self.poison.step):
                x = x.clone()
                x[self.poison.row, 0, 1, 2] = self.poison.value
            yield x, y

    def __len__(self):
        return len(self.inner)


class PoisonedRun:
    """A run with a poison in it; keeps the state after the last good step."""

    def __init__(self, poison):
        self.poison = poison
        self.model = network()
        self.optimizer = make_optimizer(self.model, "adamw", 0.05, 0.9, 0.01)
        self.state = TrainState()
        poison.attach(self.model)
        self.good = self.tensors()
        self.losses = []

    def tensors(self):
        tensors = {k: v.clone() for k, v in self.model.state_dict().items()}
        for i, entries in self.optimizer.state_dict()["state"].items():
            tensors |= {f"{i}.{key}": value.clone() for key, value in entries.items()}
        return tensors

    def on_step_end(self, result):
        self.good = self.tensors()
        self.losses.append(result.loss)

    def on_epoch_end(self, result):
        assert math.isfinite(result.val_loss)

    def fit(self, **options):
        settings = {"label_smoothing": 0.1, "seed": 7}
        schedule = SCHEDULES["constant"]
        config = FitConfig(epochs=2, lr=0.05, schedule=schedule, **settings)
        train = self.poison.batches(batches())
        val = batches(9, pixels=1, shuffle=False)
        return fit(
            self.model,
            self.optimizer,
            train,
            val,
            config,
            callbacks=[self],
            state=self.state,
            session=FitSession(**options),
        )


def all_equal(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(first[k], second[k]) for k in first
    )


def check_injection(number):
    poison = Poison.from_seed(number)
    run = PoisonedRun(poison)
    with pytest.raises(NonFiniteError) as caught:
        run.fit()
    error = caught.value
    assert run.state.step == poison.step
    assert error.layer == poison.expected
    assert f", first in {poison.expected}" in error.what
    epoch, batch = divmod(poison.step, STEPS)
    assert error.where == f"epoch {epoch + 1}, step {batch + 1}"
    assert error.split == "train"
    assert all_equal(run.tensors(), run.good)
    assert all(p.grad is None for p in run.model.parameters())
    rows = (poison.row,) if poison.kind in ("input", "activation") else ()
    assert error.rows == rows


def test_100_injected_nonfinite_values_are_detected_and_named():
    """At random steps, in input, activation, cost and gradient, NaN and infinity."""
    for number in range(100):
        check_injection(number)


@pytest.mark.parametrize("guard", ["gradients_are_finite", "restore"])
def test_that_bites(monkeypatch, guard):
    """Without a guard, weights or running statistics are NaN for good."""
    if guard == "restore":
        monkeypatch.setattr(BufferSnapshot, "restore", lambda self: None)
    else:
        monkeypatch.setattr(step_module, "gradients_are_finite", lambda optimizer: True)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        test_100_injected_nonfinite_values_are_detected_and_named()


# --- skipping


def test_skipped_batch_changes_nothing():
    """Weights, moments and statistics are as if it had not been; the rest goes on."""
    poison = Poison("input", 3, float("nan"))
    run = PoisonedRun(poison)
    events = []

    def skip(error, state):
        events.append((state.step, all_equal(run.tensors(), run.good)))

    history = run.fit(on_nonfinite=skip)
    assert events == [(3, True)]
    assert len(history) == 2
    assert [i for i, loss in enumerate(run.losses) if math.isnan(loss)] == [3]
    assert all(math.isfinite(result.train_loss) for result in history)
    assert run.state.skipped == 0
    assert all(t.isfinite().all() for t in run.model.state_dict().values())
    counted = run.model[1].num_batches_tracked.item()
    assert counted == 2 * STEPS - 1


def test_epoch_of_skipped_batches():
    """Its mean of nothing is 0, and not a division by it."""
    poison = Poison("input", 0, float("nan"))
    run = PoisonedRun(poison)
    skipped = []

    def skip(error, state):
        skipped.append(state.skipped)
        poison.step = state.step + 1 if state.step < STEPS - 1 else -1

    history = run.fit(on_nonfinite=skip)
    assert skipped == [0, 1, 2, 3, 4]
    assert history[0].train_loss == 0


# --- validation


def test_validation_names_layer_and_images():
    run = PoisonedRun(Poison("none", -1, 0.0))
    clean = batches(9, pixels=1, shuffle=False)

    def val(epoch, start=0):
        for number, (x, y) in enumerate(clean(0)):
            if number == 1:
                x[2] = float("inf")
            yield x, y

    optimizer, config = (
        run.optimizer,
        FitConfig(epochs=1, lr=0.1, schedule=lambda t: 1.0),
    )
    with pytest.raises(NonFiniteError) as caught:
        fit(run.model, optimizer, batches(), val, config)
    assert caught.value.what.startswith("the validation loss became ")
    assert caught.value.what.endswith(", first in the images")
    assert (caught.value.split, caught.value.rows) == ("val", (6,))
    assert run.model.training


def test_nonfinite_validation_loss_with_finite_layers():
    run = PoisonedRun(Poison("none", -1, 0.0))
    forward = run.model.forward
    run.model.forward = lambda x: (
        forward(x) if run.model.training else _with_infinite_loss(forward(x))
    )
    with pytest.raises(NonFiniteError, match="first in the loss"):
        run.fit()


# --- the parts


def test_overflowing_gradient_norm_is_finite():
    weight = nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    assert gradients_are_finite(optimizer)
    weight.grad = torch.full((4,), 3e38)
    assert gradients_are_finite(optimizer)
    weight.grad[2] = float("inf")
    assert not gradients_are_finite(optimizer)
    weight.grad[2] = float("nan")
    assert not gradients_are_finite(optimizer)


class ManyOutputs(nn.Module):
    """Answers with more than a tensor."""

    def __init__(self, make_output):
        super().__init__()
        self.inner = nn.Identity()
        self.make_output = make_output

    def forward(self, x):
        self.inner(x)
        return self.make_output(x / 0)


@pytest.mark.parametrize(
    ("make_output", "rows"),
    [
        (lambda bad: (1, [bad]), (0, 1)),
        (lambda bad: {"a": "word", "b": bad}, (0, 1)),
        (lambda bad: bad.sum(), ()),
        (lambda bad: bad[:1], ()),
        (lambda bad: bad[0, 0].repeat(2), (0, 1)),
    ],
)
def test_first_bad_layer_checks_nested_outputs(make_output, rows):
    assert first_bad_layer(ManyOutputs(make_output), torch.ones(2, 3)) == (
        "ManyOutputs",
        rows,
    )


def test_first_bad_layer_ignores_integer_outputs():
    model = ManyOutputs(lambda bad: (bad.argmax(1), None))
    assert first_bad_layer(model, torch.ones(2, 3)) == ("", ())


def test_first_bad_gradient():
    """Backwards from the cost, so of two bad layers the later one was first."""
    model = network()
    for name, parameter in model.named_parameters():
        bad = name in ("0.weight", "1.bias")
        parameter.grad = torch.full_like(parameter, float("nan") if bad else 0.0)
    assert nonfinite.first_bad_gradient(model, torch.zeros(2, 1, 4, 4)) == "1.bias"
    model.zero_grad()
    assert nonfinite.first_bad_gradient(model, torch.zeros(2, 1, 4, 4)) == ""


class ReplacesBuffer(nn.Module):
    """Replaces its buffer instead of changing it, and grows it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))
        self.register_buffer("none", None)

    def forward(self, x):
        self.seen = torch.cat([self.seen, x])
        return x


def test_buffer_snapshot_restores_replaced_buffers():
    model = ReplacesBuffer()
    buffers = BufferSnapshot(model)
    for length in (1, 2, 3):
        buffers.save()
        model(torch.ones(1))
        assert len(model.seen) == length + 1
        buffers.restore()
        assert len(model.seen) == length
        model(torch.ones(1))
