"""Tensors in the wrong frame are found by symmetry, and IEEE axes are turned back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from e3nn import o3
from pymatgen.core import Lattice, Structure

from generators.structures.dataset import read_structure_rows
from generators.structures.frames import check_frame, from_ieee, point_group, symmetrised
from generators.structures.tensors import from_cartesian, to_cartesian


def zincblende(rotation: torch.Tensor | None = None) -> Structure:
    s = Structure.from_spacegroup("F-43m", Lattice.cubic(5.4), ["Zn", "S"], [[0, 0, 0], [0.25, 0.25, 0.25]])
    s = s.get_primitive_structure()
    return s if rotation is None else Structure(s.lattice.matrix @ rotation.numpy().T, s.species, s.frac_coords)


def e14(value: float = 0.2) -> torch.Tensor:
    """Piezoelectric tensor [3, 3, 3] of class -43m in the cubic axes."""
    columns = torch.zeros(3, 6, dtype=torch.float64)
    columns[0, 3] = columns[1, 4] = columns[2, 5] = value
    return to_cartesian(columns.reshape(1, 18))[0]


def rotation() -> torch.Tensor:
    torch.manual_seed(3)
    return o3.rand_matrix().double()


def test_the_point_group_turns_with_the_crystal() -> None:
    turn = rotation()
    plain, turned = point_group(zincblende()), point_group(zincblende(turn))
    assert len(plain) == len(turned) == 24
    assert torch.allclose(plain @ plain.mT, torch.eye(3, dtype=torch.float64).expand(24, 3, 3), atol=1e-9)
    found = {tuple(np.round((turn @ m @ turn.T).numpy().ravel(), 4) + 0.0) for m in plain}
    assert found == {tuple(np.round(m.numpy().ravel(), 4) + 0.0) for m in turned}


def test_what_symmetry_forbids_is_gone_and_what_it_allows_stays() -> None:
    crystal = Structure.from_spacegroup("F-43m", Lattice.cubic(5.4), ["Zn", "S"], [[0, 0, 0], [0.25, 0.25, 0.25]])
    assert torch.allclose(symmetrised(e14(), crystal), e14(), atol=1e-12)
    anything = torch.randn(3, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    anything = (anything + anything.mT) / 2
    columns = from_cartesian(symmetrised(anything, crystal)[None]).reshape(3, 6)
    assert columns[0, 3] == pytest.approx(columns[2, 5].item())
    columns[0, 3] = columns[1, 4] = columns[2, 5] = 0
    assert columns.abs().max() < 1e-12


def test_a_tensor_in_another_frame_is_found_and_ieee_axes_are_turned_back() -> None:
    turned = zincblende(rotation())
    with pytest.raises(ValueError, match=r"piezo: the crystal's symmetry forbids \d+% of this tensor"):
        check_frame(e14(), turned, "piezo")
    right = from_ieee(e14(), turned)
    check_frame(right, turned, "piezo")
    assert right.norm() == pytest.approx(e14().norm().item())
    check_frame(torch.zeros(3, 3, 3), turned, "piezo")


def test_rows_in_the_wrong_frame_are_rejected_with_the_remedy(tmp_path: Path) -> None:
    crystals = [zincblende(rotation()), Structure(Lattice.cubic(3.3), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])]
    piezo = from_cartesian(e14()[None])[0].tolist()
    pd.DataFrame(
        {
            "lattice": [s.lattice.matrix.ravel().tolist() for s in crystals],
            "atomic_numbers": [[x.Z for x in s.species] for s in crystals],
            "frac_coords": [s.frac_coords.ravel().tolist() for s in crystals],
            "piezo": [piezo, [0.0] * 18],
        }
    ).to_parquet(tmp_path / "t.parquet")
    plain = read_structure_rows(tmp_path / "t.parquet", ["piezo"], 4.0)
    assert len(plain.graphs) == 1 and "data.tensor_frame=ieee" in plain.rejected[0].reason
    turned = read_structure_rows(tmp_path / "t.parquet", ["piezo"], 4.0, frame="ieee")
    assert len(turned.graphs) == 2 and not turned.rejected
    assert turned.graphs[0].target_0.norm() == pytest.approx(e14().norm().item(), rel=1e-5)
