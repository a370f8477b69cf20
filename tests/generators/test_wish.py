"""What the user writes, and what is refused."""

from __future__ import annotations

import pytest
import torch

from generators.wish import Interval, Wish, parse_elements, parse_interval, parse_wish


def test_hits_need_every_interval_and_known_values() -> None:
    wish = Wish({"a": Interval(None, 1.0), "b": Interval(2.0, 3.0)})
    a = torch.tensor([0.5, 1.0, 1.5, 0.0, torch.nan])
    b = torch.tensor([2.0, 3.5, 2.5, torch.nan, 2.5])
    assert wish.hits({"a": a, "b": b}).tolist() == [True, False, False, False, False]
    with pytest.raises(ValueError, match="'b' is not judged"):
        wish.hits({"a": a})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([2.0, 1.0], "empty"),
        ([None, None], "at least one side"),
        ("lowest 1 percent", "lowest 1 %"),
        ([1.0], "low, high"),
        (["x", 1.0], "numbers or null"),
        ([float("nan"), 1.0], "finite"),
        ("lowest 200 %", "between 0 and 100"),
    ],
)
def test_bad_intervals_name_the_field_and_the_remedy(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse_interval("gap", value, lambda _, q: q)
    assert "wish.gap" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_shares_of_the_training_data() -> None:
    low = parse_interval("y", "lowest 1 %", lambda _, q: 10 * q)
    assert low.low is None and low.high == pytest.approx(0.1)
    high = parse_interval("y", "highest 0.2 %", lambda _, q: 10 * q)
    assert high.low == pytest.approx(9.98) and high.high is None


def test_unknown_property_and_element_are_named() -> None:
    with pytest.raises(ValueError, match="wish.hardness: unknown property, the model knows a, b"):
        parse_wish({"hardness": [1, 2]}, ["a", "b"])
    with pytest.raises(ValueError, match="'Xq' is not an element"):
        parse_elements(["Na", "Xq"], "allowed_elements")
    with pytest.raises(ValueError, match="nothing is left"):
        Wish({}, frozenset({11}), frozenset({11}))
