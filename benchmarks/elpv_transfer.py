"""ELPV by transfer learning (goal P7): linear head on cached MobileNetV2 features.

Question: how near to the paper's fine-tuned VGG-19 (88.42 %) is a linear head, in
minutes on a CPU? Five stratified 75/25 splits are used. No setting is chosen on a test
split: the L2 regularization strength comes from cross-validation within the training
split, and the other settings are fixed in this file. The features of an image are the
same in every split and are computed once.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from elpv_cells import LEAK, PUBLISHED, cells, judged, splits, write_table
from record import mean_deviation, save
from striate.run.recipe import Recipe
from striate.run.run import Run
from striate.workflows.transfer.options import TransferOptions
from striate.workflows.transfer.transfer import transfer_recipe

COLUMNS = "| split | accuracy | balanced | F1 defect | ROC-AUC | cost | penalty | s |"
VAL = 0.05  # of the training split is set aside; the head does not need it


def one(table: Path, folder: Path, seed: int, options: argparse.Namespace) -> Run:
    """Train and evaluate a head on one split."""
    recipe = Recipe(
        data=str(table),
        model="mobilenet_v2",
        pretrained="mobilenet_v2",
        image_size=options.side,
        in_chans=options.channels,
        val_fraction=VAL,
        seed=seed,
        cache=str(options.cache or folder / "cache"),
        **({"augment": "flip"} if options.views else {}),
    )
    wanted = TransferOptions(views=options.views)
    return transfer_recipe(recipe, wanted, out=folder / f"run{seed}", quiet=True)


def main() -> None:
    """Train and evaluate a head on every split, print and save the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--side", type=int, default=300)
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--views", type=int, default=0)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    every, lines, found = cells(), [COLUMNS, "|---|---|---|---|---|---|---|---|"], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed, test in splits(every, options.splits):
            table = folder / f"split{seed}.csv"
            write_table(every, test, table)
            began = time.perf_counter()
            run = one(table, folder, seed, options)
            seconds = time.perf_counter() - began
            figure = judged(run).figures()
            found.append(figure)
            shares = [
                f"{100 * figure[k]:.2f} %" for k in ("accuracy", "balanced", "f1")
            ]
            rest = [f"{figure['auc']:.4f}", f"{figure['cost']:.4f}"]
            facts = run.manifest["transfer"]
            rest += [f"{facts['penalty']:.2g}", f"{seconds:.0f}"]
            lines.append("| " + " | ".join([str(seed), *shares, *rest]) + " |")
            print(lines[-1], flush=True)
    keys = ("accuracy", "balanced", "f1")
    means = [f"{key} {mean_deviation([f[key] for f in found])}" for key in keys]
    auc = statistics.mean(f["auc"] for f in found)
    body = [
        f"Head alone, MobileNetV2 at {options.side} px, {options.channels} channel(s), "
        f"{options.views} views; {PUBLISHED}.",
        f"**Mean of {len(found)} splits: {', '.join(means)}, ROC-AUC {auc:.4f}.**",
        "\n".join(lines),
        f"Features of all images are computed in the first split, kept after. {LEAK}",
    ]
    print("\n".join(body))
    save("elpv-transfer", "ELPV by transfer, head alone", "\n\n".join(body))


if __name__ == "__main__":
    main()
