"""Time to compute statistics of all activations, against one forward pass (goal P9).

Goal: at most 1.15 times one forward pass of ResNet-18, without storing any activation.
"""

from __future__ import annotations

import argparse

import torch

from record import save
from rounds import interleaved, speeds, table
from striate.core.hooks import capture_outputs, leaf_module_names
from striate.core.malloc import keep_freed_memory
from striate.interpret.activations_at import activations_at
from striate.interpret.layer_statistics import activation_statistics
from striate.run.create_model import create_model


def main() -> None:
    """Run the benchmark, print and save the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    model = create_model("resnet18").eval()
    x = torch.randn(options.batch, 3, 224, 224)
    names = leaf_module_names(model)

    def plain() -> None:
        with torch.no_grad():
            model(x)

    def keeping() -> None:
        kept: list[torch.Tensor] = []
        with (
            torch.no_grad(),
            capture_outputs(model, names, lambda _, out: kept.append(out)),
        ):
            model(x)

    times = interleaved(
        {
            "one forward pass": plain,
            "hooks that keep references": keeping,
            "striate: statistics of all 60-odd layers": lambda: activation_statistics(
                model, x
            ),
            "striate: features('layer2.*'), stops there": lambda: activations_at(
                model, x, "layer2.*.relu"
            ),
        },
        options.rounds,
    )
    title = f"Activations of ResNet-18, batch {options.batch} at 224×224"
    save("capture", title, table(times, "one forward pass") + "\n\n" + speeds())


if __name__ == "__main__":
    main()
