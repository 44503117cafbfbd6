"""Training loop, schedules, optimizers, evaluation and stop signals."""

import math
import signal
import threading

import pytest
import torch
from torch import nn

from striate.core.errors import NonFiniteError, SettingError, UnknownNameError
from striate.engine.callbacks import EpochResult
from striate.engine.evaluate import evaluate
from striate.engine.optim import OPTIMIZERS, make_optimizer, set_lr
from striate.engine.schedule import END_FACTOR, SCHEDULES, START_FACTOR, WARMUP_FRACTION
from striate.engine.signals import catch_stop_signals
from striate.engine.train_step import train_step
from striate.engine.training_loop import FitConfig, FitSession, fit


class Data:
    """Batches that can be gone through once an epoch."""

    def __init__(self, *batches):
        self.batches = batches

    def __call__(self, epoch=0, start=0):
        return iter(self.batches[start:])

    def __len__(self):
        return len(self.batches)


def toy(seed=0, count=32):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 1, 4, 4, generator=draw)
    y = (x.mean((1, 2, 3)) > 0).long()
    return x, y


def net(seed=0):
    torch.manual_seed(seed)
    layers = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2)
    return nn.Sequential(*layers)


def run_fit(model, train, val, callbacks=(), should_stop=lambda: False, **config_args):
    settings = {
        "epochs": 3,
        "lr": 0.01,
        "schedule": SCHEDULES["constant"],
        **config_args,
    }
    optimizer = make_optimizer(model, "adamw", settings["lr"], 0.9, 0.0)
    session = FitSession(should_stop=should_stop)
    config = FitConfig(**settings)
    return fit(
        model, optimizer, train, val, config, callbacks=callbacks, session=session
    )


class Recorder:
    """An observer that keeps what it is told."""

    def __init__(self):
        self.steps, self.epochs = [], []

    def on_step_end(self, result):
        self.steps.append(result)

    def on_epoch_end(self, result):
        self.epochs.append(result)


def test_fit_trains_and_calls_callbacks():
    x, y = toy()
    recorder = Recorder()
    batches = Data((x[:20], y[:20]), (x[20:], y[20:]))
    history = run_fit(net(), batches, Data((x, y)), [recorder], epochs=20, lr=0.03)
    assert history[-1].train_loss < history[0].train_loss
    assert history[-1].val_accuracy > 0.9
    assert recorder.epochs == history
    assert [s.step for s in recorder.steps] == list(range(40))
    assert [s.epoch for s in recorder.steps] == [1 + i // 2 for i in range(40)]
    assert [s.images for s in recorder.steps[:2]] == [20, 12]
    mean = (20 * recorder.steps[0].loss + 12 * recorder.steps[1].loss) / 32
    assert history[0].train_loss == pytest.approx(mean)
    assert history[0].best


def test_lr_follows_the_schedule():
    x, y = toy()
    recorder = Recorder()
    cosine = SCHEDULES["cosine"]
    run_fit(
        net(), Data((x, y)), Data((x, y)), [recorder], epochs=5, lr=0.5, schedule=cosine
    )
    expected = [0.5 * cosine(i / 4) for i in range(5)]
    assert [s.lr for s in recorder.steps] == pytest.approx(expected)
    assert [e.lr for e in recorder.epochs] == pytest.approx(expected)


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_schedules_stay_within_bounds(name):
    factors = [SCHEDULES[name](i / 200) for i in range(201)]
    assert all(0 < factor <= 1 for factor in factors)
    assert max(factors) == pytest.approx(1)
    if name != "one_cycle":
        assert factors == sorted(factors, reverse=True)


def test_schedule_values():
    one_cycle = SCHEDULES["one_cycle"]
    assert one_cycle(0) == pytest.approx(START_FACTOR)
    assert one_cycle(WARMUP_FRACTION) == pytest.approx(1)
    assert one_cycle(1) == pytest.approx(END_FACTOR)
    assert one_cycle(WARMUP_FRACTION / 2) == pytest.approx((1 + START_FACTOR) / 2)
    assert SCHEDULES["cosine"](0.5) == pytest.approx((1 + END_FACTOR) / 2)
    step = SCHEDULES["step"]
    assert [step(t) for t in (0, 0.49, 0.5, 0.74, 0.75, 1)] == [
        1,
        1,
        0.1,
        0.1,
        0.01,
        0.01,
    ]
    assert SCHEDULES["constant"](0.7) == 1
    with pytest.raises(UnknownNameError, match="did you mean cosine"):
        SCHEDULES["cosin"]


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_weight_decay_applies_to_kernels_only(name):
    model = net()
    optimizer = make_optimizer(model, name, 0.1, 0.9, 0.5)
    decay = {
        id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]
    }
    decays = {n: decay[id(p)] for n, p in model.named_parameters()}
    assert decays == {
        "0.weight": 0.5,
        "0.bias": 0.0,
        "1.weight": 0.0,
        "1.bias": 0.0,
        "3.weight": 0.5,
        "3.bias": 0.0,
    }
    set_lr(optimizer, 0.25)
    assert {group["lr"] for group in optimizer.param_groups} == {0.25}


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_optimizers_reduce_the_loss(name):
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False))
    x, y = toy()
    optimizer = make_optimizer(model, name, 0.05, 0.0, 0.0)
    losses = [train_step(model, x, y, optimizer) for _ in range(20)]
    assert losses[-1] < losses[0]


def test_frozen_parameters_are_not_optimized():
    model = net()
    model[0].requires_grad_(False)
    parameters = [
        p
        for g in make_optimizer(model, "sgd", 0.1, 0.9, 0).param_groups
        for p in g["params"]
    ]
    assert not {id(p) for p in model[0].parameters()} & {id(p) for p in parameters}
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(SettingError, match="no trainable parameter"):
        make_optimizer(model, "sgd", 0.1, 0.9, 0)


def test_label_smoothing_changes_the_training_loss_only():
    x, y = toy()
    settings_ = {"epochs": 1, "lr": 1e-12}
    plain = run_fit(net(), Data((x, y)), Data((x, y)), **settings_)[0]
    smooth = run_fit(
        net(), Data((x, y)), Data((x, y)), label_smoothing=0.2, **settings_
    )[0]
    assert smooth.train_loss != plain.train_loss
    assert smooth.val_loss == pytest.approx(plain.val_loss, abs=1e-6)


# --- stopping


def test_early_stopping_uses_validation_only():
    """Training improves for ever; validation's labels are upside down."""
    x, y = toy()
    history = run_fit(
        net(), Data((x, y)), Data((x, 1 - y)), epochs=40, patience=3, lr=0.02
    )
    assert len(history) < 40
    best = max(i for i, result in enumerate(history) if result.best)
    assert len(history) == best + 1 + 3
    losses = [result.train_loss for result in history]
    assert losses == sorted(losses, reverse=True)


def test_without_patience_it_never_stops_early():
    x, y = toy()
    assert len(run_fit(net(), Data((x, y)), Data((x, 1 - y)), epochs=12)) == 12


def test_ties_in_accuracy_are_broken_by_the_loss():
    x, y = toy()
    history = run_fit(net(), Data((x, y)), Data((x, y)), epochs=30, lr=0.02)
    earlier: list[EpochResult] = []
    for result in history:
        better = all(
            (result.val_accuracy, -result.val_loss) > (e.val_accuracy, -e.val_loss)
            for e in earlier
        )
        assert result.best == better
        earlier.append(result)


def test_stop_request_ends_between_steps():
    x, y = toy()
    recorder = Recorder()
    model = net()
    history = run_fit(
        model,
        Data(*[(x, y)] * 4),
        Data((x, y)),
        [recorder],
        should_stop=lambda: len(recorder.steps) == 6,
    )
    assert (len(history), len(recorder.steps)) == (1, 6)


# --- numbers that are none


def poisoned(model, step):
    """Make the model give NaN in its nth training step."""
    calls = []

    def hook(module, inputs, output):
        calls.append(module.training)
        if sum(calls) == step and module.training:
            return output * float("nan")
        return None

    model[0].register_forward_hook(hook)
    return model


def test_nan_names_epoch_and_step_and_keeps_the_weights():
    """Without the guard before `backward` the weights are NaN for good."""
    x, y = toy()
    model = poisoned(
        nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(12, 2)), 6
    )
    before = {}

    class Watch(Recorder):
        def on_step_end(self, result):
            before.update({n: p.clone() for n, p in model.named_parameters()})

    with pytest.raises(NonFiniteError) as caught:
        run_fit(model, Data(*[(x, y)] * 4), Data((x, y)), [Watch()])
    assert caught.value.what == (
        "the training loss became nan, but not when the same batch was run again"
    )
    assert caught.value.where == "epoch 2, step 2"
    assert caught.value.fix == "lower --lr; the last good weights are kept"
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])


def test_nonfinite_validation_is_never_best():
    """Without the guard the first epoch's NaN counts as best and is saved as such."""
    x, y = toy()
    recorder = Recorder()
    with pytest.raises(NonFiniteError) as caught:
        run_fit(net(), Data((x, y)), Data((x * float("inf"), y)), [recorder])
    assert caught.value.what == ("the validation loss became nan, first in the images")
    assert caught.value.where == "epoch 1, after step 1"
    assert recorder.epochs == []


def test_huge_learning_rate_is_an_error():
    x, y = toy()
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Linear(8, 2))
    optimizer = make_optimizer(model, "sgd", 1e30, 0.9, 0.0)
    config_args = FitConfig(epochs=5, lr=1e30, schedule=SCHEDULES["constant"])
    with pytest.raises(NonFiniteError, match=r"loss became (nan|inf)"):
        fit(model, optimizer, Data(*[(x, y)] * 3), Data((x, y)), config_args)


# --- judging


def test_evaluate_does_not_change_the_model():
    model = net()
    x, y = toy()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    random = torch.get_rng_state()
    outputs = evaluate(model, [(x[:20], y[:20]), (x[20:], y[20:])])
    assert model.training
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    with torch.no_grad():
        logits = model.eval()(x)
    assert torch.allclose(outputs.logits, logits, atol=1e-6)
    assert outputs.accuracy == pytest.approx(
        float((logits.argmax(1) == y).float().mean())
    )
    expected = nn.functional.cross_entropy(logits, y)
    assert outputs.loss == pytest.approx(float(expected))
    assert outputs.probs.sum(1).allclose(torch.ones(32))


# --- Ctrl-C


def test_first_ctrl_c_requests_a_stop_and_second_interrupts():
    before = signal.getsignal(signal.SIGINT)
    with catch_stop_signals() as request:
        assert not request()
        signal.raise_signal(signal.SIGINT)
        assert request()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_signal_handlers_are_restored_after_errors():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyError), catch_stop_signals():
        raise KeyError
    assert signal.getsignal(signal.SIGINT) is before


def test_signals_outside_the_main_thread():
    values = []

    def work():
        with catch_stop_signals() as request:
            values.append(request())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert values == [False]


def test_train_step_returns_the_loss():
    x, y = toy()
    model = net()
    loss = train_step(model, x, y, make_optimizer(model, "sgd", 0.1, 0.9, 0))
    assert math.isfinite(loss)
