"""Registry of rules from torch's operations (ATen) to operations of a graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from striate.exporters.graph_builder import GraphBuilder
from striate.interpret.trace import TensorRef, TraceStep


@dataclass(frozen=True)
class StepArguments:
    """One step of a trace: its arguments by name, and the shapes of its results."""

    step: TraceStep
    number: int  # index in the trace
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    shapes: list[tuple[int, ...]]  # of the results, with BATCH

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the first result."""
        return self.shapes[0]

    @property
    def x(self) -> Any:
        """Return the first argument."""
        return self.args[0]

    def get(self, name: str) -> Any:
        """Return an argument, or its default, by its name in the signature."""
        if name in self.kwargs:
            return self.kwargs[name]
        arguments = self.step.func._schema.arguments
        for index, argument in enumerate(arguments):
            if argument.name == name:
                given = index < len(self.args)
                return self.args[index] if given else argument.default_value
        raise KeyError(name)

    def ref(self, index: int = 0) -> TensorRef:
        """Return the reference to a result."""
        return TensorRef(self.number, index)


Rule = Callable[[GraphBuilder, StepArguments], None]
RULES: dict[str, Rule] = {}


def aten_rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for operations and their in-place variants."""

    def register(rule: Rule) -> Rule:
        for name in names:
            RULES[name] = RULES[f"{name}_"] = rule
        return rule

    return register


def per_dimension(value: int | list[int], count: int) -> list[int]:
    """Return one number for each spatial dimension."""
    values = [value] if isinstance(value, int) else list(value)
    return values * count if len(values) == 1 else values


def symmetric(padding: list[int]) -> list[list[int]]:
    """Return (before, after) of equal padding on both sides, per dimension."""
    return [[amount, amount] for amount in padding]


def shape_of(builder: GraphBuilder, argument: Any) -> tuple[int, ...]:
    """Return the shape of an argument: a value of the trace, a tensor or a number."""
    return known_shape(builder, builder.name_of(argument))


def known_shape(builder: GraphBuilder, name: str) -> tuple[int, ...]:
    """Return the shape of a value or constant of an unfinished graph."""
    if name in builder.shapes:
        return builder.shapes[name]
    return tuple(builder.constants[name].shape)
