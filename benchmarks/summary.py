"""Time and memory of model summaries against other tools (goal P8).

Models: VGG-16 and ResNet-152. Claim: from model name to table, striate is ≥ 20 times as
fast as torchinfo and needs ≥ 50 times less memory, including shapes, parameters,
multiply-adds, memory and exact receptive fields. The VGG-16 summary takes less than 0.3
s after import. Each measurement is a new process; the tools run in turn, `--rounds` ≥
7. The other tools summarize torchvision's network of the same name. Install them into
the environment of `make twins`:

    .venv-twins/bin/python -m pip install torchinfo==1.8.0 fvcore==0.1.5.post20221221 \
        torchlens==2.36.1
    .venv-twins/bin/python benchmarks/summary.py
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import nn

from record import save

NETWORKS = ("vgg16", "resnet152")
WARM_UP = {"striate": "lenet5_modern"}  # peers: torchvision's smallest network
Job = Callable[[], object]


def builder(name: str) -> Callable[[], nn.Module]:
    """Return a function that builds torchvision's network of the same name."""
    # Its compiled operators are made for CUDA; networks need none of them.
    torch.library.register_fake = lambda *_, **__: lambda function: function
    from torchvision import models

    return lambda: models.get_model(name)


def with_striate(name: str) -> Job:
    """Return a function that summarizes a model by name and renders the table."""
    from striate.workflows.summary.summary import summary

    return lambda: str(summary(name))


def with_torchinfo(name: str) -> Job:
    """Return a function that summarizes a built network with torchinfo."""
    import torchinfo

    build = builder(name)
    columns = ("kernel_size", "output_size", "num_params", "mult_adds")
    return lambda: str(
        torchinfo.summary(
            build(), (1, 3, 224, 224), col_names=columns, depth=9, verbose=0
        )
    )


def with_fvcore(name: str) -> Job:
    """Return a function that counts multiply-adds and parameters with fvcore."""
    from fvcore.nn import FlopCountAnalysis, flop_count_table

    build = builder(name)
    image = torch.zeros(1, 3, 224, 224)
    return lambda: flop_count_table(
        FlopCountAnalysis(build().eval(), image), max_depth=9
    )


def with_torchlens(name: str) -> Job:
    """Return a function that traces all operations of a network with torchlens."""
    import torchlens

    build = builder(name)
    image = torch.zeros(1, 3, 224, 224)
    return lambda: str(torchlens.trace(build().eval(), image))


TOOLS = {
    "striate": with_striate,
    "torchinfo": with_torchinfo,
    "fvcore": with_fvcore,
    "torchlens": with_torchlens,
}


def measure(tool: str, name: str) -> None:
    """Import a tool, measure one summary, and print seconds and bytes."""
    torch.set_num_threads(1)
    TOOLS[tool](WARM_UP.get(tool, "squeezenet1_1"))()
    job = TOOLS[tool](name)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    made = job()
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert str(made)
    print(json.dumps({"seconds": seconds, "bytes": (after - before) * 1024}))


def once(tool: str, name: str) -> dict[str, float] | None:
    """Measure one summary in a new process; return None if the tool fails."""
    words = [sys.executable, __file__, "--measure", tool, name]
    done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        print(done.stderr.strip().splitlines()[-1])
        return None
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    """Measure all tools in turn, print and save the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--measure", nargs=2, metavar=("TOOL", "NETWORK"))
    options = parser.parse_args()
    if options.measure:
        measure(*options.measure)
        return
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for _ in range(options.rounds):
        for name in NETWORKS:
            for tool in TOOLS:
                figures = once(tool, name)
                if figures is not None:
                    found.setdefault((name, tool), []).append(figures)
    save("summary", "Summaries without running (P8)", table(found))


def table(found: dict[tuple[str, str], list[dict[str, float]]]) -> str:
    """Return a table of medians, worst values and ratios to striate."""
    lines = [
        "| network | tool | median s | worst s | × striate | memory MB | × striate |",
        "|---|---|---|---|---|---|---|",
    ]
    for (name, tool), rounds in found.items():
        ours = found[name, "striate"]
        times = [r["seconds"] for r in rounds]
        sizes = [r["bytes"] for r in rounds]
        median, size = statistics.median(times), statistics.median(sizes)
        slower = median / statistics.median(r["seconds"] for r in ours)
        larger = size / statistics.median(r["bytes"] for r in ours)
        lines.append(
            f"| {name} | {tool} | {median:.3f} | {max(times):.3f} | {slower:.1f} "
            f"| {size / 1e6:,.1f} | {larger:.1f} |"
        )
        print(lines[-1])
    note = (
        "From name to printed table, after imports and one summary of a tiny network, "
        "one thread, a fresh process each; memory is the growth of the process's peak. "
        "Only striate tells receptive fields, training memory and advice."
    )
    return "\n".join(lines) + f"\n\n{note}"


if __name__ == "__main__":
    main()
