"""By how much one side is better: in all, in other measures, and class by class."""

from __future__ import annotations

from collections.abc import Sequence

from striate.core.findings import Cell, Column, Table
from striate.metrics.paired import Interval, PairedCounts
from striate.metrics.significance import holm_correction, paired_t_test
from striate.report.format import percent
from striate.workflows.compare.groups import Side
from striate.workflows.compare.significance import Match
from striate.workflows.compare.verdict import p_text, points, signed, span

CLASSES_SHOWN = 30


def differences_table(found: Sequence[Match]) -> Table:
    """Return each side's accuracy against the first's, with interval and test."""
    first = found[0].first.letter
    counted = all(match.how == "images" for match in found)
    many = sum(match.p is not None for match in found) > 1
    columns = [
        Column(title="", key="second", kind="code"),
        Column(title="on", rank=2),
        Column(title=f"accuracy {first}", key="first", kind="number", rank=3),
        Column(title="accuracy", key="own", kind="number"),
        Column(
            title="points",
            key="difference",
            kind="number",
            hint="of accuracy",
        ),
        Column(title="95 % interval", key="interval", kind="number"),
    ]
    if counted:
        columns += _flip_columns(first)
    columns.append(Column(title="p", kind="number", rank=4 if many else 0))
    if many:
        hint = f"p corrected for {len(found)} comparisons"
        columns.append(Column(title="p, Holm", key="p_holm", kind="number", hint=hint))
    rows = [_difference(match, counted, many) for match in found]
    return Table(
        title=f"Against {first}, on the images that both judged",
        columns=tuple(columns),
        rows=tuple(rows),
        note=_method(found),
    )


def _flip_columns(first: str) -> list[Column]:
    return [
        Column(title="gained", kind="integer", hint=f"wrong in {first}, right here"),
        Column(title="lost", kind="integer", hint=f"right in {first}, wrong here"),
    ]


def _difference(match: Match, counted: bool, many: bool) -> tuple[Cell, ...]:
    one, two = _accuracies(match)
    row: list[Cell] = [match.second.letter, _on(match), percent(one), percent(two)]
    row += [points(match.difference), span(match.interval)]
    if counted:
        paired = match.pairings[0].paired
        row += [paired.gained, paired.lost]
    row.append(p_text(match.p))
    return (*row, p_text(match.corrected)) if many else tuple(row)


def _accuracies(match: Match) -> tuple[float, float]:
    """Return both accuracies over what the difference is about."""
    if match.how == "unpaired" or not match.pairings:
        shares = [side.values(lambda run: run.score.accuracy) for side in _both(match)]
        return sum(shares[0]) / len(shares[0]), sum(shares[1]) / len(shares[1])
    pairs = [pairing.paired.accuracies for pairing in match.pairings]
    return sum(a for a, _ in pairs) / len(pairs), sum(b for _, b in pairs) / len(pairs)


def _both(match: Match) -> tuple[Side, Side]:
    return match.first, match.second


def _on(match: Match) -> str:
    if match.how == "images":
        return f"{match.pairings[0].count:,} images"
    if match.how == "seeds":
        return f"{len(match.pairings)} seeds"
    if match.how == "unpaired":
        return f"{len(match.first.runs)} and {len(match.second.runs)} seeds"
    return f"{len(match.pairings)} seed" if match.pairings else "nothing"


METHODS = {
    "images": "McNemar's exact test; Tango's score interval.",
    "seeds": "Student's test over pairs of equal seed.",
    "unpaired": "Welch's test over seeds that are not the same.",
}


def _method(found: Sequence[Match]) -> str:
    used = dict.fromkeys(match.how for match in found)
    return " ".join(METHODS[how] for how in used if how in METHODS)


def other_measures(found: Sequence[Match]) -> Table | None:
    """Return differences in balanced accuracy and loss, described but not tested."""
    rows: list[tuple[Cell, ...]] = []
    for match in found:
        effects = _effects(match)
        if effects is None:
            continue
        (balanced, limits), (loss, edges) = effects
        row = (match.letters, "balanced accuracy, points")
        rows.append((*row, points(balanced), span(limits)))
        wide = f"{signed(edges[0], 4)} to {signed(edges[1], 4)}" if edges else ""
        rows.append((match.letters, "cross-entropy, nats", signed(loss, 4), wide))
    columns = (
        Column(title="", key="sides", kind="code"),
        Column(title="", key="measure"),
        Column(title="difference", kind="number"),
        Column(title="95 % interval", key="interval", kind="number"),
    )
    note = "Not tested: accuracy is the one figure that is, so that chance has one try."
    if not rows:
        return None
    return Table(title="Other measures", columns=columns, rows=tuple(rows), note=note)


def _effects(match: Match) -> list[tuple[float, Interval | None]] | None:
    if match.how == "images":
        (pairing,) = match.pairings
        return [pairing.balanced, pairing.loss]
    if match.how != "seeds":
        return None
    sets = (
        [pairing.balanced[0] for pairing in match.pairings],
        [pairing.loss[0] for pairing in match.pairings],
    )
    effects = [paired_t_test(values, match.overlap) for values in sets]
    return [(effect.difference, effect.interval) for effect in effects]


def class_table(match: Match) -> Table | None:
    """Return each class's recall on both sides; of many, those that changed most.

    The answers of several seeds are added up. They are then about the same images
    more than once, so no class is tested.
    """
    classes = _classes(match)
    if not classes:
        return None
    tested = match.how == "images"
    order = _most_changed([paired for _, paired in classes])
    corrected = holm_correction([paired.p_value for _, paired in classes])
    rows = [_class(*classes[i], *(p_text(corrected[i]),) * tested) for i in order]
    rest = len(classes) - len(rows)
    return Table(
        title=f"By class, {match.second.letter} against {match.first.letter}",
        columns=_class_columns(match, len(classes), tested),
        rows=tuple(rows),
        note=f"{rest:,} classes that changed no more are left out." if rest else "",
    )


def _classes(match: Match) -> list[tuple[str, PairedCounts]]:
    """Add up the counts of each class over the pairings."""
    sums: dict[str, PairedCounts] = {}
    for pairing in match.pairings:
        for name, paired in pairing.classes:
            sums[name] = sums[name] + paired if name in sums else paired
    return list(sums.items())


def _most_changed(classes: Sequence[PairedCounts]) -> list[int]:
    """Return all classes in order, or the most changed of many."""
    every = list(range(len(classes)))
    if len(classes) <= CLASSES_SHOWN:
        return every
    changes = [abs(paired.gained - paired.lost) for paired in classes]
    return sorted(every, key=lambda i: -changes[i])[:CLASSES_SHOWN]


def _class(name: str, paired: PairedCounts, *p: str) -> tuple[Cell, ...]:
    one, two = map(percent, paired.accuracies)
    apart = points(paired.difference)
    return (name, paired.count, one, two, apart, paired.gained, paired.lost, *p)


def _class_columns(match: Match, count: int, tested: bool) -> tuple[Column, ...]:
    a, b = match.first.letter, match.second.letter
    columns = [
        Column(title="class"),
        Column(title="images" if tested else "answers", kind="integer", rank=1),
        Column(title=f"recall {a}", key="first", kind="number"),
        Column(title=f"recall {b}", key="second", kind="number"),
        Column(title=match.letters, key="difference", kind="number", hint="in points"),
        *_flip_columns(a),
    ]
    if tested:
        hint = f"corrected for {count} classes"
        columns.append(Column(title="p, Holm", key="p_holm", kind="number", hint=hint))
    return tuple(columns)
