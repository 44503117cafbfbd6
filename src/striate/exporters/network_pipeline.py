"""A network with its preprocessing and probabilities, and images to compare it on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from striate.core.hooks import evaluation_mode, leaf_module_names
from striate.core.logits import logits_of
from striate.core.preprocess_config import Preprocess
from striate.data.decode.preprocess import image_to_input, normalize
from striate.exporters.probabilities import ProbabilityMap
from striate.interpret.trace import record_trace

_CHUNK = 32  # images for one pass of the network


@dataclass(frozen=True, kw_only=True)
class ParitySample:
    """An image for the comparison: its pixels before resizing."""

    path: str
    pixels: np.ndarray  # (H, W, C) uint8, with the channels of the network
    # pixels of the same file by another decoder; None if there is no other decoder
    other_pixels: np.ndarray | None = None
    file: bytes = b""  # content of the image file; empty for arrays in memory


@dataclass(frozen=True, kw_only=True)
class NetworkPipeline:
    """The network with its preprocessing, as the reference of a comparison."""

    model: nn.Module
    preprocess: Preprocess
    probabilities: ProbabilityMap

    def resized(self, samples: Sequence[ParitySample]) -> np.ndarray:
        """Return the 8-bit inputs, (N, h, w, C)."""
        rows = [image_to_input(sample.pixels, self.preprocess) for sample in samples]
        return torch.stack(rows).numpy()

    def normalized(self, resized: np.ndarray) -> np.ndarray:
        """Return the inputs of the network, (N, C, h, w) float32."""
        x = normalize(torch.from_numpy(resized.copy()), self.preprocess)
        return np.ascontiguousarray(x.numpy())

    def logits(self, x: np.ndarray) -> np.ndarray:
        """Return the logits of the network, (N, classes)."""
        with evaluation_mode(self.model), torch.no_grad():
            parts = [
                logits_of(self.model(torch.from_numpy(x[i : i + _CHUNK])))
                for i in range(0, len(x), _CHUNK)
            ]
        return torch.cat(parts).numpy()

    def layers(self, x: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """Yield (layer, output) of modules without children, for a single image."""
        leaves = set(leaf_module_names(self.model))
        trace = record_trace(self.model, torch.from_numpy(x))
        for layer, ref in trace.module_outputs.items():
            if layer.partition(" #")[0] in leaves:
                yield layer, trace.value(ref).numpy()
