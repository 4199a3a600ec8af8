"""Arithmetic over named scores: parsed to a tree of allowed nodes, never executed as code."""

import ast
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

from proxy_model.errors import InvalidParameter

MAX_CHARACTERS = 1000
MAX_NODES = 300

_OPERATORS: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: math.pow,
}
_FUNCTIONS: Mapping[str, Callable[..., float]] = {
    "min": lambda *values: min(values),
    "max": lambda *values: max(values),
    "abs": math.fabs,
    "floor": math.floor,
    "ceil": math.ceil,
    "exp": math.exp,
    "sqrt": math.sqrt,
    "log": math.log,
}
_MANY = frozenset({"min", "max"})
_ALLOWED = f"a formula of numbers, grader names, + - * / ^, brackets and {', '.join(_FUNCTIONS)}"


@dataclass(frozen=True, slots=True)
class Formula:
    """A parsed formula. `^` is the power, and binds as strongly as it does in mathematics."""

    text: str
    tree: ast.expr
    names: frozenset[str]
    """Every name that a value is needed for."""

    @classmethod
    def parse(cls, text: object, parameter: str = "calculate_output") -> Self:
        """Raises `InvalidParameter` naming `parameter` for anything but arithmetic."""
        if not isinstance(text, str) or not 0 < len(text) <= MAX_CHARACTERS:
            raise InvalidParameter(parameter, text, f"{_ALLOWED}, at most {MAX_CHARACTERS} characters")
        try:
            tree = ast.parse(text.strip().replace("^", "**"), mode="eval").body
            names = _checked_names(tree)
        except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as error:
            raise InvalidParameter(parameter, text, _ALLOWED) from error
        return cls(text, tree, names)

    def value(self, scores: Mapping[str, float]) -> float:
        """The formula's value; NaN where it has none, as for a division by zero or the root of -1."""
        try:
            return _value(self.tree, scores)
        except (ZeroDivisionError, OverflowError, ValueError):
            return math.nan


def _checked_names(tree: ast.expr) -> frozenset[str]:
    """Raises `ValueError` for what is no arithmetic, or so large that working it out could exhaust the stack."""
    if sum(1 for _ in ast.walk(tree)) > MAX_NODES:
        raise ValueError(f"more than {MAX_NODES} nodes")
    return frozenset(_names(tree))


def _names(node: ast.expr) -> set[str]:
    """The names below `node`. Raises `ValueError` for a node that is no arithmetic."""
    match node:
        case ast.Constant(value=int() | float() as value) if type(value) is not bool and math.isfinite(value):
            return set()
        case ast.Name(id=name) if name not in _FUNCTIONS:
            return {name}
        case ast.UnaryOp(op=ast.UAdd() | ast.USub(), operand=operand):
            return _names(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _names(left) | _names(right)
        case ast.Call(func=ast.Name(id=name), args=[*inputs], keywords=[]) if _takes(name, len(inputs)):
            return set().union(*map(_names, inputs))
    raise ValueError(f"{type(node).__name__} is no arithmetic")


def _takes(name: str, num_inputs: int) -> bool:
    return name in _FUNCTIONS and (num_inputs >= 1 if name in _MANY else num_inputs == 1)


def _value(node: ast.expr, scores: Mapping[str, float]) -> float:
    match node:
        case ast.Constant(value=int() | float() as value):
            return float(value)
        case ast.Name(id=name):
            return scores[name]
        case ast.UnaryOp(op=op, operand=operand):
            return -_value(operand, scores) if isinstance(op, ast.USub) else _value(operand, scores)
        case ast.BinOp(left=left, op=op, right=right):
            return _OPERATORS[type(op)](_value(left, scores), _value(right, scores))
        case ast.Call(func=ast.Name(id=name), args=inputs):
            return float(_FUNCTIONS[name](*(_value(each, scores) for each in inputs)))
    raise AssertionError("a formula holds only what `parse` lets through")
