"""After every analysis, finished or not, a network is as it was."""

import random
import subprocess
import sys
import warnings
import weakref
from contextlib import suppress

import numpy as np
import pytest
import torch
from torch import nn

import striate as st
from striate.core.errors import GeometryError, SettingError, StriateError
from striate.core.hooks import (
    evaluation_mode,
    model_restored,
    set_evaluation_mode,
    unwrap_compiled,
)
from striate.core.model_state import ModelState
from support import odd_modules
from support.odd_modules import CONVERTED, ODD_MODULES, Body, plain

IMAGE = torch.rand(1, 3, 8, 8)


def frozen_copy(value, depth=0):
    """Return what a value holds, in a form that can be compared later."""
    if isinstance(value, torch.Tensor):
        if torch.nn.parameter.is_lazy(value) or value.is_meta:
            return id(value), type(value), value.requires_grad
        values = value.detach().clone().dequantize().double().numpy().tobytes()
        return id(value), values, value.requires_grad, id(value.grad)
    if isinstance(value, np.ndarray):
        return id(value), value.tobytes()
    if isinstance(value, torch.Generator):
        return value.get_state().tolist()
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, np.random.Generator):
        return str(value.bit_generator.state)
    if depth > 5:
        return id(value)
    if isinstance(value, dict):
        items = [(str(k), frozen_copy(v, depth + 1)) for k, v in value.items()]
        return id(value), items
    if isinstance(value, list | tuple | set) or hasattr(value, "popleft"):
        return id(value), [frozen_copy(v, depth + 1) for v in value]
    if isinstance(value, odd_modules.Memo):
        return id(value), frozen_copy(value.tensors)
    if isinstance(value, odd_modules.Slots):
        return id(value.last)
    if callable(value) and getattr(value, "__closure__", None):
        cells = [frozen_copy(c.cell_contents, depth + 1) for c in value.__closure__]
        return id(value), cells
    return id(value)


def state_of(model):
    scripted = isinstance(model, torch.jit.ScriptModule)
    tables = [] if scripted else [m.__dict__ for m in model.modules()]
    own = {k: v for k, v in vars(type(model)).items() if k[:2] != "__"}
    functions = [f for f in own.values() if hasattr(f, "__defaults__")]
    return {
        "tensors": list(map(frozen_copy, (*model.parameters(), *model.buffers()))),
        "modes": [m.training for m in model.modules()],
        "classes": [type(m) for m in model.modules()],
        "attributes": [frozen_copy(table) for table in tables],
        "class": {name: frozen_copy(value) for name, value in own.items()},
        "defaults": [frozen_copy(f.__defaults__) for f in functions],
        "file": (frozen_copy(odd_modules.GRIDS), frozen_copy(odd_modules.LISTED)),
        "global": (id(odd_modules.LAST), odd_modules.CALLS),
        "lru_cache": odd_modules.grid.cache_info().currsize,
        "torch": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),
        "python": random.getstate(),
        "grad": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    }


def analyses(model):
    """Yield all analyses of a network, each as a function."""
    x = IMAGE.to(next((p.dtype for p in model.parameters()), torch.float32))
    yield lambda: st.summary(model, (3, 8, 8), batch_size=2)
    yield lambda: st.summary(model, (3, 8, 8), real=True)
    yield lambda: str(st.summary(model, (3, 9, 9)))
    yield lambda: st.summary(model, (3, 8, 8), effective=x)
    yield lambda: st.features(model, x, "*")
    yield lambda: st.explain(model, x, method="gradcam")
    yield lambda: st.explain(model, x, method="occlusion")
    yield lambda: st.explain(model, x, method="integrated_gradients")


def check(build):
    torch.manual_seed(0)
    model = build()
    for parameter in model.parameters():
        if parameter.requires_grad and not torch.nn.parameter.is_lazy(parameter):
            parameter.grad = torch.full_like(parameter, 0.5)
    before = state_of(model)
    for number, analysis in enumerate(analyses(model)):
        with warnings.catch_warnings(), suppress(Exception):
            warnings.simplefilter("ignore")
            analysis()
        after = state_of(model)
        for name, value in before.items():
            assert after[name] == value, (number, name)


def test_there_are_fifty_odd_modules():
    assert len({**ODD_MODULES, **CONVERTED}) >= 50


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("build", ODD_MODULES.values(), ids=ODD_MODULES)
def test_every_analysis_leaves_a_network_as_it_was(build):
    check(build)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("build", CONVERTED.values(), ids=CONVERTED)
def test_a_converted_network_is_left_as_it_was(build):
    check(build)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", ["script", "trace"])
def test_torchscript_is_refused_and_still_runs(how):
    model = CONVERTED[how]()
    before = model(IMAGE)
    for refused in (
        lambda: st.summary(model, (3, 8, 8)),
        lambda: st.features(model, IMAGE, "*"),
    ):
        with pytest.raises(SettingError, match="TorchScript") as caught:
            refused()
        assert "was given" in caught.value.fix
    assert torch.equal(model.eval()(IMAGE), before) or model(IMAGE).shape == (1, 3)
    with model_restored(model, torch.Tensor.clone):
        model.train()
        model(IMAGE)
    assert not model.training or how == "script"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_an_exported_program_is_refused():
    with pytest.raises(SettingError, match="exported program has no evaluation mode"):
        st.summary(CONVERTED["export"](), (3, 8, 8))


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_network_is_summarized_as_the_network_inside():
    model = CONVERTED["compile"]()
    inner = nn.Sequential(CONVERTED["compile"]())
    rows = [x.name for x in st.summary(plain(), (3, 8, 8)).audit.layers]
    assert [x.name for x in st.summary(model, (3, 8, 8)).audit.layers] == rows
    nested = st.summary(inner, (3, 8, 8)).audit.layers
    assert [x.name for x in nested] == [f"0.{name}" for name in rows]
    assert unwrap_compiled(model) is model._orig_mod


def test_a_lazy_network_must_run_once_before_it_is_explained():
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(2))
    with (
        pytest.raises(GeometryError, match=r"1\.weight has no shape yet"),
        evaluation_mode(model),
    ):
        pass


def test_an_analysis_within_another_copies_the_weights_once():
    model = Body()
    with evaluation_mode(model), torch.no_grad():
        with evaluation_mode(model):
            model.fc.weight.add_(1)
        changed = model.fc.weight.clone()
    assert not torch.equal(model.fc.weight, changed)


class Odd:
    """An object with a weak table, a tensor on the meta device and a large tensor."""

    def __init__(self):
        self.weak = weakref.WeakValueDictionary()
        self.meta = torch.empty(2, device="meta")


def test_rare_objects_are_restored(monkeypatch):
    monkeypatch.setattr("striate.core.model_state.MAX_COPIED", 8)
    model = Body()
    model.part = [functools_partial(), Body.forward, model.forward]
    model.odd, model.large = Odd(), torch.zeros(9)
    model.random = np.random.RandomState(0)
    model.sparse = torch.zeros(2, 2).to_sparse()
    state = ModelState(model)
    model.odd.weak["a"] = model
    model.random.rand()
    model.large.add_(1)
    model.conv.weight.grad = torch.zeros_like(model.conv.weight)
    model.norm.running_mean.resize_(7)
    del Body.after
    state.restore()
    assert dict(model.odd.weak) == {}
    assert model.random.rand() == np.random.RandomState(0).rand()
    assert model.large.sum() == 9  # larger than what is copied
    assert model.conv.weight.grad is None
    assert model.norm.running_mean.shape == (4,)
    assert hasattr(Body, "after")


def functools_partial():
    import functools

    return functools.partial(lambda x, table: x, table={})


RANDOM = """
import random, numpy, torch, striate as st
from torch import nn
def states():
    return random.getstate(), numpy.random.get_state()[1].tolist(), \\
        torch.get_rng_state().tolist()
before = states()
model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
    nn.Flatten(), nn.Linear(4, 2))
before = states()
summary = st.summary(model, (3, 8, 8))
text = str(summary), summary._repr_html_()
st.explain(model, torch.zeros(1, 3, 8, 8))
assert states() == before
"""


def test_the_first_print_draws_no_random_number(tmp_path):
    """Not even the libraries that are imported for it."""
    subprocess.run([sys.executable, "-c", RANDOM], check=True, cwd=tmp_path)


def test_errors_are_designed():
    with pytest.raises(StriateError):
        st.summary(nn.Bilinear(2, 2, 1), (3, 8, 8))


def test_evaluation_keeps_what_hooks_collect():
    """In an analysis, such as a summary, it is removed: it may be meta tensors."""
    model, seen = nn.Sequential(nn.Linear(2, 2)), []
    model[0].register_forward_hook(lambda *_: seen.append(1))
    with evaluation_mode(model, analysis=False):
        model(torch.zeros(1, 2))
    assert seen == [1]
    assert len(model[0]._forward_hooks) == 1
    with evaluation_mode(model):
        model(torch.zeros(1, 2))
    assert seen == [1]


class Slotted:
    """Object with one slot that is filled, and one that is not."""

    __slots__ = ("__private", "empty", "filled")

    def __init__(self):
        self.filled = [1]


def test_slots_are_restored_and_empty_ones_stay_empty():
    model = plain()
    model.helper = Slotted()
    state = ModelState(model)
    model.helper.filled = [2]
    state.restore()
    assert model.helper.filled == [1]
    assert not hasattr(model.helper, "empty")


def test_a_global_that_forward_creates_is_removed():
    code = (
        "from collections import OrderedDict\n"
        "from copy import copy\n"
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    @staticmethod\n"
        "    def note(x):\n"
        "        global created\n"
        "        created = OrderedDict(x=copy(x))\n"
        "        return x\n"
        "    def forward(self, x):\n"
        "        return self.note(x)\n"
    )
    space = {"__name__": "network_of_a_user"}
    exec(compile(code, "network_of_a_user.py", "exec"), space)  # noqa: S102
    model = space["Net"]()
    state = ModelState(model)
    model(IMAGE)
    assert "created" in space
    state.restore()
    assert "created" not in space


def test_variables_of_an_imported_module_of_the_same_package_are_restored(tmp_path):
    package = tmp_path / "nets_of_a_user"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "cache.py").write_text("values = []\n")
    (package / "net.py").write_text(
        "from torch import nn\n"
        "from nets_of_a_user import cache\n"
        "class Net(nn.Module):\n"
        "    def forward(self, x):\n"
        "        cache.values.append(1)\n"
        "        return x\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        from nets_of_a_user import cache, net

        model = net.Net()
        state = ModelState(model)
        model(IMAGE)
        assert cache.values == [1]
        state.restore()
        assert cache.values == []
    finally:
        sys.path.remove(str(tmp_path))


def test_a_network_without_an_evaluation_mode_is_explained():
    class Exported(nn.Module):
        def eval(self):
            raise NotImplementedError("Calling eval() is not supported yet.")

    with pytest.raises(SettingError, match="no evaluation mode"):
        set_evaluation_mode(Exported())
