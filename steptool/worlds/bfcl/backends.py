"""The objects whose methods the calls of one session run: fresh, and held by nobody else.

    run("mv", {"source": "a", …}) ──► allow-list: class and method ──► method of the session's own object

A reply is what the benchmark's executor would write: a text as it is, a dictionary as JSON where it can be, any other
value as Python writes it, and `Error during execution: …` where the method raises.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from decimal import localcontext
from typing import Any

from steptool.worlds.bfcl.package import tool_class

MOST, LARGEST = 1_000, 1e300
"""Largest exponent or most digits, and largest number, that a calculation may be asked for: more would keep all
attempts waiting."""
COSTLY = {
    "power": "exponent",
    "logarithm": "precision",
    "square_root": "precision",
    "round_number": "decimal_places",
}
"""Function → the argument that decides how long it takes."""
FAILED = "Error during execution: "


class Backends:
    """`functions`: class → the names of its methods that may be called. `settings`: class → what its object begins
    with. The objects share nothing with those of other sessions, nor with the modules of their classes."""

    def __init__(
        self, functions: Mapping[str, Sequence[str]], settings: Mapping[str, Mapping[str, Any]], *, long_context: bool
    ) -> None:
        self.objects: dict[str, Any] = {name: _fresh(name, settings.get(name, {}), long_context) for name in functions}
        self._class_of = {function: name for name, names in functions.items() for function in names}

    def run(self, name: str, arguments: Mapping[str, Any], args: Sequence[Any] = ()) -> str:
        """Call a function; `args` are arguments without names, which only the ground truth has.

        Whatever its method raises becomes the reply; a name that is not on the list does too.
        """
        if name not in self._class_of:
            return f"{FAILED}name {name!r} is not defined"
        if name in COSTLY and (refused := _too_large(arguments, COSTLY[name])):
            return f"{FAILED}{refused}"
        method = getattr(self.objects[self._class_of[name]], name)
        with localcontext(), _digits():
            try:
                return _written(method(*args, **arguments))
            except Exception as error:  # noqa: BLE001 - the reply says what it is, as the benchmark's executor does
                return f"{FAILED}{error}"

    def named(self, name: str, args: Sequence[Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of a function, those without names included, by their names."""
        method = getattr(self.objects[self._class_of[name]], name)
        return dict(inspect.signature(method).bind(*args, **arguments).arguments)

    def fork(self) -> Backends:
        """Other objects in the same state."""
        other = Backends.__new__(Backends)
        other.objects, other._class_of = deepcopy(self.objects), self._class_of
        return other


def _fresh(name: str, settings: Mapping[str, Any], long_context: bool) -> Any:
    made = tool_class(name)()
    if hasattr(made, "_load_scenario"):  # a class without a state has none
        made._load_scenario(deepcopy(dict(settings)), long_context=long_context)
    # Long contexts put dictionaries of a module into an object, where its calls would change them for all sessions.
    return deepcopy(made)


def _written(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        try:
            return json.dumps(value)
        except (TypeError, ValueError):  # holds a number of mpmath or of decimal, or itself
            return str(value)
    return str(value)


def _too_large(arguments: Mapping[str, Any], costly: str) -> str:
    """What is wrong with the arguments of a calculation; empty where it can be made."""
    for name, value in arguments.items():
        most = MOST if name == costly else LARGEST
        if _magnitude(value) > most:
            return f"{name} is above {most:g}"
    return ""


def _magnitude(value: Any) -> float:
    """Of a number, or of a text that is one; 0 for anything else, which the method refuses by itself."""
    try:
        return abs(float(value)) if isinstance(value, (int, float, str)) else 0.0
    except ValueError:
        return 0.0
    except OverflowError:
        return float("inf")


def _digits() -> Any:
    """Digits of mpmath, which its users set for the whole process: as they were before, once the call is over."""
    import mpmath

    return mpmath.workdps(mpmath.mp.dps)
