"""Speed of occlusion maps against captum, and of class activation maps (goal P13).

Goals: occlusion at least 5 times as fast as captum with the same windows and equal
results; CAM of all classes in at most 1.1 times one forward pass. captum runs with
default settings (one occluded image at a time) and with 32 images at a time.
"""

from __future__ import annotations

import argparse

import torch
from captum.attr import Occlusion

from record import save
from rounds import interleaved, speeds, table
from striate.core.malloc import keep_freed_memory
from striate.interpret.attribution.cam import find_gap_head
from striate.interpret.attribution.occlusion import OcclusionWindow, occlusion
from striate.interpret.attribution.target import AttributionTarget
from striate.run.create_model import create_model

# network, side, channels, window, stride
CASES = (
    ("tutorial_gray", 28, 1, 4, 2),
    ("tutorial_color", 32, 3, 4, 2),
    ("cifar_resnet20", 32, 3, 4, 2),
    ("resnet18", 224, 3, 32, 16),
    ("vgg16", 224, 3, 32, 16),
)
LONG = {"vgg16": 3}  # rounds at most, because captum takes long


def occlusions(name: str, side: int, channels: int, window: int, stride: int, n: int):
    """Return times, largest difference of striate and captum, and number of windows."""
    torch.manual_seed(0)
    model = create_model(name, image_size=side, num_classes=10, in_chans=channels)
    model.eval()
    x = torch.randn(1, channels, side, side)
    windows = OcclusionWindow(window=(window, window), stride=(stride, stride))
    target = AttributionTarget(class_index=3, text="3")
    sizes = {
        "sliding_window_shapes": (channels, window, window),
        "strides": (channels, stride, stride),
        "target": 3,
    }

    def captum(at_once: int) -> torch.Tensor:
        with torch.no_grad():
            peer = Occlusion(model)
            return peer.attribute(x, perturbations_per_eval=at_once, **sizes)

    mine, theirs = occlusion(model, x, target, windows), captum(1)[0, 0]
    difference = float((mine - theirs).abs().max() / theirs.abs().max())
    times = interleaved(
        {
            "striate": lambda: occlusion(model, x, target, windows),
            "captum, as it comes": lambda: captum(1),
            "captum, 32 at a time": lambda: captum(32),
        },
        n,
    )
    return times, difference, len(windows.boxes(side, side))


def class_maps(n: int) -> str:
    """Return a table of times for CAM of all 1,000 classes with ResNet-18."""
    model = create_model("resnet18").eval()
    x = torch.randn(1, 3, 224, 224)

    def plain() -> None:
        with torch.no_grad():
            model(x)

    times = interleaved(
        {
            "one forward pass": plain,
            "striate: CAM of 1,000 classes": lambda: find_gap_head(
                model, x
            ).class_maps(),
        },
        n,
    )
    return table(times, "one forward pass")


def main() -> None:
    """Run the benchmark, print and save the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    keep_freed_memory()
    parts = []
    for name, *sizes in CASES:
        if options.only and name != options.only:
            continue
        rounds = min(options.rounds, LONG.get(name, options.rounds))
        times, difference, windows = occlusions(name, *sizes, rounds)
        head = f"## Occlusion, {name} at {sizes[0]}×{sizes[0]}, {windows} windows of "
        head += f"{sizes[2]} every {sizes[3]}\n\n"
        note = f"\n\nLargest difference of the maps: {difference:.1e} of the largest."
        parts.append(head + table(times, "striate") + note)
        print(parts[-1], flush=True)
    cam = f"## CAM of all classes, ResNet-18\n\n{class_maps(3 * options.rounds)}"
    print(cam, flush=True)
    save("evidence", "Class evidence", "\n\n".join([*parts, cam, speeds()]))


if __name__ == "__main__":
    main()
