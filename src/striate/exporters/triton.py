"""Model repository of the Triton Inference Server: a folder with an ONNX file."""

from __future__ import annotations

import json

from striate.exporters.onnx_file import METADATA_PREFIX
from striate.exporters.onnx_model import import_onnx

MAX_BATCH_SIZE = 64
_TYPES = {1: "TYPE_FP32", 2: "TYPE_UINT8", 7: "TYPE_INT64", 9: "TYPE_BOOL"}


def triton_files(payload: bytes, name: str) -> dict[str, bytes]:
    """Return the files of a model repository by their path below its folder.

    `name/config.pbtxt` has the inputs and outputs; `labels.txt` has one class name a
    line, so that Triton answers with names (classification extension).

    Args:
        payload: Content of an ONNX file that `write_onnx` wrote.
        name: Name of the model.
    """
    model = import_onnx().load_model_from_string(payload)
    metadata = {prop.key: prop.value for prop in model.metadata_props}
    classes = json.loads(metadata[f"{METADATA_PREFIX}classes"])
    first = model.graph.input[0].type.tensor_type.shape.dim[0]
    # Triton forms batches only for files with a free batch size.
    fixed = first.HasField("dim_value")
    config = [
        f"name: {json.dumps(name)}",
        'backend: "onnxruntime"',
        f"max_batch_size: {0 if fixed else MAX_BATCH_SIZE}",
        *_ports("input", model.graph.input, fixed),
        *_ports("output", model.graph.output, fixed),
    ]
    if not fixed:
        config.append("dynamic_batching { }")
    labels = "".join(" ".join(str(label).split()) + "\n" for label in classes)
    return {
        f"{name}/config.pbtxt": ("\n".join(config) + "\n").encode(),
        f"{name}/labels.txt": labels.encode(),
        f"{name}/1/model.onnx": payload,
    }


def _ports(kind: str, values: object, fixed: bool) -> list[str]:
    """Return the blocks of the inputs or the outputs; a free batch size is left out."""
    blocks = []
    for value in values:  # type: ignore[attr-defined]
        tensor = value.type.tensor_type
        sizes = [dim.dim_value or -1 for dim in tensor.shape.dim[0 if fixed else 1 :]]
        lines = [
            f"{kind} [",
            "  {",
            f'    name: "{value.name}"',
            f"    data_type: {_TYPES[tensor.elem_type]}",
            f"    dims: {sizes or [1]}",
        ]
        if not sizes:
            lines.append("    reshape: { shape: [ ] }")
        if value.name == "probabilities":
            lines.append('    label_filename: "labels.txt"')
        blocks += [*lines, "  }", "]"]
    return blocks
