"""The preview shows what training would really feed, and counts what a mode costs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from striate.core.preprocess_config import RESIZE_MODES, Preprocess
from striate.data.decode.preprocess import file_to_input, normalize
from striate.data.decode.preprocess_rules import preprocess_rules
from striate.data.decode.resize_effects import resize_effect
from striate.data.load import load_data
from striate.data.sources.source import from_arrays
from striate.workflows.data_preview.findings import preview_page, preview_summary
from striate.workflows.data_preview.preview import denormalize, preview
from support.images import pil_image, stripes, write_folder


@pytest.fixture
def photos(tmp_path):
    root = write_folder(tmp_path / "photos", size=(30, 40), channels=3, count=8)
    pil_image(stripes(0, 1, 20, 200, 3)).save(root / "across/wide.png")
    pil_image(stripes(0, 2, 150, 20, 3)).save(root / "across/tall.png")
    pil_image(stripes(1, 3, 9, 9, 3)).save(root / "down/small.png")
    pil_image(stripes(1, 4, 180, 180, 3)).save(root / "down/large.png")
    return root


def test_what_is_shown_is_what_training_sees(photos):
    result = preview(photos, image_size=32, resize="pad", background=9, count=20)
    data = load_data(photos, image_size=32, resize="pad", background=9)
    assert result.preprocess == data.preprocess
    assert len(result.images) == 20
    fed = {
        path: pixels
        for subset in data.subsets.values()
        for path, pixels in zip(subset.paths, subset.pixels[:], strict=True)
    }
    for image in result.images:
        assert torch.equal(image.inputs["pad"], fed[image.path])
        for mode in RESIZE_MODES:
            payload = (photos / image.path).read_bytes()
            p = replace(data.preprocess, resize=mode)
            assert torch.equal(image.inputs[mode], file_to_input(payload, p))


def test_the_images_that_suffer_most_come_first(photos):
    names = [Path(image.path).name for image in preview(photos, image_size=32).images]
    assert names[:4] == ["wide.png", "tall.png", "large.png", "small.png"]
    assert preview(photos, image_size=32, seed=1).images[4].path != names[4]


def test_costs_are_counted_over_all_images(photos):
    result = preview(photos, image_size=32, count=1)
    assert sum(result.sizes.values()) == 20
    stretch, crop, pad = (result.effects[mode] for mode in ("stretch", "crop", "pad"))
    assert stretch.visible == (1, 1)
    assert stretch.distortion[1] == 10
    assert stretch.border == (0, 0)
    assert crop.visible[1] == pytest.approx(0.1)
    assert crop.distortion == (1, 1)
    assert pad.border[1] == pytest.approx(0.9, abs=0.01)
    assert pad.enlarged == pytest.approx(1 / 20)
    assert stretch.enlarged == pytest.approx(19 / 20)  # one side is below 32


@pytest.mark.parametrize("mode", RESIZE_MODES)
def test_a_fit_agrees_with_the_pixels(mode):
    """White on black background: what is white was the image."""
    p = Preprocess(channels=1, height=20, width=30, resize=mode, background=0)
    made = file_to_input(png(np.full((40, 45, 1), 255, np.uint8)), p)
    result = resize_effect(p, 40, 45)
    assert float((made == 0).float().mean()) == pytest.approx(result.border, abs=0.01)
    assert result.scale == pytest.approx(0.5 if mode == "pad" else 2 / 3, abs=0.01)


def png(pixels):
    import io

    file = io.BytesIO()
    Image.fromarray(pixels[..., 0]).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_the_way_back(channels):
    pixels = torch.arange(256).byte().view(1, 16, 16, 1).repeat(1, 1, 1, channels)
    mean = tuple(0.1 * c for c in range(channels))
    p = Preprocess(
        channels=channels, height=16, width=16, mean=mean, std=(0.3,) * channels
    )
    assert torch.equal(denormalize(normalize(pixels, p), p), pixels)


def test_on_the_command_line(striate, photos):
    output = striate(
        "data", "preview", photos, "--resize", "crop", "--image-size", "32"
    )
    assert output.code == 0
    assert "crop ←" in output.out
    assert "Only 10 % of some images is visible" in output.out
    assert "page  preview.html" in output.out
    text = Path("preview.html").read_text()
    for words in ("wide.png", "crop (selected)", "denormalized", "--background"):
        assert words in text
    assert "://" not in text
    texts = striate(
        *("data", "preview", photos, "--json", "--out", "other.html", "--count", "3"),
        *("--mean", "0.5", "--std", "0.25,0.25,0.5", "--image-size", "16"),
    ).json
    assert texts["preprocess"]["mean"] == [0.5, 0.5, 0.5]
    assert texts["preprocess"]["std"] == [0.25, 0.25, 0.5]
    assert texts["recovers_pixels"]
    assert len(texts["shown"]) == len(texts["input"]) == 3
    assert texts["modes"]["pad"]["visible"] == [1, 1]
    json.dumps(texts)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--mean", "0.5"], "3 means and 0 stds for 3 channels"),
        (["--mean", "a,b", "--std", "1"], "mean must be comma-separated numbers"),
        (["--normalize", "imagnet"], "did you mean imagenet"),
        (["--std", "0", "--mean", "0"], "std above 0"),
        (["--background", "256"], "background must be below 256"),
        (["--white-level", "100"], "white_level must be at least 255"),
        (["--resize", "crush"], "choose one of"),
        (["--jpeg", "half"], "no jpeg is called 'half'"),
    ],
)
def test_invalid_settings(striate, photos, words, match):
    output = striate("data", "preview", photos, *words)
    assert output.code == 2
    assert match in output.err
    assert not Path("preview.html").exists()


def test_arrays_and_channels_of_any_number():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 6, 6, 5), np.uint8)
    source = from_arrays("five", pixels, ["a", "b"] * 10)
    result = preview(source, count=2)
    assert [n.channel for n in result.input_stats][-1] == "channel 4"
    assert preview_page(result).title == "five · network input"
    assert "resize mode loses little" in str(preview_summary(result))


def test_a_image_that_goes_meanwhile_is_left_out(photos, monkeypatch):
    from striate.workflows.data_preview import preview as preview_module

    real = preview_module.decode_for

    def late(payload, p):
        (photos / "across/wide.png").unlink(missing_ok=True)
        (photos / "across/tall.png").unlink(missing_ok=True)
        return real(payload, p)

    monkeypatch.setattr(preview_module, "decode_for", late)
    names = [Path(image.path).name for image in preview(photos, image_size=8).images]
    assert "tall.png" not in names


def test_every_field_of_the_preprocessing_has_its_rule():
    plain = Preprocess(channels=3, height=8, width=8, mean=(0.5,) * 3, std=(0.5,) * 3)
    others = {
        "channels": 1,
        "height": 9,
        "width": 9,
        "resize": "pad",
        "background": 7,
        "white_level": 4095,
        "jpeg": "reduced",
    }
    output = preprocess_rules(plain)
    for name, value in others.items():
        changed = {name: value}
        if name == "channels":
            changed |= {"mean": (0.5,), "std": (0.5,)}
        assert preprocess_rules(replace(plain, **changed)) != output, name
    assert preprocess_rules(replace(plain, mean=(0.1, 0.2, 0.3))) != output
    assert set(others) | {"mean", "std"} == set(plain.as_dict())
    assert (
        "not measured yet"
        in preprocess_rules(replace(plain, mean=(), std=()))[-1].action
    )
