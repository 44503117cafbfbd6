"""`st.predict`: predict the classes of new images with a trained run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from striate.run.predict_images import PredictResult
from striate.run.run import Run


def predict(
    run: Run,
    inputs: str | Path | Sequence[str | Path],
    *,
    threshold: float | None = None,
    operating_point: str | Path | None = None,
) -> PredictResult:
    """Predict the classes of images, like `Run.predict`.

    Args:
        run: A finished run.
        inputs: Files, folders or glob patterns.
        threshold: Mark predictions with a lower probability for a review.
        operating_point: A class whose operating point is stored in the run, or a file
            `operating_point.json`.

    Raises:
        DataError: An input matches no file, or no file is a usable image.
        SettingError: The threshold is not a probability.
        RunError: The operating point is missing, or belongs to other weights.
    """
    return run.predict(inputs, threshold=threshold, operating_point=operating_point)
