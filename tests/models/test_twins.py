"""Names, forward and gradients against torchvision's twins: no name map."""

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from striate.core.aux_heads import HeadOutputs, total_loss
from striate.core.errors import WeightsError
from striate.models.weights import load_pretrained
from striate.run.create_model import create_model
from support.optional_packages import imported

pytestmark = pytest.mark.slow

# Ours, theirs, side of the pictures. Those with dense layers need their paper's size.
TWINS = {
    "alexnet_one_tower": ("alexnet", 224),
    "vgg11": ("vgg11", 224),
    "vgg13": ("vgg13", 224),
    "vgg16": ("vgg16", 224),
    "vgg19": ("vgg19", 224),
    "vgg11_bn": ("vgg11_bn", 224),
    "vgg13_bn": ("vgg13_bn", 224),
    "vgg16_bn": ("vgg16_bn", 224),
    "vgg19_bn": ("vgg19_bn", 224),
    "googlenet_bn": ("googlenet", 96),
    "googlenet_bn_no_aux": ("googlenet", 96),
    "resnet18": ("resnet18", 96),
    "resnet34": ("resnet34", 96),
    "resnet50_v1_5": ("resnet50", 96),
    "resnet101_v1_5": ("resnet101", 64),
    "resnet152_v1_5": ("resnet152", 64),
    "mobilenet_v2": ("mobilenet_v2", 96),
}


def twin(name):
    """Return torchvision's network, its first weights and statistics drawn anew."""
    kind = TWINS[name][0]
    settings = {}
    if kind == "googlenet":
        aux = not name.endswith("no_aux")
        settings = {"aux_logits": aux, "init_weights": False, "transform_input": False}
    torch.manual_seed(0)
    model = getattr(imported("torchvision").models, kind)(num_classes=10, **settings)
    for name, value in model.named_buffers():
        if name.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    for dropout in model.modules():
        if isinstance(dropout, torch.nn.Dropout):
            dropout.p = 0.0
    return model


def pair(name, tmp_path):
    """Return both networks with the same weights, loaded as a user would."""
    theirs, side = twin(name), TWINS[name][1]
    path = tmp_path / "theirs.safetensors"
    save_file(theirs.state_dict(), path)
    ours = create_model(name, num_classes=10, image_size=side, seed=1)
    load_pretrained(ours, path)
    for layer in ours.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    return ours, theirs


def batch(name, dtype):
    side = TWINS[name][1]
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(2, 3, side, side, generator=draw, dtype=torch.float64)
    return x.to(dtype).requires_grad_(), torch.tensor([1, 7])


def loss_of(out, y):
    """Return a loss of either's outputs, with auxiliary heads where there are some."""
    if isinstance(out, torch.Tensor | HeadOutputs):
        return total_loss(F.cross_entropy, out, y)
    heads = [h for h in (out.aux_logits1, out.aux_logits2) if h is not None]
    return F.cross_entropy(out.logits, y) + 0.3 * sum(
        F.cross_entropy(h, y) for h in heads
    )


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-5)]
)
def test_forward_and_gradients_agree(name, dtype, bound, tmp_path):
    ours, theirs = (model.to(dtype) for model in pair(name, tmp_path))
    (x, y), (x2, _) = batch(name, dtype), batch(name, dtype)
    answer, expected = ours.eval()(x), theirs.eval()(x2)
    assert (answer - expected).abs().max() <= bound * max(1, expected.abs().max())
    if "googlenet" in name:  # its heads answer in training only
        ours.train(), theirs.train()
        answer, expected = ours(x), theirs(x2)
    loss_of(answer, y).backward()
    loss_of(expected, y).backward()
    names = dict(ours.named_parameters())
    for key, parameter in theirs.named_parameters():
        far = (names.pop(key).grad - parameter.grad).abs().max()
        assert far <= bound * max(1, parameter.grad.abs().max()), key
    assert not names
    assert (x.grad - x2.grad).abs().max() <= bound * max(1, x2.grad.abs().max())


@pytest.mark.parametrize("name", TWINS)
def test_state_dicts_load_both_ways_without_a_keymap(name):
    theirs = twin(name)
    with torch.device("meta"):
        ours = create_model(name, num_classes=10)
    state = theirs.state_dict()
    shapes = {key: value.shape for key, value in ours.state_dict().items()}
    assert {key: value.shape for key, value in state.items()} == shapes
    ours.load_state_dict(state, strict=True, assign=True)
    assert all(torch.equal(v, state[key]) for key, v in ours.state_dict().items())
    back = {key: torch.rand(v.shape).to(v.dtype) for key, v in state.items()}
    ours.load_state_dict(back, strict=True, assign=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert all(torch.equal(v, back[key]) for key, v in theirs.state_dict().items())


def test_the_papers_resnet50_refuses_weights_of_the_other_stride(tmp_path):
    path = tmp_path / "theirs.safetensors"
    save_file(twin("resnet50_v1_5").state_dict(), path)
    with pytest.raises(WeightsError, match="build resnet…_v1_5"):
        load_pretrained(create_model("resnet50", num_classes=10), path)


def test_a_network_without_heads_takes_weights_with_them(tmp_path):
    path = tmp_path / "theirs.safetensors"
    save_file(twin("googlenet_bn").state_dict(), path)
    model = create_model("googlenet_bn_no_aux", num_classes=10, image_size=96)
    load_pretrained(model, path)
