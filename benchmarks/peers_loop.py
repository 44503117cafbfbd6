"""`tutorial_gray` in a plain PyTorch loop with DataLoader, in the style of tutorials.

`python peers_loop.py FOLDER SEED EPOCHS BATCH` prints the test accuracy of each epoch.
"""

from __future__ import annotations

import os
import sys

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from idx import fashion


def loader(half: tuple, batch: int, shuffle: bool) -> DataLoader:
    """Return a DataLoader with one worker per core."""
    x, y = half
    images = torch.from_numpy(x)[:, None] / 255
    workers = os.cpu_count() or 1
    return DataLoader(
        TensorDataset(images, torch.from_numpy(y)),
        batch,
        shuffle=shuffle,
        num_workers=workers,
        persistent_workers=True,
    )


def main() -> None:
    """Train, and evaluate on the test split after each epoch."""
    folder, (seed, epochs, batch) = sys.argv[1], map(int, sys.argv[2:5])
    torch.manual_seed(seed)
    train, test = fashion(folder)
    learn, judge = loader(train, batch, True), loader(test, 1000, False)
    model = nn.Sequential(
        *(nn.Conv2d(1, 25, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(25, 50, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(2450, 10)),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        model.train()
        for x, y in learn:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            right = sum(int((model(x).argmax(1) == y).sum()) for x, y in judge)
        print(f"accuracy {right / len(test[1]):.5f}", flush=True)


if __name__ == "__main__":
    main()
