"""Transfer learning of a head (goal P6): cached features against a plain training loop.

Claim: ≥ 10 times as fast as a frozen-backbone loop of 30 epochs at equal accuracy. The
whole job, from data to evaluated weights, takes ≤ 1.3 times one forward pass over all
images.

Frozen MobileNetV2 with ImageNet weights, ELPV solar cells at 224 px, decoded before the
measurement (both methods read the images from memory). The baseline is the loop of
tutorials: backbone in evaluation mode under `no_grad`, new head, Adam with learning
rate 1e-3, shuffled batches of 32, validation after each epoch. All epochs take the same
time, so only `--epochs` epochs are measured, and the time of 30 epochs is computed. The
accuracy is that of 30 epochs, trained on features that the baseline computes once. One
process runs in turn: one forward pass, striate, and the epochs of the baseline.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from elpv_cells import LEAK, cells, splits, write_table
from record import save
from speeds import speeds
from striate.core.device import flush_denormals
from striate.core.malloc import keep_freed_memory
from striate.data.decode.preprocess import normalize
from striate.data.image_data import ImageData
from striate.run.prepare_run import build_model, load_recipe, resolve_recipe
from striate.run.recipe import Recipe
from striate.run.run import Run
from striate.workflows.transfer.options import TransferOptions
from striate.workflows.transfer.transfer import transfer_recipe

BATCH, EPOCHS, RATE = 32, 30, 1e-3


def pieces(data: ImageData, split: str, order: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return batches of (8-bit images, labels) in the given order."""
    of = data.subset(split)
    return [(of.gather(i), of.labels[i]) for i in torch.split(order, BATCH)]


def passed(model: nn.Module, data: ImageData) -> float:
    """Return the seconds of one forward pass over all images."""
    model.eval()
    began = time.perf_counter()
    with torch.inference_mode():
        for name in data.subsets:
            order = torch.arange(len(data.subset(name)))
            for pixels, _ in pieces(data, name, order):
                model(normalize(pixels, data.preprocess))
    return time.perf_counter() - began


class Tutorial:
    """Baseline loop: the frozen backbone runs for every batch of every epoch."""

    def __init__(self, model: nn.Sequential, data: ImageData) -> None:
        self.body, self.head = model[:-1].eval(), nn.Linear(1280, data.num_classes)
        self.dropout, self.data = nn.Dropout(0.2), data
        self.optimizer = torch.optim.Adam(self.head.parameters(), lr=RATE)
        self.draw = torch.Generator().manual_seed(0)

    def epoch(self) -> float:
        """Train one epoch, run the validation split, and return the seconds."""
        began = time.perf_counter()
        order = torch.randperm(len(self.data.subset("train")), generator=self.draw)
        for pixels, labels in pieces(self.data, "train", order):
            with torch.no_grad():
                x = self.body(normalize(pixels, self.data.preprocess))
            self.step(x, labels)
        val = torch.arange(len(self.data.subset("val")))
        with torch.no_grad():
            for pixels, _ in pieces(self.data, "val", val):
                self.head(self.body(normalize(pixels, self.data.preprocess)))
        return time.perf_counter() - began

    def step(self, x: Tensor, labels: Tensor) -> None:
        """Train the head on a batch of features."""
        self.optimizer.zero_grad()
        cost = nn.functional.cross_entropy(self.head(self.dropout(x)), labels)
        cost.backward()
        self.optimizer.step()

    @torch.no_grad()
    def features(self, split: str) -> Tensor:
        """Return the features of all images of a split."""
        order = torch.arange(len(self.data.subset(split)))
        every = pieces(self.data, split, order)
        return torch.cat(
            [self.body(normalize(p, self.data.preprocess)) for p, _ in every]
        )

    def accuracy(self) -> float:
        """Return the test accuracy after 30 epochs of the baseline loop."""
        x, labels = self.features("train"), self.data.subset("train").labels
        for _ in range(EPOCHS):
            order = torch.randperm(len(x), generator=self.draw)
            for index in torch.split(order, BATCH):
                self.step(x[index], labels[index])
        with torch.no_grad():
            said = self.head(self.features("test")).argmax(1)
        return float((said == self.data.subset("test").labels).float().mean())


def ours(recipe: Recipe, data: ImageData, folder: Path) -> tuple[float, Run]:
    """Return the seconds of a whole striate job without cache, and the run."""
    began = time.perf_counter()
    run = transfer_recipe(recipe, TransferOptions(), out=folder, quiet=True, data=data)
    return time.perf_counter() - began, run


def main() -> None:
    """Run the benchmark, print and save the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=1, help="baseline epochs")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--cells", type=int, default=2624)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    every = cells()[:: max(2624 // options.cells, 1)]
    with tempfile.TemporaryDirectory() as name, flush_denormals():
        folder = Path(name)
        _, test = next(splits(every, 1))
        write_table(every, test, folder / "cells.csv")
        recipe = Recipe(
            data=str(folder / "cells.csv"),
            model="mobilenet_v2",
            pretrained="mobilenet_v2",
            image_size=options.side,
            cache="off",  # no feature is kept from round to round
        )
        data = load_recipe(recipe)
        model = build_model(resolve_recipe(recipe, data), data).to(
            memory_format=torch.channels_last
        )
        tutorial = Tutorial(model, data)
        rows: list[tuple[float, float, float]] = []
        for i in range(options.rounds):
            forward = passed(model, data)
            mine, run = ours(recipe, data, folder / f"run{i}")
            loop = statistics.mean(tutorial.epoch() for _ in range(options.epochs))
            rows.append((forward, mine, loop))
            print(
                f"{i}: forward {forward:.1f} s, ours {mine:.1f} s, epoch {loop:.1f} s"
            )
        peer = Tutorial(model, data).accuracy()
        accuracy = run.scores["test"]["accuracy"]
    report(rows, accuracy, peer, options)


def report(
    rows: list[tuple[float, float, float]],
    accuracy: float,
    peer: float,
    options: argparse.Namespace,
) -> None:
    """Print and save medians and worst cases."""
    sooner = [EPOCHS * loop / mine for _, mine, loop in rows]
    times = [mine / forward for forward, mine, _ in rows]
    middle = [statistics.median(column) for column in zip(*rows, strict=True)]
    body = [
        f"{options.cells} cells at {options.side} px, {len(rows)} rounds. Medians: one "
        f"forward pass {middle[0]:.1f} s, whole job {middle[1]:.1f} s, an epoch of the "
        f"loop {middle[2]:.1f} s ({options.epochs} timed a round, times {EPOCHS}).",
        f"**Sooner than {EPOCHS} epochs: median {statistics.median(sooner):.1f}×, "
        f"worst {min(sooner):.1f}×. Whole job: median {statistics.median(times):.2f}×, "
        f"worst {max(times):.2f}× one forward pass.**",
        f"Test accuracy: ours {100 * accuracy:.2f} %, the loop's head after {EPOCHS} "
        f"epochs {100 * peer:.2f} %. {LEAK}",
        speeds(),
    ]
    print("\n\n".join(body))
    save("transfer", "Transfer, head only", "\n\n".join(body))


if __name__ == "__main__":
    main()
