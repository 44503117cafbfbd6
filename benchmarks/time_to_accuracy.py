"""Time from program start to a test accuracy on Fashion-MNIST (goal P1).

Claims: striate reaches 91 % at least 8 times as fast as `fit` of Keras with
`tutorial_gray`, and at least 93.5 % in the time that Keras needs for 91 %. The third
program is `tutorial_gray` in a plain PyTorch loop with DataLoader. Times start with the
process and include imports, file reading and every evaluation. The other programs are
evaluated on the test split after each epoch and stopped at 91 %. striate evaluates the
validation split each epoch and the test split once; its time ends when the report is
written.

`--keras PYTHON` is a Python interpreter with keras and tensorflow (`make bench-time`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from record import mean_deviation, save
from speeds import speeds

HERE = Path(__file__).parent
GOAL = 0.91
EPOCHS = 30  # of a peer, at most
KERAS = "Keras fit, batch"
LOOP_BATCH = 64  # of PyTorch's own MNIST example
PRESETS = ["fashion-fast", "fashion-wide"]


@dataclass(frozen=True)
class Arrival:
    """Result of one program: seconds, test accuracy, whether the goal was reached."""

    seconds: float
    accuracy: float
    there: bool


def peer(command: list[str]) -> Arrival:
    """Run another program, and stop the program when the goal is reached."""
    start = time.perf_counter()
    best = 0.0
    with subprocess.Popen(  # noqa: S603 - our own words
        command, stdout=subprocess.PIPE, text=True
    ) as process:
        for accuracy in _accuracies(process):
            best = max(best, accuracy)
            if accuracy >= GOAL:
                taken = time.perf_counter() - start
                process.terminate()
                return Arrival(taken, accuracy, True)
    if process.returncode:
        raise SystemExit(f"{command} failed with {process.returncode}")
    return Arrival(time.perf_counter() - start, best, False)


def _accuracies(process: subprocess.Popen[str]) -> Iterator[float]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("accuracy "):
            yield float(line.split()[1])


def ours(preset: str, seed: int, folder: Path) -> Arrival:
    """Run `striate train` to the end and return the result."""
    start = time.perf_counter()
    words = ["--preset", preset, "--seed", str(seed), "--json"]
    out = ["--out", str(folder / f"{preset}-{seed}")]
    command = [sys.executable, "-m", "striate", "train", *words, *out]
    done = subprocess.run(  # noqa: S603 - our own words
        command, capture_output=True, text=True, check=True
    )
    taken = time.perf_counter() - start
    accuracy = float(json.loads(done.stdout)["accuracy"])
    return Arrival(taken, accuracy, accuracy >= GOAL)


def race(options: argparse.Namespace, folder: Path) -> dict[str, list[Arrival]]:
    """Run every program once per seed, in alternating order; return all results."""
    peers = {f"PyTorch loop, batch {LOOP_BATCH}": ("peers_loop.py", LOOP_BATCH)}
    if options.keras:
        peers |= {f"{KERAS} {n}": ("peers_keras.py", n) for n in options.batches}

    def start(name: str, seed: int) -> Arrival:
        if name not in peers:
            return ours(name, seed, folder)
        program, batch = peers[name]
        python = options.keras if program == "peers_keras.py" else sys.executable
        words = [options.folder, str(seed), str(EPOCHS), str(batch)]
        return peer([python, str(HERE / program), *words])

    rivals = [*options.presets, *peers]
    found: dict[str, list[Arrival]] = {name: [] for name in rivals}
    book = Book(options.log)
    for seed in range(options.seeds):
        for name in rivals if seed % 2 == 0 else reversed(rivals):
            one = book.arrival(name, seed) or start(name, seed)
            book.enter(name, seed, one)
            found[name].append(one)
            word = "" if one.there else " (91 % not reached)"
            print(f"seed {seed} {name}: {one.seconds:.1f} s, ", end="")
            print(f"{100 * one.accuracy:.2f} %{word}", flush=True)
    return found


class Book:
    """Store of results in a file, so that an interrupted benchmark can be continued."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, Arrival] = {}
        if path and path.exists():
            lines = map(json.loads, path.read_text().splitlines())
            self._known = {line.pop("of"): Arrival(**line) for line in lines}

    def arrival(self, name: str, seed: int) -> Arrival | None:
        """Return the stored result of a program and seed, or None."""
        return self._known.get(f"{name}, seed {seed}")

    def enter(self, name: str, seed: int, one: Arrival) -> None:
        """Store the result of a program and seed."""
        key = f"{name}, seed {seed}"
        if self._path and key not in self._known:
            self._known[key] = one
            with self._path.open("a") as file:
                file.write(json.dumps({"of": key, **asdict(one)}) + "\n")


def table(found: dict[str, list[Arrival]]) -> str:
    """Return a table: times (mean, median, worst), speedup over Keras, accuracy."""
    head = "| rival | mean | median | worst | sooner than Keras | test accuracy "
    lines = [head + "| at 91 % |", "|---|---|---|---|---|---|---|"]
    keras = [arrivals for name, arrivals in found.items() if name.startswith(KERAS)]
    means = [statistics.mean(a.seconds for a in one) for one in keras]
    slow = min(means, default=float("nan"))  # the sooner of its batch sizes
    for name, arrivals in found.items():
        seconds = [a.seconds for a in arrivals]
        mean, middle = statistics.mean(seconds), statistics.median(seconds)
        apart = statistics.stdev(seconds) if len(seconds) > 1 else 0.0
        accuracy = mean_deviation([a.accuracy for a in arrivals])
        there = f"{sum(a.there for a in arrivals)} of {len(arrivals)}"
        cells = f"{mean:.1f} ± {apart:.1f} s | {middle:.1f} s | {max(seconds):.1f} s"
        cells += f" | {slow / mean:.1f}×"
        lines.append(f"| {name} | {cells} | {accuracy} | {there} |")
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark, print and save the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--keras", default="", help="Python interpreter with keras")
    parser.add_argument("--folder", default="", help="folder of Fashion-MNIST")
    parser.add_argument(
        "--batches", type=int, nargs="+", default=[32, 128], help="Keras batch sizes"
    )
    parser.add_argument("--log", type=Path, help="results file, to continue from")
    parser.add_argument("--presets", nargs="+", default=PRESETS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="time-") as folder:
        found = race(options, Path(folder))
    facts = (
        f"\n\n{options.seeds} seeds, turn about; peers: Adam 0.001, stopped "
        f"at 91 % or after {EPOCHS} epochs, whose time then counts. Keras' own default "
        f"is batch 32; sooner is of means, against the sooner of its batch sizes. "
        f"{speeds()}"
    )
    body = table(found) + facts
    print(body)
    save("time-to-accuracy", "Fashion-MNIST: cold start to a test accuracy (P1)", body)


if __name__ == "__main__":
    main()
