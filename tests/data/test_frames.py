from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import numpy as np
import pandas as pd
import pytest
import torch

from data.frames import from_frame, to_frame
from data.orbit_batch import OrbitBatch


def test_what_was_written_comes_back(random_batch: Callable[..., OrbitBatch]) -> None:
    batch = random_batch(50, seed=4)
    again = from_frame(to_frame(batch))
    for field in fields(OrbitBatch):
        assert torch.equal(getattr(again, field.name), getattr(batch, field.name)), field.name
    small = to_frame(batch).assign(
        atomic_numbers=lambda f: [np.asarray(z, dtype=np.uint8) for z in f["atomic_numbers"]]
    )
    assert torch.equal(from_frame(small.assign(letters=small["letters"].astype("category"))).position, batch.position)


ROCKSALT = {
    "space_group": [225], "letters": ["a b"], "atomic_numbers": [[11, 17]], "coordinates": [[0.0] * 6],
    "strain": [[5.2, 0.0, 0.0, 0.0, 0.0, 0.0]],
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"atomic_numbers": [[11]]}, "2 orbits need as many atomic numbers"),
        ({"coordinates": [[0.0] * 5]}, "2 orbits need as many atomic numbers"),
        ({"strain": [[5.2]]}, "and 6 strains, got 2, 6 and 1"),
        ({"letters": ["a a"]}, "can occur only once, got 2"),
        ({"letters": ["a z"]}, "wyckoff_letter='z' does not exist in space group 225"),
        ({"letters": [""], "atomic_numbers": [[]], "coordinates": [[]]}, "0 orbits"),
        ({"space_group": [231]}, "space_group=231 does not exist"),
    ],
)
def test_a_row_that_is_no_crystal_is_told(change: dict[str, list[object]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_frame(pd.DataFrame({**ROCKSALT, **change}))


def test_missing_columns_and_empty_tables_are_told() -> None:
    with pytest.raises(ValueError, match="strain"):
        from_frame(pd.DataFrame(ROCKSALT).drop(columns="strain"))
    with pytest.raises(ValueError, match="at least one crystal"):
        from_frame(pd.DataFrame(ROCKSALT).iloc[:0])
