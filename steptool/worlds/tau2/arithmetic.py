"""The tool `calculate` of the domains, which the benchmark evaluates as Python.

Only numbers, brackets and + - * / // ** are read, and what would take long is refused: a call of one attempt must not
keep all others waiting.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

CHARACTERS = frozenset("0123456789+-*/(). ")
LONGEST = 500
"""Characters of an expression."""
LARGEST_EXPONENT, LARGEST_BASE = 100, 1e15

BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
}
UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}


def calculate(expression: str) -> str:
    """The value, rounded to two decimal places. Raises ValueError, or what Python raises for such an expression."""
    if not set(expression) <= CHARACTERS:
        raise ValueError("Invalid characters in expression")
    if len(expression) > LONGEST:
        raise ValueError(f"the expression has more than {LONGEST} characters")
    try:
        return str(round(float(_value(ast.parse(expression.strip(), mode="eval").body)), 2))
    except (SyntaxError, RecursionError, MemoryError):  # brackets in brackets, without end
        raise ValueError("invalid syntax") from None


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.UnaryOp):
        return UNARY[type(node.op)](_value(node.operand))
    if not isinstance(node, ast.BinOp):
        raise ValueError("the expression is no calculation")
    left, right = _value(node.left), _value(node.right)
    if isinstance(node.op, ast.Pow) and (abs(right) > LARGEST_EXPONENT or abs(left) > LARGEST_BASE):
        raise ValueError("the power is too large")
    return BINARY[type(node.op)](left, right)
