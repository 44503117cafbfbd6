"""C99 source of a network with its preprocessing and probabilities, without a library.

One file and its header. Only the kernels that the network needs are part of it.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from string import Template

import numpy as np

from striate.core.errors import SettingError
from striate.core.preprocess_config import Preprocess
from striate.core.registry import unknown_name_error
from striate.exporters.c_source.c_elementwise import function_text
from striate.exporters.c_source.c_program import CProgram, with_offsets
from striate.exporters.c_source.c_text import (
    c_array,
    c_comment,
    c_double,
    c_float,
    c_identifier,
    c_string,
    weights_literal,
)
from striate.exporters.c_source.lower_graph import lower_graph
from striate.exporters.graph import NetworkGraph
from striate.exporters.probabilities import ProbabilityMap

WEIGHT_PLACES = ("inside", "beside")
_FOLDER = Path(__file__).parent
# Kernels in the order of the file, with the kernels that they need.
_NEEDS = {
    "vectors": (),
    "conv": ("vectors",),
    "depthwise": ("conv",),
    "winograd": ("conv",),
    "pool": (),
    "max_pool": ("pool",),
    "avg_pool": ("pool",),
    "scale": (),
    "lrn": (),
    "softmax": (),
    "reduce": (),
    "binary": (),
    "pad": (),
    "copy": (),
    "resize": (),
    "normalize": (),
}
_POSITIONS = 96  # for which the table of input pixels is filled at once
_MAGIC = b"striate1"  # start of a weights file; then 8 bytes of its hash
_HEAD = 64  # bytes before the weights in their file


def write_c(
    graph: NetworkGraph,
    *,
    preprocess: Preprocess,
    probabilities: ProbabilityMap,
    name: str = "model",
    weights: str = "inside",
) -> dict[str, bytes]:
    """Return the contents of `NAME.c`, `NAME.h` and, beside them, `NAME.weights`.

    Args:
        graph: The network, after `fold_batch_norm`.
        preprocess: Size, resize mode, mean and standard deviation.
        probabilities: Class names, temperature, thresholds.
        name: Name of the files; the C functions begin with it.
        weights: `inside` the source, or in a file `beside` it, whose content is an
            argument of the functions.

    Raises:
        UnsupportedOperationError: An operation is not available in C.

    Example:
        >>> from torch import nn
        >>> from striate.exporters.trace_graph import trace_graph
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten())
        >>> files = write_c(
        ...     trace_graph(model, (1, 3, 3)),
        ...     preprocess=Preprocess(
        ...         channels=1, height=3, width=3, mean=(0.5,), std=(0.5,)
        ...     ),
        ...     probabilities=ProbabilityMap(classes=("cat", "dog")),
        ... )
        >>> sorted(files), b"int model_predict(" in files["model.h"]
        (['model.c', 'model.h'], True)
    """
    if weights not in WEIGHT_PLACES:
        raise unknown_name_error("place of the weights", weights, WEIGHT_PLACES)
    if not name or any(c in '/\\"?\n\r' for c in name):
        what = f"{name!r} cannot be the name of a C file"
        raise SettingError(what, fix="use letters, digits, '-' and '_'")
    program = lower_graph(graph)
    payload = program.weight_bytes()
    parts = _Parts(program, graph, preprocess, probabilities, name, weights)
    files = {
        f"{name}.c": parts.source(payload).encode(),
        f"{name}.h": parts.header(payload).encode(),
    }
    if weights == "beside":
        files[f"{name}.weights"] = _weights_head(payload) + payload
    return files


def _weights_head(payload: bytes) -> bytes:
    return (_MAGIC + hashlib.sha256(payload).digest()[:8]).ljust(_HEAD, b"\0")


@cache
def _resource(file: str) -> str:
    return (_FOLDER / file).read_text("utf-8")


class _Parts:
    """Texts of the source and of the header."""

    def __init__(
        self,
        program: CProgram,
        graph: NetworkGraph,
        preprocess: Preprocess,
        probabilities: ProbabilityMap,
        file: str,
        place: str,
    ) -> None:
        self._program = program
        self._preprocess = preprocess
        self._map = probabilities
        self._file = file
        self._name = c_identifier(file)
        self._upper = self._name.upper()
        self._beside = place == "beside"
        ends = [program.values[name].buffer for name in (graph.input, graph.output)]
        self._ends = [buffer for buffer in ends if buffer is not None]
        self._offsets, self._memory = program.place(self._ends)
        self._output = program.values[graph.output]

    def header(self, payload: bytes) -> str:
        """Return the text of the header."""
        p, upper = self._preprocess, self._upper
        bad = f",\n    {upper}_BAD_WEIGHTS = 3" if self._beside else ""
        check = (
            "\n/* Whether a file has the weights of this source: OK or BAD_WEIGHTS.\n"
            "   Pass its content, aligned to 4 bytes, to the functions above. */\n"
            f"int {self._name}_check_weights(const void *weights, size_t bytes);\n"
        )
        thresholds = (
            "\n/* Probabilities from which on a class is predicted. */\n"
            f"extern const float {self._name}_class_thresholds[{upper}_CLASSES];\n"
        )
        size = len(payload) + (_HEAD if self._beside else 0)
        return self._fill(
            "template_header.h",
            title=c_comment(self._file),
            file=c_comment(self._file),
            upper=upper,
            classes=len(self._map.classes),
            channels=p.channels,
            height=p.height,
            width=p.width,
            multi_label=int(self._map.multi_label),
            weights_bytes=size,
            threshold=repr(float(self._map.threshold)),
            bad_weights=bad,
            class_thresholds=thresholds if self._map.thresholds else "",
            check_weights=check if self._beside else "",
        )

    def _fill(self, resource: str, **fields: object) -> str:
        shared = {
            "name": self._name,
            "weights": "const void *weights, " if self._beside else "",
        }
        return Template(_resource(resource)).substitute({**shared, **fields})

    def source(self, payload: bytes) -> str:
        """Return the text of the source."""
        parts = [
            f'#include "{self._file}.h"\n',
            "#include <math.h>\n#include <stdlib.h>\n#include <string.h>\n",
            self._settings(),
            self._constants(),
            *map(_resource, self._kernel_files()),
            *(
                f"{function_text(key, name)}\n"
                for key, name in self._program.functions.items()
            ),
            self._weights(payload),
            self._network(),
            self._fill(
                "template_network.c",
                probabilities=self._probabilities(),
                w=(
                    f"(const float *)weights + {_HEAD // 4}"
                    if self._beside
                    else "weights.values"
                ),
            ),
            self._names(),
        ]
        return "\n".join(part for part in parts if part)

    def _settings(self) -> str:
        p = self._preprocess
        inputs, outputs = (self._offsets[buffer] for buffer in self._ends)
        numbers: dict[str, object] = {
            "INPUT_CHANNELS": p.channels,
            "INPUT_HEIGHT": p.height,
            "INPUT_WIDTH": p.width,
            "RESIZE_MODE": f"'{p.resize[0]}' /* {p.resize} */",
            "BACKGROUND": p.background,
            "CLASSES": len(self._map.classes),
            "MEMORY_FLOATS": self._memory,
            "TABLE_POINTERS": self._program.taps * _POSITIONS,
            "POSITIONS": _POSITIONS,
            "INPUT_OFFSET": inputs,
            "OUTPUT_OFFSET": outputs + self._output.offset,
            "RETURN_OK": f"{self._upper}_OK",
            "RETURN_NO_MEMORY": f"{self._upper}_NO_MEMORY",
            "RETURN_BAD_ARGUMENT": f"{self._upper}_BAD_ARGUMENT",
        }
        lines = [f"#define {key} {value}" for key, value in numbers.items()]
        return "\n".join(lines) + "\n#define INTS (const int[])\n"

    def _constants(self) -> str:
        p = self._preprocess
        rows = []
        for name, values in (("means", p.mean), ("stds", p.std)):
            scaled = np.float32(255) * np.array(values, np.float32)
            texts = c_array([c_float(float(value)) for value in scaled])
            rows.append(f"static const float input_{name}[] = {texts};")
        if "conv" in self._kernels():
            size = max(self._program.zeros, 16)
            rows.append(f"static const float zeros[{size}];")
        return "\n".join(rows) + "\n"

    def _kernels(self) -> set[str]:
        needed = {*self._program.kernels, "resize", "normalize"}
        for name in reversed(_NEEDS):
            if name in needed:
                needed.update(_NEEDS[name])
        return needed

    def _kernel_files(self) -> list[str]:
        needed = self._kernels()
        return [f"kernels_{name}.c" for name in _NEEDS if name in needed]

    def _weights(self, payload: bytes) -> str:
        check = (
            "#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__\n"
            '#error "the weights are stored for little-endian processors"\n'
            "#endif\n"
        )
        if self._beside:
            head = c_array(list(_weights_head(payload)[:16]))
            return (
                f"{check}int {self._name}_check_weights(const void *weights, "
                "size_t bytes) {\n"
                f"    static const unsigned char head[16] = {head};\n"
                f"    int good = weights && bytes == {_HEAD + len(payload)}\n"
                "        && !memcmp(weights, head, sizeof head);\n"
                f"    return good ? RETURN_OK : {self._upper}_BAD_WEIGHTS;\n"
                "}\n"
            )
        size = len(payload)
        return (
            f"{check}static const union {{\n    unsigned char bytes[{size} + 1];\n"
            f"    float values[{max(size, 4)} / 4];\n}} weights = {{\n"
            f"{weights_literal(payload) or chr(34) * 2}\n}};\n"
        )

    def _network(self) -> str:
        lines = []
        last = None
        for step in self._program.steps:
            if step.comment and step.comment != last:
                lines.append(f"    /* {step.comment} */")
            last = step.comment
            lines.append(f"    {with_offsets(step.text, self._offsets)}")
        unused = "    (void)w, (void)m, (void)table;"
        head = (
            "/* w: weights; m: memory; table: addresses of input pixels. */\n"
            "static void network(const float *w, float *m, const float **table) {"
        )
        return "\n".join([head, unused, *lines, "}\n"])

    def _probabilities(self) -> str:
        m = self._map
        if not m.multi_label:
            return (
                "    double most = logits[0], sum = 0;\n"
                "    for (int i = 1; i < CLASSES; i++)\n"
                "        if (logits[i] > most) most = logits[i];\n"
                f"    const double temperature = {c_double(m.temperature)};\n"
                "    for (int i = 0; i < CLASSES; i++)\n"
                "        sum += exp((logits[i] - most) / temperature);\n"
                "    for (int i = 0; i < CLASSES; i++)\n"
                "        probabilities[i]\n"
                "            = (float)(exp((logits[i] - most) / temperature) / sum);"
            )
        count = len(m.classes)
        rows = {
            "slopes": m.slopes or (1.0,) * count,
            "intercepts": m.intercepts or (0.0,) * count,
        }
        arrays = "".join(
            f"    static const double {name}[] = {c_array(list(map(c_double, row)))};\n"
            for name, row in rows.items()
        )
        return (
            f"{arrays}    for (int i = 0; i < CLASSES; i++)\n"
            "        probabilities[i]\n"
            "            = (float)(1 / (1 + exp(-slopes[i] * logits[i]\n"
            "                                   - intercepts[i])));"
        )

    def _names(self) -> str:
        names = ",\n".join(f"    {c_string(text)}" for text in self._map.classes)
        text = (
            f"const char *const {self._name}_class_names[CLASSES] = {{\n{names}\n}};\n"
        )
        if self._map.thresholds:
            values = c_array([c_float(value) for value in self._map.thresholds])
            text += (
                f"\nconst float {self._name}_class_thresholds[CLASSES] = {values};\n"
            )
        return text
