"""Memory of a forward pass: bytes of all existing tensors, now and at the peak."""

from __future__ import annotations

import weakref
from functools import partial

from torch import Tensor


class LiveMemory:
    """Counter of the bytes of all existing tensor storages, now and at the peak.

    Example:
        >>> import torch
        >>> memory = LiveMemory()
        >>> image = torch.empty(10)
        >>> memory.enter(image), memory.enter(image.view(2, 5)), memory.live
        (40, 0, 40)
        >>> del image
        >>> memory.live, memory.peak
        (0, 40)
    """

    def __init__(self) -> None:
        self.live = 0
        self.peak = 0
        self._storages: dict[int, object] = {}

    def ignore(self, tensor: Tensor) -> None:
        """Exclude a tensor's storage, such as that of a weight, from the byte count."""
        storage = tensor.untyped_storage()
        self._track(storage._cdata, storage, 0)

    def enter(self, tensor: Tensor) -> int:
        """Count a tensor's storage if not counted before; return the added bytes."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._storages:
            return 0
        size = storage.nbytes()
        self._track(key, storage, size)
        self.live += size
        self.peak = max(self.peak, self.live)
        return size

    def add_temporary(self, size: int) -> None:
        """Count bytes that exist only while the current operation runs."""
        self.peak = max(self.peak, self.live + size)

    def _track(self, key: int, storage: object, size: int) -> None:
        self._storages[key] = weakref.ref(storage, partial(self._release, key, size))

    def _release(self, key: int, size: int, _: object) -> None:
        self._storages.pop(key, None)
        self.live -= size
