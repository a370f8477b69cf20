"""What the user asks for: intervals of properties, and what the crystal may be made of."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from pymatgen.core import Element
from torch import Tensor

_EXTREME = re.compile(r"(lowest|highest)\s+([0-9.eE+-]+)\s*%")


@dataclass(frozen=True)
class Interval:
    """``low <= x <= high``; None leaves a side open.

    Raises:
        ValueError: both sides open, a side is not a number, or low > high.
    """

    low: float | None
    high: float | None

    def __post_init__(self) -> None:
        for side in (self.low, self.high):
            if side is not None and not math.isfinite(side):
                raise ValueError(f"interval={self}: a side must be a finite number, or null for open")
        if self.low is None and self.high is None:
            raise ValueError("interval=[null, null]: give at least one side")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"interval={self}: is empty, low must not exceed high")

    def contains(self, x: Tensor) -> Tensor:
        """Bool, same shape; False for NaN."""
        inside = ~torch.isnan(x)
        if self.low is not None:
            inside = inside & (x >= self.low)
        if self.high is not None:
            inside = inside & (x <= self.high)
        return inside

    def __str__(self) -> str:
        low = "null" if self.low is None else f"{self.low:g}"
        high = "null" if self.high is None else f"{self.high:g}"
        return f"[{low}, {high}]"


@dataclass(frozen=True)
class Wish:
    """Intervals per property, and the elements that may occur (None: all that the model knows)."""

    intervals: Mapping[str, Interval]
    allowed_elements: frozenset[int] | None = None
    forbidden_elements: frozenset[int] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        if self.allowed_elements is not None and not self.allowed_elements - self.forbidden_elements:
            raise ValueError("allowed_elements: nothing is left after the forbidden ones are taken out")

    def hits(self, properties: Mapping[str, Tensor]) -> Tensor:
        """[B] bool: every interval holds; unknown (NaN) values are no hits.

        Raises:
            ValueError: a property of the wish is missing from ``properties``.
        """
        missing = [name for name in self.intervals if name not in properties]
        if missing:
            raise ValueError(f"property={missing[0]!r} is not judged: available {', '.join(properties)}")
        inside = [interval.contains(properties[name]) for name, interval in self.intervals.items()]
        return torch.stack(inside).all(0)

    def describe(self) -> str:
        """One line for people."""
        parts = [f"{name} in {interval}" for name, interval in self.intervals.items()]
        if self.allowed_elements is not None:
            parts.append("only " + " ".join(_symbols(self.allowed_elements)))
        if self.forbidden_elements:
            parts.append("without " + " ".join(_symbols(self.forbidden_elements)))
        return "; ".join(parts) or "anything"


def _symbols(numbers: frozenset[int]) -> list[str]:
    return [Element.from_Z(z).symbol for z in sorted(numbers)]


def parse_elements(symbols: Sequence[str], name: str) -> frozenset[int]:
    """Atomic numbers of element symbols. Raises ValueError that names the unknown one."""
    numbers = set()
    for symbol in symbols:
        try:
            numbers.add(int(Element(symbol).Z))
        except ValueError:
            raise ValueError(f"{name}={symbol!r} is not an element symbol: write them as Na, Cl") from None
    return frozenset(numbers)


def parse_interval(name: str, value: object, quantile: Callable[[str, float], float] | None = None) -> Interval:
    """An interval from ``[low, high]``, or from ``"lowest 1 %"`` / ``"highest 1 %"`` of the training data.

    Args:
        name: the property, for messages and for ``quantile``.
        value: what the user wrote.
        quantile: value below which a share of the training labels lies.

    Raises:
        ValueError: anything else.
    """
    if isinstance(value, str):
        match = _EXTREME.fullmatch(value.strip())
        if match is None:
            raise ValueError(f"wish.{name}={value!r}: write [low, high], 'lowest 1 %' or 'highest 1 %'")
        share = float(match[2]) / 100
        if not 0 < share < 1:
            raise ValueError(f"wish.{name}={value!r}: the share must lie between 0 and 100 %")
        if quantile is None:
            raise ValueError(f"wish.{name}={value!r}: no training data to take the share of")
        if match[1] == "lowest":
            return Interval(None, quantile(name, share))
        return Interval(quantile(name, 1 - share), None)
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ValueError(f"wish.{name}={value!r}: write [low, high], with null for an open side")
    try:
        low, high = (None if side is None else float(side) for side in value)
        return Interval(low, high)
    except (TypeError, ValueError) as error:
        text = str(error).split(": ", 1)[-1] if "interval=" in str(error) else "sides must be numbers or null"
        raise ValueError(f"wish.{name}={list(value)}: {text}") from None


def parse_wish(
    intervals: Mapping[str, object],
    known: Sequence[str],
    quantile: Callable[[str, float], float] | None = None,
    allowed_elements: Sequence[str] | None = None,
    forbidden_elements: Sequence[str] = (),
) -> Wish:
    """A `Wish` from what the user wrote in the configuration.

    Raises:
        ValueError: unknown property (the message lists those that the model was trained on), a bad
            interval, or an unknown element.
    """
    for name in intervals:
        if name not in known:
            raise ValueError(f"wish.{name}: unknown property, the model knows {', '.join(known)}")
    return Wish(
        intervals={name: parse_interval(name, value, quantile) for name, value in intervals.items()},
        allowed_elements=None if allowed_elements is None else parse_elements(allowed_elements, "allowed_elements"),
        forbidden_elements=parse_elements(forbidden_elements, "forbidden_elements"),
    )
