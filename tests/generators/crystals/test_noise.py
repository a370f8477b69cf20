"""Noise on whole crystals: the nearest spelling is the same crystal, and what is hidden cannot be seen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from data.lattice import strain_to_lattice
from data.orbit_batch import OrbitBatch
from data.spellings import canonical
from data.strain_scale import StrainScale
from generators.crystals.noise import geometry_path, nearest_spelling, observe
from generators.diffusion.interpolants import wrap

MakeBatch = Callable[..., OrbitBatch]


@pytest.fixture
def batch(random_batch: MakeBatch) -> OrbitBatch:
    return random_batch(60, seed=1)


def mean_square_distance(batch: OrbitBatch, coordinates: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """[B] Å^2 per orbit, conventional axes as if they were orthogonal."""
    axes = strain_to_lattice(batch.space_group, batch.strain).norm(dim=-1)[:, None]
    return ((wrap(noise - coordinates) * axes * batch.coordinate_mask) ** 2).sum((1, 2))


def test_the_nearest_spelling_is_the_same_crystal(batch: OrbitBatch) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(batch.coordinates.shape, generator=generator, dtype=torch.float64)
    nearest = batch.replace(coordinates=nearest_spelling(batch, noise, generator))
    for before, after in zip(batch.to_crystals(), nearest.to_crystals(), strict=True):
        one, other = canonical(before), canonical(after)
        assert (one.letters, one.atomic_numbers) == (other.letters, other.atomic_numbers)
        gap = np.array(one.coordinates) - np.array(other.coordinates)
        assert np.abs(gap - np.round(gap)).max() < 1e-4  # the maps are kept in single precision


def test_the_nearest_spelling_is_never_farther(random_batch: MakeBatch) -> None:
    """Groups whose positions have at most 64 equivalent sites (all are looked at) and no polar axis."""
    batch = random_batch(80, seed=2, groups=(2, 14, 62, 63, 136, 148, 166, 194, 216, 221))
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(batch.coordinates.shape, generator=generator, dtype=torch.float64)
    nearest = nearest_spelling(batch, noise, generator)
    before = mean_square_distance(batch, batch.coordinates, noise)
    after = mean_square_distance(batch, nearest, noise)
    assert bool((after <= before + 1e-3).all())
    assert float(after.sum()) < 0.6 * float(before.sum())


def test_along_polar_axes_the_origin_follows_the_noise(random_batch: MakeBatch) -> None:
    batch = random_batch(30, seed=3, groups=(1,), most=1)
    noise = torch.rand(batch.coordinates.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    nearest = nearest_spelling(batch, noise, torch.Generator().manual_seed(0))
    single = batch.n_orbits == 1
    assert int(single.sum()) > 5
    assert torch.allclose(wrap(nearest - noise)[single], torch.zeros(1, dtype=torch.float64), atol=1e-6)


def test_the_path_begins_at_the_crystal_and_ends_at_noise(batch: OrbitBatch) -> None:
    scale = StrainScale.fit(batch)
    n = len(batch)

    def path(t: float):  # type: ignore[no-untyped-def]
        return geometry_path(batch, scale, torch.full((n,), t), torch.Generator().manual_seed(0))

    start, half, end = path(0.0), path(0.5), path(1.0)
    assert torch.allclose(start.standard_strain, scale.to_standard(batch, batch.strain), atol=1e-6)
    again = batch.replace(coordinates=start.coordinates)
    assert [canonical(c).letters for c in again.to_crystals()] == [canonical(c).letters for c in batch.to_crystals()]
    free = batch.coordinate_mask
    step = wrap(half.coordinates - start.coordinates)
    assert torch.allclose(step[free], 0.5 * half.velocity[free], atol=1e-5)
    assert torch.allclose((end.standard_strain - start.standard_strain), half.strain_velocity, atol=1e-5)
    assert float(end.coordinates[free].mean()) == pytest.approx(0.5, abs=0.05)
    spread = end.standard_strain[batch.strain_mask].std()
    assert float(spread) == pytest.approx(1.0, abs=0.15)
    assert bool((half.velocity[~free] == 0).all()) and bool((half.strain_velocity[~batch.strain_mask] == 0).all())


def seen(batch: OrbitBatch, scale: StrainScale, position_hidden: torch.Tensor, element_hidden: torch.Tensor):  # type: ignore[no-untyped-def]
    time = torch.full((len(batch),), 0.3)
    geometry = (batch.coordinates, scale.to_standard(batch, batch.strain), time)
    return observe(batch, scale, 6, position_hidden, element_hidden, geometry)


def test_the_volume_is_not_seen_while_an_element_is_hidden(batch: OrbitBatch) -> None:
    scale = StrainScale.fit(batch)
    nothing = torch.zeros_like(batch.mask)
    one = nothing.clone()
    one[:, 0] = True
    strain = batch.strain.clone()
    strain[:, 0] += 0.3
    larger = batch.replace(strain=strain)
    hidden, hidden_larger = seen(batch, scale, nothing, one), seen(larger, scale, nothing, one)
    assert torch.equal(hidden.standard_strain, hidden_larger.standard_strain)
    assert torch.allclose(hidden.pairs.density, hidden_larger.pairs.density, atol=1e-5)
    assert torch.allclose(hidden.pairs.pull, hidden_larger.pairs.pull, atol=1e-4)
    open_, open_larger = seen(batch, scale, nothing, nothing), seen(larger, scale, nothing, nothing)
    assert not torch.allclose(open_.pairs.density, open_larger.pairs.density, atol=1e-2)


def test_a_hidden_element_changes_nothing_of_the_geometry(batch: OrbitBatch) -> None:
    scale = StrainScale.fit(batch)
    nothing = torch.zeros_like(batch.mask)
    hidden = torch.rand(batch.mask.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    hidden[:, 0] = True
    hidden &= batch.mask
    other = batch.replace(atomic_number=torch.where(hidden, 92, batch.atomic_number))
    time = torch.full((len(batch),), 0.3)
    standard = scale.to_standard(batch, batch.strain)
    states = [
        observe(b, scale, 6, nothing, hidden, (batch.coordinates, standard, time)) for b in (batch, other)
    ]  # fmt: skip
    for name in ("density", "pull", "strain"):
        assert torch.equal(getattr(states[0].pairs, name), getattr(states[1].pairs, name))
    assert torch.equal(states[0].standard_strain, states[1].standard_strain)


def test_rows_without_geometry_show_none(batch: OrbitBatch) -> None:
    scale = StrainScale.fit(batch)
    nothing = torch.zeros_like(batch.mask)
    some = torch.arange(len(batch)) % 2 == 0
    geometry = (batch.coordinates, scale.to_standard(batch, batch.strain), torch.full((len(batch),), 0.3))
    state = observe(batch, scale, 6, nothing, nothing, geometry, some)
    assert bool((state.pairs.density[~some] == 0).all()) and bool((state.standard_strain[~some] == 0).all())
    assert bool((state.time[~some] == 1).all()) and bool((state.pairs.density[some].sum((1, 2, 3)) > 0).all())
    none = observe(batch, scale, 6, nothing, nothing)
    assert not bool(none.has_geometry.any()) and float(none.pairs.density.abs().max()) == 0
