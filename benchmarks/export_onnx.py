"""P17: time to export a network to ONNX, against torch's exporter, in one process.

striate's time is from the network to the bytes of a file that takes images; torch's is
`torch.onnx.export(dynamo=True, dynamic_shapes=…)`, without verification, of the network
alone. It needs onnxscript. Processor time, since other programs may run.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

import striate as st
from record import save
from striate.core.preprocess_config import Preprocess
from striate.exporters.fold import fold_batch_norm
from striate.exporters.onnx_file import OnnxOptions, write_onnx
from striate.exporters.probabilities import ProbabilityMap
from striate.exporters.trace_graph import trace_graph

NETWORKS = {"tutorial_gray": (1, 28), "resnet18": (3, 224), "mobilenet_v2": (3, 224)}


def ours(model: nn.Module, channels: int, side: int) -> bytes:
    """Return the file of striate, from pixels to probabilities."""
    preprocess = Preprocess(
        channels=channels,
        height=side,
        width=side,
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
    )
    graph = fold_batch_norm(trace_graph(model, (channels, side, side)))
    return write_onnx(
        graph,
        preprocess=preprocess,
        probabilities=ProbabilityMap(classes=tuple("abcdefghij")),
        options=OnnxOptions(),
        metadata={},
    )


def torchs(model: nn.Module, channels: int, side: int) -> bytes:
    """Return the file of torch's exporter."""
    x = torch.rand(2, channels, side, side)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model,
            (x,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    buffer = io.BytesIO()
    program.save(buffer)
    return buffer.getvalue()


def measure(call: Callable[[], bytes], rounds: int) -> tuple[list[float], bytes]:
    """Return the seconds of each round, and the file."""
    seconds, payload = [], b""
    for _ in range(rounds):
        start = time.process_time()
        payload = call()
        seconds.append(time.process_time() - start)
    return seconds, payload


def main() -> None:
    """Measure all networks, print and save the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    lines = [
        "| network | exporter | first s | median s | × striate | MB | paths in file |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, (channels, side) in NETWORKS.items():
        model = st.create_model(name, num_classes=10, in_chans=channels).eval()
        base = 0.0
        for label, function in (("striate", ours), ("torch", torchs)):
            call = partial(function, model, channels, side)
            seconds, payload = measure(call, rounds)
            median = statistics.median(seconds)
            base = base or median
            lines.append(
                f"| {name} | {label} | {seconds[0]:.2f} | {median:.2f} | "
                f"{median / base:.1f} | {len(payload) / 1e6:.2f} | "
                f"{payload.count(b'.py')} |"
            )
            print(lines[-1])
    note = f"{rounds} rounds in one process, processor time, one thread."
    save("export-onnx", "Export to ONNX (P17)", "\n".join([*lines, "", note]))


if __name__ == "__main__":
    main()
