"""Time of one image and of a batch in all engines, in fp32 and int8 (goals P10, P11).

Random weights and random images: the ratios hold for trained networks, too. Median of
9 interleaved rounds with one thread, in processor time, from the 8-bit image to the
probabilities. The last column is the gain of the fastest engine over eager PyTorch.
"""

from __future__ import annotations

import argparse

import numpy as np

from record import save
from striate.core.preprocess_config import Preprocess
from striate.exporters.network_pipeline import NetworkPipeline
from striate.exporters.probabilities import ProbabilityMap
from striate.run.create_model import create_model
from striate.workflows.optimize.engines import list_entrants
from striate.workflows.optimize.measure import (
    RaceSetting,
    measure_setting,
    start_engines,
)

NETWORKS = {
    "alexnet": 224,
    "vgg16": 224,
    "googlenet": 224,
    "resnet18": 224,
    "resnet50": 224,
    "mobilenet_v2": 224,
    "fast_small": 32,
}


def rows(name: str, side: int, batches: list[int], images: int) -> list[str]:
    """Return the table rows of a network, one for each batch size."""
    classes = 1000 if side > 100 else 10
    model = create_model(
        name, num_classes=classes, in_chans=3, image_size=side, seed=0
    ).eval()
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    pipeline = NetworkPipeline(
        model=model,
        preprocess=Preprocess(channels=3, height=side, width=side, mean=mean, std=std),
        probabilities=ProbabilityMap(classes=tuple(map(str, range(classes)))),
    )
    draw = np.random.default_rng(0)
    calibration = draw.integers(0, 256, (images, side, side, 3), np.uint8)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    entrants = list_entrants(pipeline, calibration, size, {}).entrants
    engines = start_engines(entrants, 1)
    found = []
    for batch in batches:
        _, times = measure_setting(engines, calibration[:1], RaceSetting(batch, 1))
        cpu = {key: 1e3 * value.cpu_seconds for key, value in times.items()}
        eager = next(iter(cpu.values()))
        single = min(v for k, v in cpu.items() if k.endswith("fp32"))
        fastest = min(cpu, key=cpu.__getitem__)
        cells = [name, str(batch), *(f"{v:.3g}" for v in cpu.values())]
        cells += [f"{eager / single:.2f}", f"{eager / cpu[fastest]:.2f} ({fastest})"]
        found.append(f"| {' | '.join(cells)} |")
        print(found[-1], flush=True)
    return found


def main() -> None:
    """Race all engines on each network, and save the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--images", type=int, default=16, help="for the calibration")
    options = parser.parse_args()
    columns = ["network", "batch", "PyTorch", "channels_last", "ORT", "OpenVINO"]
    columns += ["ORT int8", "OpenVINO int8", "best fp32 ×", "best ×"]
    head = f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}\n"
    body = [
        row
        for name in options.networks
        for row in rows(name, NETWORKS[name], options.batches, options.images)
    ]
    note = "Milliseconds of processor time of one thread for the whole batch."
    save("engines", "Engines", f"{note}\n\n{head}" + "\n".join(body))


if __name__ == "__main__":
    main()
