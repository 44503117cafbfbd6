"""The graph of a network in PyTorch, with the values of its stages for a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from striate.core.hooks import capture_outputs, leaf_module_names
from striate.data.decode.preprocess import batch_to_input
from striate.exporters.graph import NetworkGraph
from striate.exporters.graph_network import GraphNetwork
from striate.exporters.network_pipeline import NetworkPipeline


class GraphTarget:
    """A graph as it is run from a bundle.

    Args:
        graph: The graph.
        pipeline: Its preprocessing and probabilities.
    """

    input_kind = "image"

    normalize_tolerance = 0.0

    def __init__(self, graph: NetworkGraph, pipeline: NetworkPipeline) -> None:
        network = GraphNetwork(graph).eval()
        self._pipeline = NetworkPipeline(
            model=network,
            preprocess=pipeline.preprocess,
            probabilities=pipeline.probabilities,
        )

    @property
    def classes(self) -> Sequence[str]:
        """Return the class names in the order of the outputs."""
        return self._pipeline.probabilities.classes

    def run(self, batch: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return the values of all stages."""
        pipeline = self._pipeline
        resized = batch_to_input(batch, pipeline.preprocess).numpy()
        x = pipeline.normalized(resized)
        logits = pipeline.logits(x)
        return {
            "resized": resized,
            "normalized": x,
            "logits": logits,
            "probabilities": pipeline.probabilities(logits),
        }

    def run_layers(self, batch: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return the output of each layer by its dotted name."""
        model, pipeline = self._pipeline.model, self._pipeline
        x = pipeline.normalized(batch_to_input(batch, pipeline.preprocess).numpy())
        outputs: dict[str, np.ndarray] = {}

        def keep(name: str, output: Tensor) -> None:
            outputs[name] = output.numpy().copy()

        with capture_outputs(model, leaf_module_names(model), keep), torch.no_grad():
            model(torch.from_numpy(x))
        return outputs
