"""CPU settings are restored, also after errors."""

import gc
import platform

import pytest
import torch

from striate.core import device


def test_paused_gc_restores_the_setting():
    gc.disable()
    try:
        with device.paused_gc():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
    with pytest.raises(ValueError, match="stop"), device.paused_gc():
        raise ValueError("stop")
    assert gc.isenabled()


def test_processor_name_without_proc_cpuinfo(monkeypatch, tmp_path):
    monkeypatch.setattr(device, "CPU_INFO", tmp_path / "none")
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert device.compute_environment(torch.device("cpu"))["processor"] == "arm64"
