"""Table and sentences of an optimization."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from striate.core.findings import Column, Prose, Table
from striate.core.format import count_text
from striate.exporters.race import RaceTimes
from striate.metrics.intervals import Z95
from striate.report.format import MINUS
from striate.workflows.optimize.choose import Choice, Variant
from striate.workflows.optimize.engines import ENGINE_TITLES
from striate.workflows.optimize.measure import RaceSetting
from striate.workflows.optimize.options import OptimizeOptions


def variant_title(variant: Variant) -> str:
    """Return a variant in words, such as `int8 on ONNX Runtime`."""
    return f"{variant.precision} on {ENGINE_TITLES[variant.engine]}"


def race_table(
    variants: Sequence[Variant],
    choice: Choice,
    times: Mapping[RaceSetting, Mapping[str, RaceTimes]],
) -> Table:
    """Return times, size and lost accuracy of all variants."""
    columns = (
        Column("engine"),
        Column("type", key="precision"),
        *(Column(_setting_title(setting), "number") for setting in times),
        Column("size", "bytes"),
        Column("points lost", hint="accuracy lost, in percentage points"),
        Column("Pareto", hint="no other variant is better in every respect"),
    )
    rows = tuple(
        (
            ENGINE_TITLES[variant.engine],
            variant.precision,
            *(_milliseconds(key, rows[variant.name]) for key, rows in times.items()),
            variant.size,
            _lost_text(variant),
            "*" if variant.name in choice.pareto else "",
        )
        for variant in variants
    )
    note = (
        "Milliseconds from the resized 8-bit image to the probabilities, for each "
        "image: processor time with one thread, elapsed time with several. Points "
        "lost: with 95 % interval; '0' for the same answers. *: no other variant is "
        "better in every respect."
    )
    return Table(columns=columns, rows=rows, title="Engines", note=note)


def _setting_title(setting: RaceSetting) -> str:
    title = f"ms, batch {setting.batch}"
    if setting.threads == 1:
        return title
    return f"{title}, {count_text(setting.threads, 'thread')}"


def _milliseconds(setting: RaceSetting, times: RaceTimes) -> float:
    seconds = times.cpu_seconds if setting.threads == 1 else times.wall_seconds
    return float(f"{1e3 * seconds / setting.batch:.3g}")


def _lost_text(variant: Variant) -> str:
    if variant.exact:
        return "0"
    low, high = variant.pair.interval
    lost, least, most = (_points(x) for x in (variant.lost, -high, -low))
    return f"{lost} ({least} to {most})"


def _points(share: float) -> str:
    """Return a fraction in percentage points."""
    text = f"{100 * share:.1f}"
    return "0.0" if text == "-0.0" else text.replace("-", MINUS)


def choice_sentences(
    choice: Choice, variants: Sequence[Variant], options: OptimizeOptions
) -> Iterator[Prose]:
    """Yield the recommendation, and why int8 variants are not recommended."""
    best, reference = choice.best, choice.reference
    if best is reference:
        text = "PyTorch stays the best: no other engine is clearly faster."
    else:
        text = f"Recommended: {variant_title(best)}, {_gain(best, reference)}."
    yield Prose(text, "good")
    reasons = list(_reasons(choice, variants, options)) if best.exact else []
    if reasons:
        text = f"{variant_title(choice.fp32)} stays the best, because:"
        yield Prose(" ".join([text, *reasons]))


def _gain(best: Variant, reference: Variant) -> str:
    speed = reference.time / best.time
    text = f"{speed:.1f} times the speed of PyTorch for one image"
    size = reference.size / best.size
    return f"{text}, {size:.1f} times smaller" if size > 1.05 else text


def _reasons(
    choice: Choice, variants: Sequence[Variant], options: OptimizeOptions
) -> Iterator[str]:
    """Yield a sentence for each reason against variants that are not exact."""
    rejected = [v for v in variants if choice.rejected.get(v.name)]
    groups: dict[str, list[str]] = {}
    for variant in rejected:
        reason = _reason(variant, choice, options)
        groups.setdefault(reason, []).append(variant_title(variant))
    for reason, titles in groups.items():
        yield f"{' and '.join(titles)} {reason}."


def _reason(variant: Variant, choice: Choice, options: OptimizeOptions) -> str:
    reason = choice.rejected[variant.name]
    if reason == "time":
        ratio = variant.time / choice.fp32.time
        return f"needs {ratio:.2f} of its time, which is not clearly faster"
    if reason == "size":
        return "is not smaller"
    text = f"can lose up to {_points(variant.most_lost)} points of accuracy, "
    text += f"above --max-drop {options.max_drop:g}"
    count, needed = variant.pair.count, images_needed(options.max_drop)
    if count < needed:
        text += f" ({count_text(count, 'validation image')}; to prove less, "
        text += f"{count_text(needed, 'image')} without any change are needed)"
    return text


def images_needed(max_drop: float) -> int:
    """Return how many images without any change prove that no more is lost.

    Example:
        >>> images_needed(0.5), images_needed(5.0)
        (765, 73)
    """
    share = max(max_drop / 100, 1e-9)
    return int(Z95**2 * (1 - share) / share) + 1
