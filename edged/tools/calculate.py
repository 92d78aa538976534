"""The tool `calculate`: arithmetic and functions, by a short list of what is allowed. Bounded in size and time."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from edged.tools import LocalTool, Surroundings

CHARS_MAX = 500
NODES_MAX = 200
BITS_MAX = 1024
"""Whole numbers beyond this are refused; floating-point numbers end there anyway."""
DIGITS = 12
"""Significant digits of a result that is no whole number: what rounding errors leave of a double."""
FACTORIAL_MAX = 170
ROUND_MAX = 300
"""Digits of rounding, either way: Python raises 10 to their number, whatever it is."""

Number = int | float


class CalculationError(ValueError):
    """An expression that is not calculated; the text tells the model why."""


def _factorial(value: Number) -> int:
    if value != int(value) or not 0 <= value <= FACTORIAL_MAX:
        raise CalculationError(f"factorial takes whole numbers from 0 to {FACTORIAL_MAX}")
    return math.factorial(int(value))


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, int) and isinstance(exponent, int) and exponent >= 0:
        if base.bit_length() * exponent > BITS_MAX:
            raise CalculationError("the result is too large")
        return int(base**exponent)
    result = base**exponent
    if isinstance(result, complex):
        raise CalculationError("the result is no real number")
    return float(result)


def _round(value: Number, digits: Number = 0) -> Number:
    if digits != int(digits) or abs(digits) > ROUND_MAX:
        raise CalculationError(f"round takes whole numbers of digits from -{ROUND_MAX} to {ROUND_MAX}")
    return round(value, int(digits)) if digits else round(value)


CONSTANTS: Mapping[str, Number] = {"pi": math.pi, "e": math.e, "tau": math.tau}
FUNCTIONS: Mapping[str, Callable[..., Number]] = {
    **{
        name: getattr(math, name)
        for name in (
            *("sin", "cos", "tan", "asin", "acos", "atan", "atan2", "sinh", "cosh", "tanh"),
            *("sqrt", "exp", "log", "log2", "log10", "degrees", "radians", "floor", "ceil", "hypot"),
        )
    },
    "ln": math.log,
    "abs": abs,
    "round": _round,
    "min": min,
    "max": max,
    "factorial": _factorial,
}
_BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
}
_UNARY: Mapping[type[ast.unaryop], Callable[[Any], Number]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_WRITTEN = str.maketrans(
    {"^": "**", "\u00d7": "*", "\u00b7": "*", "\u00f7": "/", "\u2212": "-", "\u03c0": "pi"}
)
"""How people and models write operators: a roof for powers, the signs of school."""


def calculate(expression: str) -> str:
    """The value of an expression, as text.

    Raises:
        CalculationError: it is no expression, or too large, or has no value.
    """
    if len(expression) > CHARS_MAX:
        raise CalculationError(f"the expression has {len(expression)} characters; at most {CHARS_MAX}")
    try:
        tree = ast.parse(expression.translate(_WRITTEN).strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise CalculationError("this is no expression") from None
    if sum(1 for _ in ast.walk(tree)) > NODES_MAX:
        raise CalculationError("the expression has too many parts")
    try:
        return _text(_value(tree.body))
    except ZeroDivisionError:
        raise CalculationError("division by zero") from None
    except OverflowError:
        raise CalculationError("the result is too large") from None
    except (TypeError, ValueError) as error:
        raise CalculationError(str(error)) from None


def _value(node: ast.expr) -> Number:
    match node:
        case ast.Constant(value) if type(value) in {int, float}:
            result: Number = value  # type: ignore[assignment]  # the type was just looked at
        case ast.Name(name) if name.lower() in CONSTANTS:
            result = CONSTANTS[name.lower()]
        case ast.UnaryOp(op, operand) if type(op) in _UNARY:
            result = _UNARY[type(op)](_value(operand))
        case ast.BinOp(left, op, right) if type(op) in _BINARY:
            result = _BINARY[type(op)](_value(left), _value(right))
        case ast.Call(ast.Name(name), arguments, []) if name.lower() in FUNCTIONS:
            result = FUNCTIONS[name.lower()](*map(_value, arguments))
        case ast.Call(ast.Name(name)):
            raise CalculationError(f"no function {name[:40]}; there are {', '.join(FUNCTIONS)}")
        case _:
            raise CalculationError(
                "only numbers, + - * / // % ^, brackets, functions, pi, e and tau are allowed"
            )
    if isinstance(result, int) and result.bit_length() > BITS_MAX:
        raise CalculationError("the result is too large")
    return result


def _text(value: Number) -> str:
    if isinstance(value, int):
        return str(value)
    if not math.isfinite(value):
        raise CalculationError("the result is not finite")
    return format(value + 0.0, f".{DIGITS}g")


def _run(arguments: Mapping[str, Any], _surroundings: Surroundings) -> str:
    return calculate(arguments["expression"])


TOOL = LocalTool(
    "Calculate an arithmetic expression exactly. Knows + - * / ^, brackets, pi, e, sqrt, sin, cos, log and more.",
    {
        "type": "object",
        "properties": {
            "expression": {
                "type": "string",
                "minLength": 1,
                "maxLength": 200,
                "description": "such as (21.5 - 18) / 4 or sin(pi/4)^2",
            }
        },
        "required": ["expression"],
        "additionalProperties": False,
    },
    _run,
)
