"""Speed of training steps against a plain PyTorch loop and Keras (goal P2).

Goal: with 128 images per step, ≥ 1.5 times the speed of eager NCHW and ≥ 1.0 times the
best of {NCHW, NHWC} × {eager, compiled} and Keras, on every small network, with default
settings. `lenet5_modern` misses the first goal (docs/notebook/training-speed.md). The
striate runs use `fit` over `Batches`, in the execution mode that `autotune` chooses;
`striate fp32` uses single precision like all other programs. The others get prepared
batches. All run in turn with the same number of threads. Keras runs in a separate
process, which waits while others run. `--rounds` ≥ 7.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from record import save
from speeds import speeds
from striate.audit.network import audit
from striate.core.device import flush_denormals
from striate.core.malloc import keep_freed_memory
from striate.core.preprocess_config import Preprocess
from striate.data.batches import Batches
from striate.data.image_data import ImageData
from striate.data.load import load_data
from striate.data.subset import Subset
from striate.engine.execution_config import PRECISIONS, ExecutionConfig
from striate.engine.optim import make_optimizer
from striate.engine.schedule import SCHEDULES
from striate.engine.throughput import ThroughputMeter, measure_peak_flops
from striate.engine.training_loop import FitConfig, fit
from striate.run.build_from_recipe import recipe_execution
from striate.run.create_model import create_model
from striate.run.recipe import Recipe
from striate.workflows.train.autotune import autotune

BATCH = 128
NETWORKS = {
    "tutorial_gray": (1, 28),
    "tutorial_color": (3, 32),
    "lenet5_modern": (1, 32),
    "cifar_resnet20": (3, 32),
    "resnet18": (3, 64),
}
Steps = Callable[[int], float]  # so many steps, in seconds


def plain_step(model: Callable[[Tensor], Tensor], optimizer, x: Tensor, y: Tensor):
    """Run the training step of PyTorch tutorials, with a fused optimizer."""
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y, label_smoothing=0.1)
    loss.backward()
    optimizer.step()
    return loss.item()


def torchs(model: nn.Module, x: Tensor, y: Tensor, nhwc: bool, compiled: bool) -> Steps:
    """Return the steps of plain PyTorch, NCHW or NHWC, eager or compiled."""
    layout = torch.channels_last if nhwc else torch.contiguous_format
    mine = copy.deepcopy(model).to(memory_format=layout)
    batch = x.contiguous(memory_format=layout)
    optimizer = torch.optim.AdamW(mine.parameters(), 1e-4, fused=True)
    forward = torch.compile(mine) if compiled else mine

    def steps(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            plain_step(forward, optimizer, batch, y)
        return time.perf_counter() - start

    return steps


def striates(model: nn.Module, channels: int, side: int, way: ExecutionConfig) -> Steps:
    """Return the steps of striate: `fit` over `Batches`, with two validation images."""
    mine = copy.deepcopy(model).to(memory_format=way.memory_format)
    optimizer = make_optimizer(mine, "adamw", 1e-4, 0.9, 0.01)
    val = _batches(2, channels, side, shuffle=False)

    def steps(count: int) -> float:
        train = _batches(count * BATCH, channels, side)
        plan = FitConfig(
            epochs=1,
            lr=1e-4,
            schedule=SCHEDULES["one_cycle"],
            label_smoothing=0.1,
            execution=way,
        )
        start = time.perf_counter()
        with flush_denormals():
            fit(mine, optimizer, train, val, plan)
        return time.perf_counter() - start

    return steps


def _split(count: int, channels: int, side: int) -> Subset:
    draw = torch.Generator().manual_seed(0)
    shape = (count, side, side, channels)
    pixels = torch.randint(0, 256, shape, generator=draw, dtype=torch.uint8)
    names = [str(i) for i in range(count)]
    return Subset.of(pixels, [i % 10 for i in range(count)], names)


def _batches(count: int, channels: int, side: int, shuffle: bool = True) -> Batches:
    half, quarter = (0.5,) * channels, (0.25,) * channels
    preprocess = Preprocess(
        channels=channels, height=side, width=side, mean=half, std=quarter
    )
    return Batches(
        subset=_split(count, channels, side),
        preprocess=preprocess,
        batch_size=BATCH,
        shuffle=shuffle,
    )


def chosen(model: nn.Module, data: ImageData) -> ExecutionConfig:
    """Return the execution mode that striate chooses for a long run."""
    recipe = Recipe(data="digits", epochs=1_000, batch_size=BATCH, cache="off")
    recipe = Recipe(**{**recipe.as_dict(), "compile": "off"})
    return recipe_execution(autotune(copy.deepcopy(model), data, recipe).recipe)


def images(channels: int, side: int) -> ImageData:
    """Return the digits resized to the network's input size; only the shape matters."""
    return load_data("digits", image_size=side, in_chans=channels, cache="off")


@dataclass
class Keras:
    """Separate process that runs training steps of the same network in Keras."""

    process: subprocess.Popen

    def __call__(self, count: int) -> float:
        """Run `count` training steps in Keras and return the seconds."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(count, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())


def keras(python: str, name: str, threads: int) -> Keras:
    """Start a Keras process for a network, with another Python interpreter."""
    script = str(Path(__file__).with_name("steps_keras.py"))
    words = [python, script, name, *map(str, NETWORKS[name]), str(BATCH), str(threads)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(  # noqa: S603 - our own script
        words, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready", f"no Keras in {python}"
    return Keras(process)


def contenders(
    name: str, options: argparse.Namespace
) -> tuple[dict[str, Steps], ExecutionConfig, int]:
    """Return the warmed-up programs, striate's execution mode, and multiply-adds."""
    channels, side = NETWORKS[name]
    model = create_model(
        name, num_classes=10, in_chans=channels, image_size=side, seed=0
    ).train()
    macs = audit(model, (channels, side, side)).macs
    x, y = torch.randn(BATCH, channels, side, side), torch.arange(BATCH) % 10
    way = chosen(model, images(channels, side))
    found: dict[str, Steps] = {}
    for nhwc in (False, True):
        for compiled in (False, True) if options.compiled else (False,):
            label = (
                f"{'compiled' if compiled else 'eager'} {'NHWC' if nhwc else 'NCHW'}"
            )
            torch._dynamo.reset()
            found[label] = torchs(model, x, y, nhwc, compiled)
            found[label](2)
    if options.keras:
        found["Keras"] = keras(options.keras, name, torch.get_num_threads())
    single = ExecutionConfig(layout=way.layout)
    found["striate fp32"] = striates(model, channels, side, single)
    found["striate"] = striates(model, channels, side, way)
    for label in ("striate fp32", "striate"):
        found[label](2)
    return found, way, macs


def race(name: str, options: argparse.Namespace) -> Race:
    """Measure all programs in turn on one network."""
    found, way, macs = contenders(name, options)
    taken: dict[str, list[float]] = {label: [] for label in found}
    for turn in range(options.rounds):
        look_at_peaks()
        for label in sorted(found, reverse=turn % 2 == 1):
            taken[label].append(found[label](options.steps) / options.steps)
    for steps in found.values():
        if isinstance(steps, Keras):
            steps.process.kill()
    told = {label: f"{1e3 * statistics.median(t):.1f} ms" for label, t in taken.items()}
    print(name, told, flush=True)
    return Race(name, way, macs, taken)


PEAKS = dict.fromkeys(PRECISIONS, 0.0)


def look_at_peaks() -> None:
    """Measure the machine's peak FLOP/s again, and keep the largest values."""
    for name, kind in PRECISIONS.items():
        PEAKS[name] = max(PEAKS[name], measure_peak_flops(torch.device("cpu"), kind))


@dataclass(frozen=True)
class Race:
    """Times of all programs on one network, execution mode, and multiply-adds."""

    name: str
    way: ExecutionConfig
    macs: int
    taken: dict[str, list[float]]

    def rows(self) -> list[str]:
        """Return the table rows of this network."""
        middle = {
            label: statistics.median(times) for label, times in self.taken.items()
        }
        peers = {k: v for k, v in middle.items() if not k.startswith("striate")}
        best, eager = min(peers.values()), middle["eager NCHW"]
        rows = []
        for label, seconds in middle.items():
            ours = label == "striate"
            precision = self.way.precision if ours else "fp32"
            mfu = ThroughputMeter(self.macs, PEAKS[precision]).mfu(BATCH / seconds)
            cells = (
                self.name,
                f"{label} ({self.way})" if ours else label,
                f"{1e3 * seconds:.1f} ms",
                f"{1e3 * max(self.taken[label]):.1f} ms",
                f"{BATCH / seconds:,.0f}",
                f"{eager / seconds:.2f}×",
                f"{best / seconds:.2f}×",
                f"{100 * mfu:.0f} %",
            )
            rows.append(f"| {' | '.join(cells)} |")
        return rows


def main() -> None:
    """Run the benchmark, print and save the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=5, help="steps per round")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--keras", default="", help="Python interpreter with Keras")
    parser.add_argument(
        "--no-compiled", dest="compiled", action="store_false", help="no compilation"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    races = [race(name, options) for name in options.networks]
    rows = [row for one in races for row in one.rows()]
    print("\n".join(rows))
    head = (
        "| network | who | median step | worst | images/s | of eager NCHW "
        "| of the best peer | MFU |\n|---|---|---|---|---|---|---|---|\n"
    )
    facts = (
        f"{BATCH} images a step, {options.steps} steps a turn, {options.rounds} "
        f"rounds turn about, {options.threads} threads, AdamW, label smoothing. "
        "MFU: 2 · 3 · multiply-adds an image, of this machine's peak of a matrix "
        f"product in that precision, "
        f"{PEAKS['fp32'] / 1e9:.0f} and {PEAKS['bf16'] / 1e9:.0f} GFLOP/s. {speeds()}"
    )
    save("steps", "Training steps", head + "\n".join(rows) + f"\n\n{facts}")


if __name__ == "__main__":
    main()
