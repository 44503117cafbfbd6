"""Feature visualization: an image that activates a channel as much as possible.

The method is that of Olah, Mordvintsev and Schubert 2017, "Feature visualization". The
image is optimized by gradient ascent on the mean activation of the channel. Three
regularizations keep the image free of noise: the image is a sum of waves, of which the
short waves are weak; the colors are decorrelated; and each step sees the image with a
random shift, rotation and scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from striate.core.derive_seed import derive_seed
from striate.core.errors import GeometryError, SettingError
from striate.core.hooks import evaluation_mode, intercept_outputs
from striate.core.preprocess_config import Preprocess
from striate.interpret.activations_at import module_name, run_model
from striate.interpret.gradients import GradientsStayOn, gradients_of
from striate.interpret.layer_choice import TargetLayer, target_layer

STEPS = 192
RATE = 0.05  # learning rate of Adam
STARTS = 8  # random images that are tried until one activates the channel
_SHIFT = 1 / 16  # largest shift of the image, as a share of its side
_TURN = math.radians(5.0)  # largest rotation
_SCALE = 0.1  # largest change of the scale
# Square root of the covariance of the colors of photographs (Olah et al. 2017), divided
# by the largest norm of a row.
_COLORS = ((0.56, 0.23, 0.04), (0.56, 0.0, -0.08), (0.55, -0.25, 0.05))


@dataclass(frozen=True, kw_only=True)
class FeatureVisualization:
    """An image that was optimized for one channel of a layer."""

    layer: str
    channel: int
    pixels: np.ndarray = field(repr=False)  # (H, W, C) uint8
    x: Tensor = field(repr=False)  # the same image, preprocessed: (1, C, H, W)
    activations: tuple[float, ...] = field(repr=False)  # mean of the channel, by step
    activation: float  # mean activation of the channel for the final image
    random_activation: float  # the same for a random image, before the first step


def visualize_channel(
    model: nn.Module,
    preprocess: Preprocess,
    layer: str,
    channel: int,
    *,
    steps: int = STEPS,
    seed: int = 0,
) -> FeatureVisualization:
    """Optimize an image so that the mean activation of one channel is large.

    Args:
        model: Any network; not modified.
        preprocess: Image size, mean and standard deviation of the network's input; of a
            run: `run.preprocess`.
        layer: Dotted name of a layer with maps, such as `conv2` or `layer3.1`.
        channel: Channel number, from 0.
        steps: Number of optimization steps.
        seed: Random seed of the first image and of the transforms.

    Raises:
        UnknownNameError: No layer has this name; the message lists the names.
        SettingError: The layer has no such channel.
        GeometryError: The layer has no maps, or no random image activates the channel.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
        >>> spec = dict(channels=1, height=12, width=12, mean=(0.5,), std=(0.25,))
        >>> result = visualize_channel(model, Preprocess(**spec), "0", 1, steps=8)
        >>> result.pixels.shape, result.activation > result.random_activation
        ((12, 12, 1), True)
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "visualize", channel))
    with (
        evaluation_mode(model),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        objective = _Objective(model, preprocess, layer, channel)
        image, random_activation = _first_image(objective, preprocess, generator)
        optimizer = torch.optim.Adam([image.spectrum], lr=RATE)
        activations = []
        for _ in range(steps):
            optimizer.zero_grad()
            value = objective(_transformed(image.pixels(), generator))
            (image.spectrum.grad,) = gradients_of(
                value, [image.spectrum], f"channel {channel} of {layer}"
            )
            image.spectrum.grad.neg_()
            optimizer.step()
            activations.append(float(value.detach()))
        with torch.no_grad():
            pixels = image.pixels()
            activation = float(objective(pixels))
        x = objective.normalized(pixels).detach()
    levels = (pixels[0].detach() * 255).round().to(torch.uint8)
    return FeatureVisualization(
        layer=layer,
        channel=channel,
        pixels=levels.permute(1, 2, 0).numpy(),
        x=x,
        activations=tuple(activations),
        activation=activation,
        random_activation=random_activation,
    )


class _Objective:
    """Mean activation of a channel for an image with values from 0 to 1."""

    def __init__(
        self, model: nn.Module, preprocess: Preprocess, layer: str, channel: int
    ) -> None:
        self._model, self._channel = model, channel
        shape = (1, preprocess.channels, preprocess.height, preprocess.width)
        weight = next((p for p in model.parameters() if p.is_floating_point()), None)
        self._like = torch.zeros(()) if weight is None else weight.detach()
        stats = preprocess.mean, preprocess.std
        self._mean, self._std = (torch.tensor(s).view(1, -1, 1, 1) for s in stats)
        blank = self.normalized(torch.full(shape, 0.5))
        self._layer: TargetLayer = target_layer(model, blank, layer)
        axis = self._layer.layout.channel_axis - 1
        count = self._layer.shape[axis]
        if not 0 <= channel < count:
            what = f"{layer} has no channel {channel}"
            raise SettingError(what, where=layer, fix=f"valid channels: 0…{count - 1}")

    def normalized(self, pixels: Tensor) -> Tensor:
        """Return pixels from 0 to 1 as the network's input."""
        return ((pixels - self._mean) / self._std).to(self._like)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the mean activation of the channel, with its gradient."""
        outputs: list[Tensor] = []

        def store(call: str, output: object) -> None:
            if call == self._layer.call and isinstance(output, Tensor):
                # A copy: an in-place activation after the layer would change it.
                outputs.append(output.clone())

        name = module_name(self._layer.call)
        with intercept_outputs(self._model, [name], store), GradientsStayOn():
            run_model(self._model, self.normalized(pixels))
        maps = self._layer.layout.to_maps(outputs[0])
        return maps[:, self._channel].float().mean()


class _WaveImage:
    """Image as the amplitudes of waves, with decorrelated colors."""

    def __init__(self, preprocess: Preprocess, generator: torch.Generator) -> None:
        self._size = preprocess.height, preprocess.width
        rows, columns = self._size
        frequencies = torch.hypot(
            torch.fft.fftfreq(rows)[:, None], torch.fft.rfftfreq(columns)[None]
        )
        # Natural images have amplitudes of about one over the frequency.
        self._scale = 1 / frequencies.clamp(min=1 / max(rows, columns))
        self._scale *= math.sqrt(rows * columns) / float(self._scale.norm())
        shape = (1, preprocess.channels, *frequencies.shape, 2)
        start = 0.1 * torch.randn(shape, generator=generator)
        self.spectrum = start.requires_grad_()
        colors = torch.tensor(_COLORS)
        channels = preprocess.channels
        self._colors = colors if channels == 3 else torch.eye(channels)

    def pixels(self) -> Tensor:
        """Return the image, (1, C, H, W), with values from 0 to 1."""
        waves = torch.view_as_complex(self.spectrum) * self._scale
        values = torch.fft.irfft2(waves, s=self._size, norm="ortho")
        return torch.einsum("dc,nchw->ndhw", self._colors, values).mul(4).sigmoid()


def _first_image(
    objective: _Objective, preprocess: Preprocess, generator: torch.Generator
) -> tuple[_WaveImage, float]:
    """Return a random image with a gradient, and the activation of the channel."""
    for _ in range(STARTS):
        image = _WaveImage(preprocess, generator)
        value = objective(image.pixels())
        try:
            (gradient,) = gradients_of(value, [image.spectrum], "the image")
        except GeometryError:
            continue
        if bool(gradient.any()):
            return image, float(value.detach())
    what = f"no one of {STARTS} random images changes the activation of this channel"
    fix = "use the layer before the activation function, or another channel"
    raise GeometryError(what, where="visualize", fix=fix)


def _transformed(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Return an image with a random shift, rotation and scale (jitter)."""
    draws: Sequence[float] = (2 * torch.rand(4, generator=generator) - 1).tolist()
    angle, scale = _TURN * draws[0], 1 + _SCALE * draws[1]
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    shifts = 2 * _SHIFT * draws[2], 2 * _SHIFT * draws[3]
    matrix = torch.tensor([[[cos, -sin, shifts[0]], [sin, cos, shifts[1]]]])
    grid = F.affine_grid(matrix, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)
