"""Advice: each remark where it holds and nowhere else, its numbers checked by doing."""

from __future__ import annotations

import pytest
from torch import nn

from striate.audit.advice import join_names
from striate.audit.all_advice import advise
from striate.audit.meta_device import init_empty_weights
from striate.audit.network import audit
from striate.models.catalogue import model_entry
from striate.run.create_model import create_model
from striate.workflows.summary.summary import summary


def advice(network, shape=None):
    if isinstance(network, str) and ">" not in network:
        with init_empty_weights():
            model = create_model(network)
        result = audit(model, shape or model_entry(network).image.shape)
    else:
        result = summary(network, shape).audit
    return {each.check: each for each in advise(result)}


def parameters(line):
    return summary(line).audit.parameters


def test_heavy_head_of_vgg16():
    said = advice("vgg16")
    assert list(said) == ["heavy-head", "bottleneck"]
    head = said["heavy-head"]
    assert "123,642,856 of 138,357,544 parameters (89.4 %)" in head.finding
    assert (head.before, head.after) == (138_357_544, 15_227_688)
    assert head.layer == "classifier.0"


@pytest.mark.parametrize(("line", "pooled"), [("dense 10", "gap > dense 10")])
def test_heavy_head_advice_matches_the_changed_network(line, pooled):
    start = "28x28x1 > conv 3x3 25 same > pool 2 > conv 3x3 50 same > pool 2 > "
    said = advice(start + line)["heavy-head"]
    assert said.after == parameters(start + pooled)


def test_no_heavy_head_after_global_average_pooling():
    assert advice("resnet50_v1_5") == {}
    assert "heavy-head" not in advice("4x4x1 > conv 3x3 2 > dense 1")
    narrow = "4x4x1 > conv 3x3 100 > dense 1 > dense 1000"  # pooling would not help
    assert "heavy-head" not in advice(narrow)


def test_bottleneck_advice_of_inception_5x5():
    said = advice("28x28x192 > conv 5x5 32 same")["bottleneck"]
    assert (said.before, said.after) == (120_422_400, 12_443_648)
    through = summary("28x28x192 > conv 1x1 16 > conv 5x5 32 same")
    assert said.after == through.audit.macs


def test_no_bottleneck_advice_if_present_or_useless():
    line = "28x28x192 > conv 1x1 16 > relu > conv 5x5 32 same"
    assert "bottleneck" not in advice(line)
    grouped = "28x28x64 > conv 3x3 64 same groups 2"
    assert "bottleneck" not in advice(grouped)
    assert "bottleneck" not in advice("28x28x3 > conv 3x3 64 same")
    assert "bottleneck" not in advice("9x9x64 > maxpool 3 > conv 1x1 64")
    assert "bottleneck" in advice("9x9x64 > maxpool 3 > conv 3x3 64 same")


def test_redundant_bias_before_batch_norm():
    said = advice("vgg16_bn")["redundant-bias"]
    assert said.before - said.after == 4_224
    assert "features.0, features.3, features.7 and 10 more have a bias" in said.finding
    one = advice("8x8x3 > conv 3x3 4 > bn")["redundant-bias"]
    assert one.after == parameters("8x8x3 > conv 3x3 4 nobias > bn")
    assert one.finding.startswith("conv1 has a bias")


def test_redundant_bias_before_batch_norm_1d():
    layers = nn.Flatten(), nn.Linear(48, 5), nn.BatchNorm1d(5)
    said = advice(nn.Sequential(*layers), (3, 4, 4))["redundant-bias"]
    assert said.before - said.after == 5


@pytest.mark.parametrize(
    "line",
    [
        "8x8x3 > conv 3x3 4 nobias > bn",
        "8x8x3 > conv 3x3 4 > relu > bn",
        "8x8x3 > conv 3x3 4 > sum [bn, id]",
        "8x8x3 > conv 3x3 4",
    ],
)
def test_no_advice_on_a_useful_bias(line):
    assert "redundant-bias" not in advice(line)


def test_small_receptive_field_advice():
    said = advice("32x32x1 > conv 5x5 4 > pool 2")["small-field"]
    assert (said.before, said.after) == (6, 34)
    grown = "32x32x1 > conv 5x5 4 > pool 2 > 7 * (conv 3x3 4 same)"
    field = summary(grown).audit.layers[-1].receptive_field.axes[0].size
    assert "7 more 3×3 convolutions" in said.finding + said.change
    assert field == said.after
    assert "small-field" not in advice("8x8x1 > conv 7x7 2")


def test_large_receptive_field_advice():
    said = advice("resnet50", (3, 64, 64))["large-field"]
    assert "483×483, the image is 64×64" in said.finding
    assert said.after == 121
    assert "large-field" not in advice("resnet50")


def test_no_advice_on_bounds_and_nonuniform_fields():
    said = advice("16x16x1 > conv 3x3 2 same > upsample 2")
    assert "small-field" not in said
    assert advice("8x8x1 > gap > dense 2") == {}


def test_unused_pixels_advice():
    said = advice("9x9x3 > pool 2 > conv 3x3 4 same")["unseen-positions"]
    assert said.before == 17
    assert "1 row and 1 column at the bottom or right" in said.finding
    assert "Images cropped to 8×8" in said.change
    gaps = advice("9x8x1 > conv 1x1 2 /2")["unseen-positions"]
    assert gaps.before == 72 - 5 * 4
    assert "In conv1, use a kernel at least as large as the stride" in gaps.change
    assert "unseen-positions" not in advice("lenet5")


def test_unused_pixels_of_alexnet_at_224():
    """The paper's 224 does not give 55 without padding; 227 does."""
    said = advice("224x224x3 > conv 11x11 96 /4 > pool 3 /2")["unseen-positions"]
    assert "5 rows and 5 columns at the bottom or right" in said.finding
    assert "Images cropped to 219×219" in said.change
    assert "unseen-positions" not in advice("alexnet")


def test_skipped_positions_advice():
    said = advice("resnet50")["dropped-positions"]
    assert "read 784 of 3,136 positions of layer1.2.relu" in said.finding
    assert "102,760,448 multiply-adds instead of 25,690,112" in said.change
    pool = advice("7x7x4 > conv 3x3 4 same > pool 3 /3")["dropped-positions"]
    assert "output 3×3" in pool.change
    assert pool.before == 49 - 36
    assert "dropped-positions" not in advice("resnet50_v1_5")
    assert "dropped-positions" not in advice("cifar_resnet20")


def test_slices_get_no_skipped_positions_advice():
    class Every(nn.Module):
        def forward(self, x):
            return (x * 2)[:, :, ::2]

    assert "dropped-positions" not in advice(Every(), (3, 8, 8))


# torch warns that it copies the image for an even kernel.
@pytest.mark.filterwarnings("ignore:Using padding='same' with even")
def test_even_kernel_advice():
    said = advice("32x32x3 > pool 2 > conv 4x4 8 same")["even-window"]
    assert "(1 pixels of the image)" in said.finding
    assert said.after == parameters("32x32x3 > pool 2 > conv 3x3 8 same")
    model = nn.Sequential(nn.Conv2d(3, 8, 2, padding="same", bias=False))
    assert advice(model, (3, 8, 8))["even-window"].after == 24
    for line in ("conv 4x4 8", "conv 4x4 8 same dilation 2", "conv 3x3 8 same"):
        assert "even-window" not in advice(f"16x16x3 > {line}")
    assert "even-window" not in advice("16x16x3 > deconv 2x2 4")


def test_summary_includes_advice():
    result = summary("vgg11_bn")
    assert [a["check"] for a in result.as_dict()["advice"]] == [
        "small-field",
        "heavy-head",
        "redundant-bias",
        "bottleneck",
    ]
    layers = "classifier.0, classifier.3 and classifier.6"
    assert f"→ {layers} contain 123,642,856" in str(result)


def test_long_name_lists_are_shortened():
    assert join_names(["a", "a"]) == "a"


class Tokens(nn.Module):
    """A transformer: its body is made of dense layers, its head of one."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.body = nn.Sequential(nn.Linear(8, 64), nn.GELU(), nn.Linear(64, 8))
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.body(self.patches(x).flatten(2).mT).mean(1))


def test_a_body_of_dense_layers_is_no_heavy_head():
    """As in ViT, Swin and ConvNeXt: dense layers on tokens, and before the last map."""
    pooled = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 999)
    )
    flat = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 9))
    checks = [
        [a.check for a in advise(audit(model, (3, 8, 8)))]
        for model in (Tokens(), pooled, flat)
    ]
    assert ["heavy-head" in names for names in checks] == [False, False, True]
