"""Small bundles for the tests."""

from __future__ import annotations

import numpy as np

from striate.core.preprocess_config import Preprocess
from striate.exporters.bundle.contents import BundleContents
from striate.exporters.graph import GraphNode, NetworkGraph

CONV = {
    "stride": [1, 1],
    "padding": [[1, 1], [1, 1]],
    "dilation": [1, 1],
    "groups": 1,
}


def small_graph() -> NetworkGraph:
    rng = np.random.default_rng(0)
    nodes = (
        GraphNode(
            kind="conv", inputs=("input", "c.weight"), output="a", attrs=CONV, layer="c"
        ),
        GraphNode(kind="relu", inputs=("a",), output="b", layer="relu"),
        GraphNode(
            kind="mean",
            inputs=("b",),
            output="p",
            attrs={"dims": [2, 3], "keepdim": False},
        ),
        GraphNode(
            kind="linear", inputs=("p", "fc.weight"), output="logits", layer="fc"
        ),
    )
    return NetworkGraph(
        nodes=nodes,
        constants={
            "c.weight": rng.normal(size=(4, 1, 3, 3)).astype(np.float32),
            "fc.weight": rng.normal(size=(2, 4)).astype(np.float32),
        },
        shapes={
            "input": (-1, 1, 6, 6),
            "a": (-1, 4, 6, 6),
            "b": (-1, 4, 6, 6),
            "p": (-1, 4),
            "logits": (-1, 2),
        },
    )


def small_contents(**changes) -> BundleContents:
    """A bundle of about 5 KB with two golden images."""
    fields = {
        "graph": small_graph(),
        "preprocess": Preprocess(
            channels=1, height=6, width=6, mean=(0.5,), std=(0.25,)
        ),
        "classes": ("cat", "dög"),
        "calibration": {"temperature": 1.25},
        "card": "# Cats and dogs\n\nAccuracy 0.93 [0.90; 0.95]\n",
        "certificate": {"onnx": {"n": 20, "max_difference": 0.0}},
        "provenance": {"data": "photos"},
        "golden_images": {"00.jpg": b"\xff\xd8first", "01.jpg": b"\xff\xd8second"},
        "golden_arrays": {
            "inputs": np.zeros((2, 1, 6, 6), np.float32),
            "logits": np.ones((2, 2), np.float32),
            "probabilities": np.full((2, 2), 0.5, np.float32),
        },
        "targets": {"model.onnx": b"onnx", "web/index.html": b"<html>"},
        "versions": {"striate": "0.1.0"},
    }
    return BundleContents(**(fields | changes))
