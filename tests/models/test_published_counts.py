"""Each network against what its paper and its publishers say; nothing is allocated."""

import pytest
import torch
from torch import nn

from striate.core.errors import GeometryError, SettingError, UnknownNameError
from striate.core.preprocess_config import ImageSpec
from striate.layers.lrn import LRN
from striate.models.catalogue import list_models, model_entry
from striate.models.googlenet import ROWS
from striate.models.resnet import CIFAR, ResNetConfig, cifar_resnet
from striate.run.create_model import create_model

# Trainable parameters and who says so. "derived" is a published count plus or minus
# layers counted by hand.
MISSION, TORCHVISION, CAFFE = "mission.md", "torchvision's tables", "BVLC's model zoo"
TIMM = "timm 1.0, whose blurred networks have plain ones' weights"
IDELBAYEV = "Idelbayev, pytorch_resnet_cifar10; He et al. 2015, table 6, in millions"
OURS = "our own design: counted by hand"
PROJECTIONS = 64 * 128 + 256 + 128 * 256 + 512 + 256 * 512 + 1024  # shortcuts B
COUNTS = {
    "lenet5": (60_000, "LeCun et al. 1998, II.B"),
    "lenet5_modern": (61_706, MISSION),
    "alexnet": (60_965_224, MISSION),
    "alexnet_ungrouped": (62_378_344, MISSION),
    "alexnet_one_tower": (61_100_840, TORCHVISION),
    "vgg11": (132_863_336, TORCHVISION),
    "vgg11_bn": (132_868_840, TORCHVISION),
    "vgg13": (133_047_848, TORCHVISION),
    "vgg13_bn": (133_053_736, TORCHVISION),
    "vgg16": (138_357_544, MISSION),
    "vgg16_bn": (138_365_992, TORCHVISION),
    "vgg19": (143_667_240, MISSION),
    "vgg19_bn": (143_678_248, TORCHVISION),
    "googlenet": (13_378_280, "derived: Caffe's and two heads of 3,189,864 by hand"),
    "googlenet_no_aux": (6_998_552, CAFFE),
    "googlenet_bn": (13_004_888, "torchvision, aux_logits=True"),
    "googlenet_bn_no_aux": (6_624_904, TORCHVISION),
    "resnet18": (11_689_512, MISSION),
    "plain18": (11_689_512 - PROJECTIONS, "derived: ResNet-18 without shortcuts"),
    "resnet34": (21_797_672, MISSION),
    "plain34": (21_797_672 - PROJECTIONS, "derived: ResNet-34 without shortcuts"),
    "resnet50": (25_557_032, MISSION),
    "resnet50_v1_5": (25_557_032, TORCHVISION),
    # A blur has no parameters (Zhang 2019).
    "resnetblur18": (11_689_512, TIMM),
    "antialiased_resnet18": (11_689_512, TIMM),
    # conv1, four stages and the head.
    "antialiased_resnet18_slim": (
        4_768 + 37_120 + 131_712 + 525_568 + 2_099_712 + 257_000,
        OURS,
    ),
    "resnetblur50": (25_557_032, TIMM),
    "antialiased_resnet50": (25_557_032, TIMM),
    "resnet101": (44_549_160, MISSION),
    "resnet101_v1_5": (44_549_160, TORCHVISION),
    "resnet152": (60_192_808, MISSION),
    "resnet152_v1_5": (60_192_808, TORCHVISION),
    **{
        f"cifar_{kind}{depth}": (count, IDELBAYEV)
        for kind in ("resnet", "plain")
        for depth, count in (
            (20, 269_722),
            (32, 464_154),
            (44, 658_586),
            (56, 853_018),
            (110, 1_727_962),
        )
    },
    "mobilenet_v2": (3_504_872, MISSION),
    "tutorial_gray": (250 + 11_300 + 24_510, MISSION),
    "tutorial_color": (1_451_314, MISSION),
    # Kernels, biases or gains layer by layer, by hand; whitening counts though frozen.
    "fast_small": (624 + 10_464 + 20_832 + 23_530, OURS),
    "fast_small_wide": (832 + 18_560 + 73_984 + 147_712 + 11_530, OURS),
    "fast_small_large": (832 + 18_560 + 36_992 + 73_984 + 147_712 + 318_474, OURS),
}
# The smallest square picture, from the papers' windows by hand, and who refuses less.
SMALLEST = {
    "lenet5": (16, "s4"),
    "lenet5_modern": (12, "pool2"),
    "alexnet": (67, "features.14"),
    "alexnet_one_tower": (63, "features.12"),
    "vgg11": (32, "features.20"),
    "vgg19_bn": (32, "features.52"),
    "googlenet_no_aux": (31, "maxpool4"),
    "googlenet": (79, "the auxiliary heads' mean"),
    "resnetblur18": (17, "layer4.0.blur"),
    "antialiased_resnet50": (19, "layer4.0.blur"),
    "tutorial_gray": (4, "pool2"),
    "tutorial_color": (8, "pool3"),
}


def on_meta(name, **settings):
    with torch.device("meta"):
        return create_model(name, **settings)


def count(model):
    return sum(p.numel() for p in model.parameters())


def shapes(model, image):
    """Return the output shape of every named module, without computing."""
    seen = {}
    for name, module in model.named_modules():
        module.register_forward_hook(
            lambda _m, _i, out, name=name: seen.update({name: tuple(out.shape[1:])})
        )
    model.eval()(torch.zeros(1, *image.shape, device="meta"))
    return seen


def test_the_table_of_counts_is_complete():
    assert set(list_models()) == COUNTS.keys()


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_are_the_published_ones(name):
    assert count(on_meta(name)) == COUNTS[name][0]


@pytest.mark.parametrize("name", COUNTS)
def test_every_network_says_what_it_is(name):
    entry = model_entry(name)
    assert 10 < len(entry.summary) <= 72
    assert not entry.summary.startswith("Build")
    assert not entry.summary.endswith(".")


@pytest.mark.parametrize("name", SMALLEST)
def test_the_smallest_picture_goes_through_and_none_smaller(name):
    side, layer = SMALLEST[name]
    image = ImageSpec(channels=2, height=side, width=side)
    model = on_meta(name, image_size=side, in_chans=2, num_classes=3)
    assert shapes(model, image)[""] == (3,)
    with pytest.raises(GeometryError, match=layer) as caught:
        on_meta(name, image_size=(side, side - 1))
    assert f"image height or width {side - 1}" in caught.value.what
    assert f"at least {side}×{side}" in caught.value.fix


def test_too_small_for_auxiliary_heads_names_the_network_without():
    with pytest.raises(GeometryError) as caught:
        on_meta("googlenet", image_size=32)
    assert "googlenet_no_aux" in caught.value.fix


@pytest.mark.parametrize("name", ["resnet50", "cifar_plain20", "mobilenet_v2"])
def test_padding_lets_a_single_pixel_through(name):
    image = ImageSpec(channels=3, height=1, width=2)
    assert shapes(on_meta(name, image_size=(1, 2)), image)[""] == (
        model_entry(name).classes,
    )


def test_alexnet_is_the_papers_table():
    seen = shapes(on_meta("alexnet"), model_entry("alexnet").image)
    assert seen["features.0"] == seen["features.2"] == (96, 55, 55)
    assert seen["features.3"] == (96, 27, 27)
    assert seen["features.7"] == (256, 13, 13)
    assert seen["flatten"] == (9216,)
    model = on_meta("alexnet")
    kinds = [type(layer) for layer in model.features]
    assert kinds[1:4] == kinds[5:8] == [nn.ReLU, LRN, nn.MaxPool2d]
    convs = [layer for layer in model.features if isinstance(layer, nn.Conv2d)]
    inputs = [tuple(conv.weight.shape[1:]) for conv in convs]
    assert inputs[1:4] == [(48, 5, 5), (256, 3, 3), (192, 3, 3)]


def test_alexnet_biases_start_as_in_section_5():
    model = create_model("alexnet", image_size=67, num_classes=2)
    ones = [n for n, p in model.named_parameters() if n.endswith("bias") and p.all()]
    layers = (
        "features.4",
        "features.10",
        "features.12",
        "classifier.0",
        "classifier.3",
    )
    assert ones == [f"{name}.bias" for name in layers]


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_vgg_halves_after_each_block_and_has_as_many_weights_as_its_name(depth):
    model = on_meta(f"vgg{depth}")
    seen = shapes(model, model_entry("vgg16").image)
    pools = [
        f"features.{name}"
        for name, layer in model.features.named_children()
        if isinstance(layer, nn.MaxPool2d)
    ]
    assert [seen[name][1] for name in pools] == [112, 56, 28, 14, 7]
    assert seen["flatten"] == (25_088,)
    weighted = (nn.Conv2d, nn.Linear)
    assert sum(isinstance(m, weighted) for m in model.modules()) == depth


# Szegedy et al. 2014, table 1: output, and MACs in millions. The table's own parameter
# column disagrees with its rows (conv1: 2.7 K where 7·7·3·64 = 9,408) and is not used.
# 5a says 54, its row's own numbers make 51.
GOOGLENET_TABLE = {
    "conv3": ((192, 56, 56), None),
    "inception3a": ((256, 28, 28), 128),
    "inception3b": ((480, 28, 28), 304),
    "inception4a": ((512, 14, 14), 73),
    "inception4b": ((512, 14, 14), 88),
    "inception4c": ((512, 14, 14), 100),
    "inception4d": ((528, 14, 14), 119),
    "inception4e": ((832, 14, 14), 170),
    "inception5a": ((832, 7, 7), 51),
    "inception5b": ((1024, 7, 7), 71),
}


@pytest.mark.parametrize("row", GOOGLENET_TABLE)
def test_googlenet_is_the_papers_table(row):
    shape, macs = GOOGLENET_TABLE[row]
    model = on_meta("googlenet")
    seen = shapes(model, model_entry("googlenet").image)
    assert seen[row] == shape
    if macs is not None:
        block = model.get_submodule(row)
        weights = sum(p.numel() for p in block.parameters() if p.dim() == 4)
        assert abs(weights * shape[1] * shape[2] / 1e6 - macs) < 1


def test_googlenet_rows_and_heads():
    model = on_meta("googlenet")
    three = [model.get_submodule(f"inception{row}") for row in ROWS]
    widths = [w.ch3x3 for w in ROWS.values()]
    assert [b.branch2[1].conv.out_channels for b in three] == widths
    heads = model.aux1, model.aux2
    assert [h.fc1.in_features for h in heads] == [4 * 4 * 128] * 2
    model.aux1 = model.aux2 = None
    assert sum(isinstance(m, nn.Conv2d) for m in model.modules()) == 57


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_resnet_has_as_many_weights_as_its_name(depth):
    model = on_meta(f"resnet{depth}")
    path = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert sum("downsample" not in name for name in path) == depth
    seen = shapes(model, model_entry("resnet18").image)
    sides = [seen[n][1] for n in ("conv1", *(f"layer{i}" for i in range(1, 5)))]
    assert sides == [112, 56, 28, 14, 7]


@pytest.mark.parametrize("option", ["A", "B", "C"])
def test_cifar_shortcuts(option):
    config = ResNetConfig(blocks=(3, 3, 3), width=16, shortcut=option)
    with torch.device("meta"):
        model = cifar_resnet(CIFAR, 10, config=config)
    projections = sum("downsample.0" in n for n, _ in model.named_parameters())
    assert projections == {"A": 0, "B": 2, "C": 9}[option]


def test_a_plain_network_cannot_have_bottlenecks():
    with pytest.raises(SettingError, match="no bottlenecks"):
        ResNetConfig(blocks=(1,), shortcut="", stride_in="1x1")


def test_misspelt_names_and_no_classes():
    with pytest.raises(UnknownNameError, match="resnet5O"):
        create_model("resnet5O")
    with pytest.raises(SettingError, match="at least one class"):
        create_model("resnet18", num_classes=0)
    with pytest.raises(SettingError, match="at least 1"):
        create_model("resnet18", in_chans=0)
