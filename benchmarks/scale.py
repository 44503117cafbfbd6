"""Memory and time of loading datasets in tar shards, for 10³ to 10⁶ images (goal P16).

Claim: memory is constant, time is linear within 10 %. Each dataset is scanned and then
loaded for one epoch in a new process, from tar shards of synthetic 32×32 JPEGs. Peak
memory is the process's own memory (anonymous pages), without the system's file cache.
The shards are removed from the file cache, so that every dataset is read from the disk.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import resource
import shutil
import statistics
import tarfile
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

from record import save
from speeds import speeds
from striate.data.batches import Batches
from striate.data.load import load_data
from striate.data.shards import load as load_shards

SIDE, EACH, BATCH = 32, 2000, 256
WHO = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
DISTINCT = 4096  # images that are made; the rest differ in their last bytes only


def images() -> list[bytes]:
    """Return the bytes of different JPEG images of noisy stripes."""
    draw = np.random.default_rng(0)
    made = []
    for i in range(DISTINCT):
        rows = np.arange(SIDE)[:, None, None] // (2 + i % 5) % 2 * 120
        pixels = rows + draw.integers(0, 90, (SIDE, SIDE, 3))
        file = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(file, "JPEG", quality=80)
        made.append(file.getvalue())
    return made


def write_shards(folder: Path, count: int) -> None:
    """Write shards with `count` images of ten classes, unique by JPEG comments."""
    base = images()
    folder.mkdir(parents=True)
    each = min(EACH, max(100, count // 10))
    for shard, first in enumerate(range(0, count, each)):
        with tarfile.open(folder / f"p-{shard:06d}.tar", "w") as tar:
            for i in range(first, min(first + each, count)):
                payload = base[(i * 7919) % DISTINCT]
                name = f"c{(i * 7919) % DISTINCT % 10}/{i:08d}.jpg"
                info = tarfile.TarInfo(name)
                info.size = len(payload)
                tar.addfile(info, io.BytesIO(payload))


def anonymous() -> float:
    """Return the memory of this process in MiB (anonymous pages)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    return float("nan")


def drop_cached(folder: Path) -> None:
    """Remove the shards from the system's file cache."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def spent() -> tuple[float, float, float]:
    """Return elapsed seconds, CPU seconds including child processes, and MiB read."""
    mine, theirs = (resource.getrusage(who) for who in WHO)
    processor = mine.ru_utime + mine.ru_stime + theirs.ru_utime + theirs.ru_stime
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("read_bytes"):
            return time.perf_counter(), processor, int(line.split()[1]) / 2**20
    return time.perf_counter(), processor, float("nan")


def work(folder: str, cache: str, answer: multiprocessing.Queue) -> None:
    """Scan a dataset and load one epoch; send the times of both and the peak memory."""
    load_shards.MOST_HELD = 0
    most, over = [anonymous()], threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            most[0] = max(most[0], anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = spent()
    data = load_data(folder, cache=cache, normalize="none", in_chans=3)
    scan = [after - before for before, after in zip(start, spent(), strict=True)]
    drop_cached(Path(folder))
    scanned = spent()
    seen = 0
    for split, shuffle in (("train", True), ("val", False)):
        batches = Batches(
            subset=data.subset(split),
            preprocess=data.preprocess,
            batch_size=BATCH,
            shuffle=shuffle,
        )
        seen += sum(len(y) for _, y in batches(0))
    fed = spent()
    over.set()
    watcher.join()
    feed = [after - before for before, after in zip(scanned, fed, strict=True)]
    answer.put((*scan, *feed, seen, most[0]))


def measure(folder: Path) -> tuple[float, ...]:
    """Measure one dataset size in a new process, with a new cache."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    cache = tempfile.mkdtemp(prefix="striate-bench-")
    child = context.Process(target=work, args=(str(folder), cache, answer))
    child.start()
    told = answer.get()
    child.join()
    shutil.rmtree(cache)
    return told


def main() -> None:
    """Measure all dataset sizes in turn, print and save the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--largest", type=int, default=1_000_000)
    options = parser.parse_args()
    counts = [n for n in (1_000, 10_000, 100_000, 1_000_000) if n <= options.largest]
    root = Path(tempfile.mkdtemp(prefix="striate-bench-scale-"))
    for count in counts:
        write_shards(root / str(count), count)
    told: dict[int, list[tuple[float, ...]]] = {count: [] for count in counts}
    for turn in range(options.rounds):
        for count in sorted(counts, reverse=turn % 2 == 1):
            # The largest sets take minutes: a few rounds of them say enough.
            if turn and count >= 100_000 and turn >= max(1, 700_000 // count):
                continue
            told[count].append(measure(root / str(count)))
            print(count, told[count][-1], flush=True)
    shutil.rmtree(root)
    rows = []
    for count, runs in told.items():
        scan, scan_cpu, _, feed, feed_cpu, read, shown, memory = map(
            statistics.median, zip(*runs, strict=True)
        )
        cells = (
            f"{count:,}",
            f"{1e6 * scan / count:,.0f} µs",
            f"{1e6 * scan_cpu / count:,.0f} µs",
            f"{1e6 * feed / shown:,.0f} µs",
            f"{1e6 * feed_cpu / shown:,.0f} µs",
            f"{read:,.0f} MiB",
            f"{memory:,.0f} MiB",
            f"{max(r[-1] for r in runs):,.0f} MiB",
            f"{len(runs)}",
        )
        rows.append("| " + " | ".join(cells) + " |")
        print(rows[-1])
    head = (
        "| images | scan, each | processor | feed, each | processor | read from disk "
        "| memory | worst | rounds |"
    )
    facts = f"{SIDE}² JPEGs in shards of {EACH:,}, batch {BATCH}. Read from disk: what "
    facts += f"was fed from it, all sizes with nothing cached. {speeds()}"
    body = head + "\n" + "|---" * 9 + "|\n" + "\n".join(rows) + f"\n\n{facts}"
    save("scale", "From a thousand images to a million (P16)", body)


if __name__ == "__main__":
    main()
