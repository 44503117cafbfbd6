"""What an audit says: on paper, in tables, side by side, and of its memory."""

import pytest
import torch
from torch import nn

from striate.audit.comparison import comparison_table
from striate.audit.findings import caveats, layer_table, summary_blocks
from striate.audit.layer_arithmetic import explain_layer
from striate.audit.network import audit
from striate.audit.sketch_parser import sketch
from striate.audit.training_memory import OPTIMIZERS
from striate.audit.valid_sizes import suggest_size
from striate.core.errors import UnknownNameError
from striate.run.create_model import create_model


def paper(line, layer):
    return {row[0]: row[1:] for row in explain_layer(audit(*sketch(line)), layer).rows}


def test_a_convolution_on_paper():
    said = paper("224x224x3 > conv 7x7 64 /2 pad 3", "conv1")
    assert said["height"] == ("⌊(224 + 2·3 − 7)/2⌋ + 1", "112")
    assert said["width"] == ("same as height", "112")
    assert said["parameters"] == ("(7·7·3 + 1)·64", "9,472")
    assert said["multiply-adds"] == ("112·112 · 7·7·3·64", "118,013,952")
    assert said["receptive field"] == ("1 + (7 − 1)·1", "7")
    assert said["jump"] == ("1·2", "2")


def test_dilation_groups_and_two_sides_on_paper():
    said = paper("9x8x4 > conv 3x5 8 d2 g2 nobias pad 4", "conv1")
    assert said["height"] == ("⌊(9 + 2·4 − 2·(3 − 1) − 1)/1⌋ + 1", "13")
    assert said["width"] == ("⌊(8 + 2·4 − 2·(5 − 1) − 1)/1⌋ + 1", "8")
    assert said["parameters"] == ("3·5·4/2·8", "240")
    assert said["receptive field"] == ("1 + 2·(3 − 1)·1", "5")


def test_the_notes_example():
    assert paper("9x9x3 > conv 3x3 64", "conv1")["parameters"] == (
        "(3·3·3 + 1)·64",
        "1,792",
    )


def test_dense_pool_transposed_and_others_on_paper():
    line = "9x9x4 > pool 2 ceil > deconv 2x2 6 > deconv 3x3 2 s1 pad 1 > bn > dense 3"
    assert paper(line, "pool1")["height"] == ("⌈(9 − 2)/2⌉ + 1", "5")
    assert paper(line, "deconv1")["height"] == ("(5 − 1)·2 + 1·(2 − 1) + 1", "10")
    assert paper(line, "deconv2")["height"][0] == "(10 − 1)·1 − 2·1 + 1·(3 − 1) + 1"
    assert paper(line, "dense1")["parameters"] == ("(200 + 1)·3", "603")
    assert paper(line, "dense1")["multiply-adds"] == ("200·3", "600")
    assert paper("2x2x1 > dense 3 nobias", "dense1")["parameters"] == ("4·3", "12")
    assert paper(line, "bn1")["parameters"] == ("2·2", "4")
    assert paper(line, "flatten1")["features"] == ("2·10·10", "200")
    both = "4x4x2 > [conv 1x1 3, id]"
    assert paper(both, "branches1.(cat)")["channels"] == ("3 + 2", "5")
    assert paper("4x4x2 > gap", "gap1")["each output"] == (
        "mean of 4·4 values",
        "1×1×2",
    )
    assert paper("4x4x2 > relu", "relu1")["shape"] == ("same as the input", "4×4×2")


def test_explain_knows_batches_and_other_ranks():
    result = audit(nn.Sequential(nn.Flatten(2), nn.Linear(16, 3)), (5, 4, 4))
    assert explain_layer(result, "1").rows[-1] == ("multiply-adds", "5·16·3", "240")

    class Pairs(nn.Module):
        def forward(self, x):
            x = x.flatten(2)
            return x @ x.transpose(1, 2)

    result = audit(Pairs(), (5, 4, 4))
    name = result.layers[-1].name
    assert explain_layer(result, name).rows[0] == ("multiply-adds", "5·16·5", "400")
    deep = audit(nn.Sequential(nn.Unflatten(1, (1, 5)), nn.Conv3d(1, 2, 3)), (5, 8, 8))
    assert [row[0] for row in explain_layer(deep, "1").rows[:3]] == [
        "depth",
        "height",
        "width",
    ]


def test_an_unknown_layer_lists_the_nearest():
    with pytest.raises(UnknownNameError, match="no layer is called 'conv'"):
        paper("9x9x1 > conv 3x3 2", "conv")


def test_receptive_field_after_upsampling():
    result = audit(*sketch("8x8x1 > conv 3x3 2 > deconv 2x2 2 > conv 3x3 1"))
    row = layer_table(result).rows
    assert [cell[10:12] for cell in row] == [
        ("3×3", "1"),
        ("3×3", "0.5"),
        ("4×4", "0.5"),
    ]
    assert "receptive field" not in paper("8x8x1 > deconv 2x2 2", "deconv1")


def test_depth_merges_modules():
    result = audit(create_model("cifar_resnet20"), (3, 32, 32))
    table = layer_table(result, 1)
    assert len(table.rows) < len(result.layers)
    assert sum(row[4] or 0 for row in table.rows) == result.parameters
    assert sum(row[6] or 0 for row in table.rows) == result.macs
    kinds = {row[0]: row[1] for row in table.rows}
    assert "Sequential" in kinds.values()


class Cumulates(nn.Module):
    def forward(self, x):
        return torch.fft.fft2(x).real.sort(2).values


def test_caveats():
    result = audit(Cumulates(), (1, 4, 4))
    text = " ".join(block.text for block in caveats(result))
    assert "_fft_c2c (ran 1 time)" in text
    assert "are upper bounds (≤)" in text
    assert layer_table(result).rows[-1][10].startswith("≤")
    real = audit(nn.ReLU(), (1, 4, 4), real=True)
    assert "Training memory is unknown" in caveats(real)[-1].text
    assert len(summary_blocks(real)) == 4
    aside = nn.ModuleDict({str(i): nn.Linear(1, 1) for i in range(8)})
    odd = nn.Sequential(nn.ReLU())
    odd[0].aside = aside
    assert "…" in caveats(audit(odd, (1, 2, 2)))[0].text


def test_comparison_skips_unknown_metrics():
    one, two = (audit(nn.ReLU(), (1, 4, 4), real=real) for real in (False, True))
    table = comparison_table(one, two, ("a", "b"))
    assert [row[0] for row in table.rows][-1] == "receptive field"
    assert "training memory" not in [row[0] for row in table.rows]
    assert table.rows[0] == ("parameters", "0", "0", None)


def test_suggested_image_sizes():
    flat = nn.Sequential(nn.MaxPool2d(4), nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
    assert suggest_size(flat, (3, 99, 99)) == (
        "use an image size from 32 to 35, such as 32 (--image-size 32)"
    )
    small = nn.Sequential(nn.Conv2d(3, 2, 20))
    assert suggest_size(small, (3, 9, 9)).startswith("use an image size 20 or larger")
    assert suggest_size(small, (1, 32, 32)) == "use 3 channels (--in-chans 3)"
    assert "works either" in suggest_size(nn.Conv2d(7, 2, 3), (3, 9, 9))


def test_size_search_has_a_time_limit(monkeypatch):
    monkeypatch.setattr("striate.audit.valid_sizes.TIME_LIMIT", -1.0)
    assert "works either" in suggest_size(nn.Conv2d(3, 2, 20), (3, 9, 9))


def test_training_memory_of_one_layer_by_hand():
    """conv keeps its input; gradients of weights and input live at the end."""
    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, bias=False), nn.ReLU())
    memory = audit(model, (1, 8, 8), batch_size=2, optimizer="sgd").memory
    image = 2 * 64 * 4
    assert (memory.images, memory.weights, memory.gradients) == (image, 36, 36)
    assert memory.state == 36 * OPTIMIZERS["sgd"]
    assert memory.saved == 2 * image  # the images, and what ReLU gave out
    frozen = nn.Sequential(nn.Conv2d(1, 1, 3)).requires_grad_(False)
    assert audit(frozen, (1, 8, 8)).memory.gradients == 0
