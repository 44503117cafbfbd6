"""Golden losses: the first training losses of three networks, exact to the last bit.

`python tests/support/golden.py` prints them; `… --write` stores them as the expected
losses. The environment below makes the arithmetic the same on every
x86-64 processor, whatever instructions it has; torch itself is the lock's.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

PORTABLE = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "OMP_NUM_THREADS": "1",
}
GOLDEN_FILE = Path(__file__).with_name("golden.json")
STEPS = 50
# Plain, with dropout, with batch norm and shortcuts: name, side, channels, batch.
NETWORKS = (
    ("tutorial_gray", 12, 1, 8),
    ("tutorial_color", 8, 3, 8),
    ("cifar_resnet20", 8, 3, 4),
)


def losses(name: str, side: int, channels: int, batch: int) -> list[str]:
    """Train for 50 steps on noise that is a function; return hexadecimal losses."""
    import torch

    from striate.core.device import flush_denormals
    from striate.core.preprocess_config import Preprocess
    from striate.core.seeds import numpy_generator
    from striate.data.batches import Batches
    from striate.data.subset import Subset
    from striate.engine.optim import make_optimizer
    from striate.engine.schedule import SCHEDULES
    from striate.engine.training_loop import FitConfig, FitSession, fit
    from striate.run.create_model import create_model

    torch.backends.mkldnn.enabled = False
    count = 21 * batch  # three epochs, the last of them in part
    draw = numpy_generator("golden", name)
    pixels = draw.integers(0, 256, (count, side, side, channels), dtype="uint8")
    labels = [int(image.sum()) % 10 for image in pixels]
    mean, std = (0.5,) * channels, (0.25,) * channels
    preprocess = Preprocess(
        channels=channels, height=side, width=side, mean=mean, std=std
    )
    subset = Subset.of(torch.from_numpy(pixels), labels, [str(i) for i in range(count)])
    batches = Batches(subset=subset, preprocess=preprocess, batch_size=batch, seed=5)
    model = create_model(
        name, num_classes=10, in_chans=channels, image_size=side, seed=5
    ).to(memory_format=torch.channels_last)
    config = FitConfig(
        epochs=3,
        lr=3e-3,
        schedule=SCHEDULES["one_cycle"],
        label_smoothing=0.1,
        seed=5,
    )
    optimizer = make_optimizer(model, "adamw", config.lr, 0.9, 0.01)
    first_losses = FirstLosses()
    val = Batches(subset=subset, preprocess=preprocess, batch_size=256, shuffle=False)
    with flush_denormals():
        fit(
            model,
            optimizer,
            batches,
            val,
            config,
            callbacks=[first_losses],
            session=FitSession(should_stop=lambda: first_losses.is_full),
        )
    return first_losses.losses


class FirstLosses:
    """Keeps the first losses."""

    def __init__(self) -> None:
        self.losses: list[str] = []

    @property
    def is_full(self) -> bool:
        return len(self.losses) == STEPS

    def on_step_end(self, result) -> None:
        self.losses.append(result.loss.hex())

    def on_epoch_end(self, result) -> None:
        self.losses[-1] += f" {result.val_loss.hex()}"


def main() -> None:
    if any(os.environ.get(key) != value for key, value in PORTABLE.items()):
        command = [sys.executable, *sys.argv]
        os.execve(sys.executable, command, os.environ | PORTABLE)  # noqa: S606
    results = {name: losses(name, *network_args) for name, *network_args in NETWORKS}
    text = json.dumps(results, indent=1) + "\n"
    if "--write" in sys.argv:
        GOLDEN_FILE.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
