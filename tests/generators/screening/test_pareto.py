from __future__ import annotations

import pytest
import torch

from generators.screening.pareto import non_dominated, objectives
from generators.wish import Interval, Wish


def test_the_front_of_a_worked_example() -> None:
    nan = torch.nan
    objective = torch.tensor([[0, 3], [1, 1], [1, 1], [2, 1], [3, 0], [3, 3], [nan, -9], [1, 2]], dtype=torch.float64)
    assert non_dominated(objective).tolist() == [True, True, True, False, True, False, False, False]


def test_the_front_equals_its_definition_on_random_rows() -> None:
    objective = torch.randint(0, 30, (3000, 3), generator=torch.Generator().manual_seed(0)).double()
    front = non_dominated(objective)
    one = int((~front).nonzero()[0])
    rivals = objective[front]
    # Whatever is not on the front is beaten by something on it; nothing on it is beaten by anything.
    beats = (rivals[None] <= objective[:, None]).all(-1) & (rivals[None] < objective[:, None]).any(-1)
    assert torch.equal(beats.any(1), ~front)
    assert not front[one] and 0 < int(front.sum()) < 1000


def test_sides_of_an_interval_say_what_is_better() -> None:
    wish = Wish({"a": Interval(None, 1.0), "b": Interval(2.0, None), "c": Interval(2.0, 4.0)})
    values = {name: torch.tensor([0.0, 5.0]) for name in "abc"}
    assert objectives(wish, values).tolist() == [[0.0, 0.0, 3.0], [5.0, -5.0, 2.0]]
    with pytest.raises(ValueError, match="names no property"):
        objectives(Wish({}), values)
