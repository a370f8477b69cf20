"""Corrections of anions that cannot be anions: counted by hand."""

from __future__ import annotations

import pytest
import torch

from data.dataset import CrystalDataset
from data.orbit_batch import OrbitBatch
from generators.oracles.overcounted import overcounted, raised


def in_p1(*atomic_numbers: int) -> OrbitBatch:
    n = len(atomic_numbers)
    return OrbitBatch.from_sites(
        torch.tensor([1]), torch.tensor([n]), torch.zeros(n, dtype=torch.long), torch.tensor(atomic_numbers),
        torch.rand(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
        torch.zeros(1, 6, dtype=torch.float64),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("atoms", "expected"),
    [
        ((11, 17), 0.0),  # NaCl
        ((22, 8, 8), 0.0),  # TiO2
        ((92, 9, 9, 9, 9, 9, 9), 0.0),  # UF6
        ((52,), 0.0),
        ((28, 13), 0.0),  # an alloy
        ((50, *[52] * 9), 0.422 * 7 / 10),  # SnTe9: tin reduces two
        ((37, 50, *[53] * 8), 0.379 * 3 / 10),  # RbSnI8: five electrons for eight
        ((83, *[34] * 6), 0.472 * 3.5 / 7),  # BiSe6
    ],
)
def test_what_cannot_be_reduced_is_overcounted(atoms: tuple[int, ...], expected: float) -> None:
    assert float(overcounted(in_p1(*atoms))[0]) == pytest.approx(expected, abs=1e-9)


def test_energies_are_raised_and_nothing_else() -> None:
    batch = OrbitBatch.concatenate([in_p1(50, *[52] * 9), in_p1(11, 17)])
    given = {name: torch.full((2,), -0.25, dtype=torch.float64) for name in ("e_above_hull", "bulk_modulus")}
    found = raised(CrystalDataset(batch, given, ("", ""), ("a", "b"))).properties
    assert found["e_above_hull"].tolist() == pytest.approx([-0.25 + 0.422 * 0.7, -0.25])
    assert found["bulk_modulus"].tolist() == [-0.25, -0.25]
