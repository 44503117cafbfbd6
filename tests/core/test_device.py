"""Processor settings are lent, and given back on errors too."""

import gc

import pytest

from striate.core import device


def test_garbage_collection_is_left_as_it_was():
    gc.disable()
    try:
        with device.paused_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
    with pytest.raises(ValueError, match="stop"), device.paused_collection():
        raise ValueError("stop")
    assert gc.isenabled()
