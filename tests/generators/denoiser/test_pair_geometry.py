"""Radial sums, pulls and strains between orbits against sums over all neighbours, one crystal at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from data.cells import decode
from data.lattice import STRAIN_BASIS, strain_to_lattice
from data.orbit_batch import OrbitBatch
from data.respelling import respell
from data.wyckoff import wyckoff_table
from generators.denoiser.pair_geometry import FARTHEST, MOST_CELLS, NEAREST, PairFeatures, length_unit, pair_features

MakeBatch = Callable[..., OrbitBatch]
N_RADIAL = 6
GRID = np.linspace(NEAREST, FARTHEST, N_RADIAL)
SPACING = GRID[1] - GRID[0]
IMAGES = np.stack(np.meshgrid(*[np.arange(-6, 7)] * 3, indexing="ij"), -1).reshape(-1, 3)


def features(batch: OrbitBatch) -> tuple[PairFeatures, torch.Tensor]:
    cells = decode(batch)
    unit = length_unit(cells.volume, cells.n_atoms)
    return pair_features(batch, unit, N_RADIAL), unit


def radial(distance: NDArray[np.float64], unit: float) -> NDArray[np.float64]:
    """[n, F] of distances in Å, 0 beyond the reach."""
    value = np.exp(-0.5 * ((distance[:, None] / unit - GRID) / SPACING) ** 2)
    return value * ((distance < unit * (FARTHEST + SPACING)) & (distance > 1e-3))[:, None]


def antiderivative(distance: NDArray[np.float64], unit: float) -> NDArray[np.float64]:
    """[n, F] energies whose derivative by distance / unit is `radial` (up to a constant)."""
    from scipy.special import erf

    at = (distance[:, None] / unit - GRID) / SPACING
    end = (FARTHEST + SPACING - GRID) / SPACING
    value = SPACING * np.sqrt(np.pi / 2) * (erf(at / np.sqrt(2)) - erf(end / np.sqrt(2)))
    return value * (distance < unit * (FARTHEST + SPACING))[:, None]


class Sites:
    """Sites of one crystal, Cartesian."""

    def __init__(self, batch: OrbitBatch, row: int) -> None:
        cells = decode(batch.select(torch.tensor([row])))
        self.lattice = cells.lattice[0].numpy()
        self.points = cells.frac_coords.numpy() @ self.lattice
        self.orbit = cells.orbit.numpy()

    def neighbours(self, point: NDArray[np.float64], orbit: int) -> NDArray[np.float64]:
        """[n, 3] vectors from a point to all sites of an orbit."""
        points = self.points[self.orbit == orbit]
        center = (point @ np.linalg.inv(self.lattice)).round()  # images around the point's own cell
        others = points - np.floor(points @ np.linalg.inv(self.lattice)) @ self.lattice
        images = (IMAGES + center) @ self.lattice
        return np.asarray((others[:, None] + images - point).reshape(-1, 3))

    def first(self, orbit: int) -> NDArray[np.float64]:
        return np.asarray(self.points[self.orbit == orbit][0])


def roomy(batch: OrbitBatch) -> OrbitBatch:
    """Those of at most 60 atoms whose cells are so wide that all neighbours are among the images looked at."""
    cells = decode(batch)
    heights = 1 / torch.linalg.inv(cells.lattice).norm(dim=1)
    reach = length_unit(cells.volume, cells.n_atoms) * (FARTHEST + SPACING)
    return batch.select(((MOST_CELLS + 0.5) * heights.amin(1) > reach) & (batch.n_atoms <= 60))


@pytest.fixture
def batch(random_batch: MakeBatch) -> OrbitBatch:
    groups = (1, 2, 8, 14, 33, 62, 63, 122, 136, 148, 161, 186, 194, 198, 221, 225)
    found = roomy(random_batch(150, seed=5, groups=groups))
    return found.select(torch.arange(min(len(found), 24)))


def test_density_and_strain_equal_sums_over_all_neighbours(batch: OrbitBatch) -> None:
    assert len(batch) > 15
    pairs, unit = features(batch)
    basis = STRAIN_BASIS.numpy()
    for row in range(0, len(batch), 2):
        sites, k = Sites(batch, row), int(batch.n_orbits[row])
        for i in range(k):
            for j in range(k):
                vectors = sites.neighbours(sites.first(i), j)
                distance = np.linalg.norm(vectors, axis=1)
                near = (distance > 1e-3) & (distance < 3 * float(unit[row]))
                vectors, distance = vectors[near], distance[near]
                value = radial(distance, float(unit[row]))
                assert np.allclose(value.sum(0), pairs.density[row, i, j], atol=1e-6), (row, i, j)
                direction = vectors / distance[:, None]
                stretch = (
                    np.einsum("nx,sxy,ny->ns", direction, basis, direction) * (distance / float(unit[row]))[:, None]
                )
                assert np.allclose(np.einsum("nf,ns->fs", value, stretch), pairs.strain[row, i, j], atol=1e-6)


def test_pull_is_the_gradient_of_summed_radial_energies(batch: OrbitBatch) -> None:
    """Move the first site of an orbit along each of its free coordinates, all other sites fixed."""
    pairs, unit = features(batch)
    table, box = wyckoff_table(), strain_to_lattice(batch.space_group, batch.strain)
    checked = 0
    for row in range(len(batch)):
        sites, k, length = Sites(batch, row), int(batch.n_orbits[row]), float(unit[row])
        for i in range(k):
            first = table.images(int(batch.position[row, i]))[0][:, :3].numpy()
            for j in range(k):
                if i == j or not bool(batch.coordinate_mask[row, i].any()):
                    continue
                # One free coordinate's pull as a Cartesian vector in length units, then against finite differences.
                vector = pairs.pull[row, i, j].numpy() @ first.T @ box[row].numpy() / length  # [F, 3]
                for axis in batch.coordinate_mask[row, i].nonzero().squeeze(-1).tolist():
                    along = first[:, axis] @ box[row].numpy()  # Å per unit of the coordinate
                    step = 1e-5 * along / np.linalg.norm(along)
                    energies = [
                        antiderivative(
                            np.linalg.norm(sites.neighbours(sites.first(i) + sign * step, j), axis=1), length
                        ).sum(0)
                        for sign in (1, -1)
                    ]
                    slope = (energies[0] - energies[1]) / 2e-5 * length  # per length unit
                    expected = -vector @ (along / np.linalg.norm(along))
                    assert np.allclose(slope, expected, atol=1e-4), (row, i, j, axis)
                    checked += 1
    assert checked > 30


def test_pulls_obey_the_site_symmetry(batch: OrbitBatch) -> None:
    pairs, _ = features(batch)
    fixed = ~batch.coordinate_mask[:, :, None, None].expand_as(pairs.pull)
    assert float(pairs.pull[fixed].abs().max()) < 1e-8


def test_strain_is_the_derivative_of_the_distances(batch: OrbitBatch) -> None:
    """Summed over the orbits, weighted by their sites: the derivative of the cell's radial energy by strain."""
    pairs, unit = features(batch)
    for row in range(0, len(batch), 3):
        sites, length = Sites(batch, row), float(unit[row])
        total = (pairs.strain[row].sum(1) * batch.multiplicity[row][:, None, None]).sum(0).numpy()  # [F, 6]
        for component in range(6):
            energies = []
            for sign in (1, -1):
                stretch = np.eye(3) + sign * 1e-5 * STRAIN_BASIS[component].numpy()
                energy = np.zeros(N_RADIAL)
                for i in range(int(batch.n_orbits[row])):
                    for j in range(int(batch.n_orbits[row])):
                        vectors = sites.neighbours(sites.first(i), j) @ stretch
                        distance = np.linalg.norm(vectors, axis=1)
                        energy += antiderivative(distance[distance > 1e-3], length).sum(0) * int(
                            batch.multiplicity[row, i]
                        )
                energies.append(energy)
            slope = (energies[0] - energies[1]) / 2e-5
            # Components that the family does not leave free cancel over the sites of an orbit, not at its first one.
            if bool(batch.strain_mask[row, component]):
                assert np.allclose(slope, total[:, component], atol=1e-3), (row, component)


@pytest.mark.parametrize("seed", [0, 1])
def test_features_do_not_depend_on_the_spelling(random_batch: MakeBatch, seed: int) -> None:
    batch = roomy(random_batch(300, seed=6))
    assert len(set(batch.space_group.tolist())) > 40
    moved = respell(batch, torch.Generator().manual_seed(seed))
    before, after = features(batch)[0], features(moved)[0]
    assert torch.allclose(before.density, after.density, atol=1e-5)
    assert torch.allclose(before.strain[..., 0], after.strain[..., 0], atol=1e-5)  # the volume has no direction
    assert torch.allclose(pulled(batch, before), pulled(moved, after), atol=1e-4)


def pulled(batch: OrbitBatch, pairs: PairFeatures) -> torch.Tensor:
    """[B, K, K, F] lengths of the pulls as Cartesian vectors, Å."""
    table, box = wyckoff_table(), strain_to_lattice(batch.space_group, batch.strain)
    first = table.operations[table.operation_start][batch.position][..., :3]  # [B, K, 3, 3]
    fractional = torch.einsum("bixu,bijfu->bijfx", first, pairs.pull)
    return torch.einsum("bijfx,bxy->bijfy", fractional, box).norm(dim=-1)
