"""`st.features`: inner outputs of tensors, files, folders; in memory or in a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from striate.core.errors import DataError, SettingError
from striate.core.preprocess import Preprocess
from striate.data.decode.file_bytes import UndecodableError, read_file
from striate.data.decode.preprocess import file_to_input, normalize
from striate.data.sources.source import Skipped
from striate.interpret.activations_at import captured, check_batch, chosen, together
from striate.run.run import Run
from striate.workflows.explain.tensor_file import TensorFile
from striate.workflows.predict.predict import expand

Images = Tensor | str | Path | Sequence[str | Path]


class Features(dict[str, Tensor]):
    """Outputs by layer, one row an image; empty where they went to a file.

    Args:
        found: The outputs.
        paths: Where each row's image came from; empty for tensors.
        skipped: Files that could not be used, with the reason.
        shapes: Of each layer's whole output, rows first.
    """

    def __init__(
        self,
        found: dict[str, Tensor],
        *,
        paths: Sequence[str] = (),
        skipped: Sequence[Skipped] = (),
        shapes: dict[str, tuple[int, ...]] | None = None,
    ) -> None:
        super().__init__(found)
        self.paths = tuple(paths)
        self.skipped = tuple(skipped)
        own = {name: tuple(tensor.shape) for name, tensor in found.items()}
        self.shapes = own if shapes is None else shapes


def features(
    network: nn.Module | Run,
    x: Images,
    names: str | Sequence[str],
    *,
    preprocess: Preprocess | None = None,
    batch_size: int = 64,
    out: str | Path | None = None,
) -> Features:
    """Return any inner output as a prediction, by dotted name or pattern.

    The network runs in evaluation mode, no further than the last layer asked for, and
    is left as it was. Memory holds one batch, and the results where no file is named.

    Args:
        network: Any module, or a run.
        x: Images as the network takes them, (N, C, H, W); or files, folders and
            patterns, which the run's (or the given) preprocessing reads.
        names: `layer3.2.conv2`, `layer*.relu`, or a later call of a reused module,
            `relu #2`.
        preprocess: What is done to files, for a plain module.
        batch_size: Images at a time, at most: fewer of those over 158×158.
        out: A `.safetensors`, or for a single layer a `.npy`, to write to as the
            batches come; a `.csv` of the same name holds one path a row.

    Raises:
        UnknownNameError: No layer has this name; lists the right ones.
        DataError: No file is a usable image.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten())
        >>> features(model, torch.zeros(5, 1, 4, 4), "*", batch_size=2).shapes
        {'0': (5, 2, 2, 2), '1': (5, 2, 2, 2), '2': (5, 8)}
    """
    if batch_size < 1:
        what = f"batch_size must be at least 1, got {batch_size}"
        raise SettingError(what, where="batch_size")
    model = network.model if isinstance(network, Run) else network
    calls = chosen(model, names)
    reader = _Reader(network, preprocess, batch_size, _device(model))
    found = captured(model, reader.batches(x), calls)
    if out is not None:
        return _stored(Path(out), found, calls, reader)
    parts = [{call: part[call].cpu() for call in calls} for part in found]
    reader.check_any()
    whole = {call: torch.cat([part[call] for part in parts]) for call in calls}
    return Features(whole, paths=reader.paths, skipped=reader.skipped)


def _device(model: nn.Module) -> torch.device:
    tensor = next(model.parameters(), None)
    return torch.device("cpu") if tensor is None else tensor.device


def _stored(
    path: Path,
    found: Iterator[dict[str, Tensor]],
    calls: Sequence[str],
    reader: _Reader,
) -> Features:
    with TensorFile(path, calls) as file:
        for part in found:
            file.add({call: part[call].cpu() for call in calls})
        reader.check_any()
        shapes = file.finish(reader.paths)
    return Features({}, paths=reader.paths, skipped=reader.skipped, shapes=shapes)


class _Reader:
    """Batches from what the user named; remembers paths and what was left out."""

    def __init__(
        self,
        network: nn.Module | Run,
        preprocess: Preprocess | None,
        batch_size: int,
        device: torch.device,
    ) -> None:
        own = network.preprocess if isinstance(network, Run) else None
        self._preprocess = preprocess or own
        self._size = batch_size
        self._device = device
        self._files = 0
        self.paths: list[str] = []
        self.skipped: list[Skipped] = []

    def batches(self, x: Images) -> Iterator[Tensor]:
        """Yield inputs of at most the batch size."""
        if isinstance(x, Tensor):
            check_batch(x)
            size = together(x.shape[2], x.shape[3], self._size)
            yield from (part.to(self._device) for part in torch.split(x, size))
            return
        if self._preprocess is None:
            what = "files need to be brought to the network's size and scale"
            fix = "give a run, or preprocess=striate.core.preprocess.Preprocess(…)"
            raise SettingError(what, where="preprocess", fix=fix)
        named = [x] if isinstance(x, str | Path) else list(x)
        paths = [path for item in named for path in expand(item)]
        self._files = len(paths)
        size = together(*self._preprocess.spec.shape[1:], self._size)
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
        """Refuse where every file was left out."""
        if self.skipped and not self.paths:
            first = self.skipped[0]
            what = f"none of {self._files} files is a usable image; the first: "
            raise DataError(f"{what}{first.reason} ({first.detail})", where=first.path)
