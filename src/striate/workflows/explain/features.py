"""`st.features`: activations of layers for tensors, image files or folders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

from striate.core.errors import DataError, SettingError
from striate.core.format import count_text
from striate.core.preprocess_config import Preprocess
from striate.data.decode.file_bytes import UndecodableError, read_file
from striate.data.decode.preprocess import file_to_input, normalize
from striate.data.sources.source import Skipped
from striate.interpret.activations_at import (
    check_image_batch,
    images_at_once,
    iter_activations,
    match_layers,
    matched_by_pattern,
)
from striate.run.predict_images import expand_inputs
from striate.run.run import Run
from striate.workflows.explain.tensor_file import TensorFile

Images = Tensor | str | Path | Sequence[str | Path]


class Features(dict[str, Tensor]):
    """Activations by layer, one row per image.

    Args:
        outputs: Activations by layer; empty if written to a file.
        paths: Image file of each row; empty for tensors.
        skipped: Files that could not be read, with the reason.
        shapes: Shape of the activations of each layer, (rows, …).
        left_out: Layers that match a pattern and have no activations, with the reason.
    """

    def __init__(
        self,
        outputs: dict[str, Tensor],
        *,
        paths: Sequence[str] = (),
        skipped: Sequence[Skipped] = (),
        shapes: dict[str, tuple[int, ...]] | None = None,
        left_out: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(outputs)
        self.paths = tuple(paths)
        self.skipped = tuple(skipped)
        own = {name: tuple(tensor.shape) for name, tensor in outputs.items()}
        self.shapes = own if shapes is None else shapes
        self.left_out = dict(left_out or {})


def features(
    network: nn.Module | Run,
    x: Images,
    names: str | Sequence[str],
    *,
    preprocess: Preprocess | None = None,
    batch_size: int = 64,
    out: str | Path | None = None,
) -> Features:
    """Return the activations of layers, selected by dotted name or pattern.

    The network runs in evaluation mode, up to the last of these layers, and is not
    modified. Only one batch is in memory, and the results if no file is given.

    Args:
        network: Any module, or a run.
        x: Preprocessed images, (N, C, H, W); or files, folders and patterns, which are
            preprocessed as for the run or by `preprocess`.
        names: Layer names, such as `layer3.2.conv2`, `layer*.relu`, or `relu #2` for
            the second call of a reused module. Layers that match a pattern and do not
            run, or whose output is not a tensor, are named in `.left_out`.
        preprocess: Preprocessing of files, for a plain module.
        batch_size: Maximum images per batch; fewer for images above 158×158 pixels.
        out: Output file, `.safetensors`, or `.npy` for a single layer, written batch by
            batch; a `.csv` of the same name lists the image path of each row.

    Raises:
        UnknownNameError: No layer has this name; the message lists the names.
        DataError: No file is a readable image.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten())
        >>> features(model, torch.zeros(5, 1, 4, 4), "*", batch_size=2).shapes
        {'0': (5, 2, 2, 2), '1': (5, 2, 2, 2), '2': (5, 8)}
    """
    if batch_size < 1:
        what = f"batch_size must be at least 1, got {batch_size}"
        raise SettingError(what, where="batch_size")
    model = network.model if isinstance(network, Run) else network
    calls = match_layers(model, names)
    reader = _Reader(network, preprocess, batch_size)
    left_out = dict.fromkeys(matched_by_pattern(model, names), "")
    outputs = iter_activations(model, reader.batches(x), calls, left_out)
    first = next(outputs, None)
    reader.check_any()
    if first is None:
        raise DataError("there are no images", where="features")
    batches = ({c: v.cpu() for c, v in b.items()} for b in chain([first], outputs))
    joined: dict[str, Tensor] = {}
    shapes = None
    if out is not None:
        with TensorFile(Path(out), list(first)) as file:
            for batch in batches:
                file.add(batch)
            shapes = file.finish(reader.paths)
    else:
        rows = list(batches)
        joined = {call: torch.cat([row[call] for row in rows]) for call in first}
    return Features(
        joined,
        paths=reader.paths,
        skipped=reader.skipped,
        shapes=shapes,
        left_out=left_out,
    )


class _Reader:
    """Reader of image batches that also records the paths of read and skipped files."""

    def __init__(
        self, network: nn.Module | Run, preprocess: Preprocess | None, batch_size: int
    ) -> None:
        own = network.preprocess if isinstance(network, Run) else None
        model = network.model if isinstance(network, Run) else network
        weight = next(model.parameters(), None)
        self._device = torch.device("cpu") if weight is None else weight.device
        self._preprocess = preprocess or own
        self._size = batch_size
        self._files = 0
        self.paths: list[str] = []
        self.skipped: list[Skipped] = []

    def batches(self, x: Images) -> Iterator[Tensor]:
        """Yield batches of preprocessed images."""
        if isinstance(x, Tensor):
            check_image_batch(x)
            size = images_at_once(x.shape, self._size)
            yield from (batch.to(self._device) for batch in torch.split(x, size))
            return
        if self._preprocess is None:
            what = "image files must be preprocessed for the network"
            fix = (
                "pass a run, or preprocess=striate.core.preprocess_config.Preprocess(…)"
            )
            raise SettingError(what, where="preprocess", fix=fix)
        named = [x] if isinstance(x, str | Path) else list(x)
        paths = [path for item in named for path in expand_inputs(item)]
        self._files = len(paths)
        size = images_at_once(self._preprocess.spec.shape, self._size)
        for start in range(0, len(paths), size):
            inputs = self._read(paths[start : start + size], self._preprocess)
            if inputs:
                batch = torch.stack(inputs).to(self._device)
                yield normalize(batch, self._preprocess)

    def _read(self, paths: Sequence[Path], preprocess: Preprocess) -> list[Tensor]:
        inputs = []
        for path in paths:
            try:
                inputs.append(file_to_input(read_file(path), preprocess))
                self.paths.append(str(path))
            except UndecodableError as error:
                skip = Skipped(path=str(path), reason=error.reason, detail=error.detail)
                self.skipped.append(skip)
        return inputs

    def check_any(self) -> None:
        """Raise an error if no file could be read."""
        if self.skipped and not self.paths:
            first = self.skipped[0]
            what = (
                f"no readable image among {count_text(self._files, 'file')}; "
                "first error: "
            )
            raise DataError(f"{what}{first.reason} ({first.detail})", where=first.path)
