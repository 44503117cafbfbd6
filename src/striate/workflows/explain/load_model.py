"""Loading of the network to explain, with weights, preprocessing and class names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from striate.core.class_names import ClassNames
from striate.core.errors import SettingError
from striate.core.preprocess_config import Preprocess
from striate.interpret.attribution.target import ToProbs
from striate.models.weights import load_pretrained
from striate.run.bundle_run import is_bundle, open_run_or_bundle
from striate.run.layout import existing_run
from striate.run.python_network import is_python_network
from striate.run.resolve_model import SummaryRequest, resolve_target
from striate.run.run import Run

# ImageNet statistics, the usual default for three channels.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A network with its weights, preprocessing and class names."""

    name: str
    model: nn.Module
    preprocess: Preprocess
    labels: ClassNames | None = None
    run: Run | None = None  # with its images
    bundle: Run | None = None  # with calibration, without images
    remarks: tuple[str, ...] = ()

    @property
    def temperature(self) -> float:
        """Return the divisor of the logits in probabilities; 1 without a run."""
        source = self.run or self.bundle
        return source.temperature if source else 1.0

    @property
    def to_probs(self) -> ToProbs | None:
        """Return the function to probabilities of several labels; None: softmax."""
        source = self.run or self.bundle
        calibration = source.label_calibration if source else None
        return calibration.probabilities if calibration else None

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probabilities of the classes, (N, classes)."""
        if self.to_probs is not None:
            return self.to_probs(logits)
        return (logits / self.temperature).softmax(1)


def load_model(
    name: str,
    options: SummaryRequest | None = None,
    weights: Path | None = None,
    *,
    model: str | None = None,
    trust: bool = False,
) -> LoadedModel:
    """Load a network from a run, model name, Python file or text sketch of layers.

    Args:
        name: A run folder or its name, a name of `striate models`, `file.py:Class`,
            or a sketch (a layer list as text).
        options: Image size, channels and classes; not for a run.
        weights: Checkpoint file for a named network.
        model: Network to use with the weights of a run, such as `net.py:Net`.
        trust: Execute the network code of a run folder from another machine, or code
            in a weights file.

    Raises:
        SettingError: The name is unknown, or options conflict with a run.
    """
    options = options or SummaryRequest()
    if existing_run(name) or is_bundle(name):
        if weights is not None or options != SummaryRequest():
            what = "a run already has weights, image size, channels and classes"
            fix = "remove --weights and the image size, channel and class options"
            raise SettingError(what, where=name, fix=fix)
        run = open_run_or_bundle(name, model=model, trust=trust)
        return LoadedModel(
            name=run.path.name,
            model=run.model,
            preprocess=run.preprocess,
            labels=run.labels,
            run=run if run.has_training_record else None,
            bundle=None if run.has_training_record else run,
        )
    if model is not None:
        what = "--model needs a run, whose weights it gets"
        fix = f"leave out --model, or write: striate explain '{model}' --weights FILE"
        raise SettingError(what, where=name, fix=fix)
    target = resolve_target(name, options, real=True)
    remarks = []
    if weights is not None:
        load_pretrained(target.model, weights, trust=trust)
    else:
        unless = "unless the code of the file loads weights, " * is_python_network(name)
        remarks.append(
            f"No --weights: {unless}the weights are random and the heatmaps are "
            "meaningless."
        )
    channels, height, width = target.shape
    mean = _MEAN if channels == 3 else (0.5,) * channels
    std = _STD if channels == 3 else (0.25,) * channels
    remarks.append(
        f"Assumed preprocessing: resize to {height}×{width}, mean {_list(mean)}, std "
        f"{_list(std)}. For a run, the preprocessing is known."
    )
    preprocess = Preprocess(
        channels=channels, height=height, width=width, mean=mean, std=std
    )
    return LoadedModel(
        name=target.name,
        model=target.model.eval(),
        preprocess=preprocess,
        remarks=tuple(remarks),
    )


def _list(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in dict.fromkeys(values))
