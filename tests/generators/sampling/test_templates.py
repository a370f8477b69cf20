"""Templates: the geometry of the right crystal on the right sites, whatever the spelling; prototypes by vote."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher

from data.cells import decode
from data.crystal import Crystal
from data.orbit_batch import OrbitBatch
from data.protostructure import crystal_key, protostructure_label
from data.respelling import respell
from data.strain_scale import StrainScale
from generators.sampling.crystal_task import CrystalTask
from generators.sampling.templates import Templates

MakeBatch = Callable[..., OrbitBatch]
NOTHING, FLAT = ((0.0, 0.0, 0.0),) * 2, (0.0,) * 5
ROCKSALT, CSCL = "AB_cF8_225_a_b", "AB_cP2_221_a_b"


def bare(batch: OrbitBatch) -> OrbitBatch:
    return batch.replace(coordinates=torch.zeros_like(batch.coordinates), strain=torch.zeros_like(batch.strain))


def test_a_bare_crystal_in_any_spelling_gets_its_own_geometry_back(random_batch: MakeBatch) -> None:
    batch = random_batch(80, seed=1)
    templates = Templates(batch, torch.zeros(len(batch)))
    frame = bare(respell(batch, torch.Generator().manual_seed(2)))
    start = templates.start(frame)
    started, elements = start.crystals, start.elements
    assert bool(start.found.all())
    assert float(start.distance.max()) == 0  # the same elements
    assert torch.equal(elements, started.atomic_number)
    assert [crystal_key(c) for c in started.to_crystals()] == [crystal_key(c) for c in batch.to_crystals()]
    matcher = StructureMatcher(primitive_cell=False, scale=False, ltol=0.01, stol=0.01, angle_tol=0.5)
    small = (batch.n_atoms <= 24).tolist()
    assert sum(small) > 40
    pairs = zip(decode(batch).structures(), decode(started).structures(), small, strict=True)
    assert all(matcher.fit(a, b) for a, b, check in pairs if check)


def wurtzite(elements: tuple[int, int], u: float) -> Crystal:
    return Crystal(186, ("b", "b"), elements, ((0.0, 0.0, 0.0), (0.0, 0.0, u)), (4.6, 0.0, 0.0, 0.0, 0.3, 0.0))


def test_the_most_similar_elements_win_and_take_their_own_sites() -> None:
    batch = OrbitBatch.from_crystals([wurtzite((30, 16), 0.37), wurtzite((8, 4), 0.4), wurtzite((47, 53), 0.35)])
    templates = Templates(batch, torch.zeros(3))
    start = templates.start(bare(OrbitBatch.from_crystals([wurtzite((12, 8), 0.0)])))
    started, elements = start.crystals, start.elements
    assert 0 < float(start.distance) < torch.inf
    assert elements.tolist() == [[8, 4]]  # the beryllium oxide, whose oxygen comes first
    assert started.atomic_number.tolist() == [[8, 12]]
    assert started.coordinates[0, 1, 2] == pytest.approx(0.4)


def test_a_crystal_does_not_start_from_one_of_its_own_elements_if_others_are_asked_for() -> None:
    batch = OrbitBatch.from_crystals([wurtzite((30, 16), 0.37), wurtzite((8, 4), 0.4), wurtzite((30, 16), 0.3)])
    templates = Templates(batch, torch.zeros(3))
    assert templates.start(batch).distance.tolist() == [0, 0, 0]
    start = templates.start(batch, others=True)
    assert sorted(start.elements[0].tolist()) == [4, 8] and sorted(start.elements[1].tolist()) == [16, 30]
    assert bool((start.distance > 0).all())
    sketched = start.sketched(StrainScale.fit(batch))
    assert [set(c.atomic_numbers) for c in sketched.to_crystals()] == [{30, 16}, {8, 4}, {30, 16}]
    assert sketched.coordinates[0, :, 2].max() == pytest.approx(0.4)
    one = Templates(batch.select(torch.tensor([0])), torch.zeros(1))
    assert not bool(one.start(batch.select(torch.tensor([0])), others=True).found.any())


def test_without_a_template_nothing_changes() -> None:
    rocksalt = OrbitBatch.from_crystals(
        [Crystal(225, ("a", "b"), (11, 17), ((0.0, 0.0, 0.0),) * 2, (5.2,) + (0.0,) * 5)]
    )
    frame = OrbitBatch.from_crystals([wurtzite((30, 16), 0.37)])
    start = Templates(rocksalt, torch.zeros(1)).start(frame)
    started = start.crystals
    assert not bool(start.found.any())
    assert torch.equal(started.coordinates, frame.coordinates)
    assert torch.equal(started.position, frame.position)


def test_prototypes_of_a_composition_hold_it_and_differ(random_batch: MakeBatch) -> None:
    batch = random_batch(600, seed=3, groups=(2, 14, 62, 139, 166, 221, 225), most=3)
    templates = Templates(batch, torch.zeros(len(batch)))
    task = CrystalTask(composition={22: 1, 8: 2}, n_atoms=(3, 12), space_groups=frozenset((62, 139, 166, 225)))
    frame = templates.prototypes(task, 50, torch.Generator().manual_seed(0))
    assert frame is not None
    assert len(frame) >= 3
    assert bool(task.fulfilled(frame).all())
    labels = [protostructure_label(c) for c in frame.to_crystals()]
    assert len(set(labels)) == len(labels)
    assert templates.prototypes(CrystalTask(composition={22: 1, 8: 11}), 5, torch.Generator()) is None


@pytest.mark.parametrize(("above", "first"), [((0.0, 0.0), ROCKSALT), ((0.5, 0.0), CSCL), ((float("nan"), 0.0), CSCL)])
def test_similar_and_stable_compounds_have_the_vote(above: tuple[float, float], first: str) -> None:
    batch = OrbitBatch.from_crystals(
        [
            Crystal(225, ("a", "b"), (19, 17), NOTHING, (5.5, *FLAT)),
            Crystal(221, ("a", "b"), (37, 35), NOTHING, (4.3, *FLAT)),
        ]
    )
    templates = Templates(batch, torch.tensor(above))
    task = CrystalTask(composition={11: 1, 17: 1})
    frame = templates.prototypes(task, 2, torch.Generator().manual_seed(0), temperature=1e-6)
    assert frame is not None
    assert next(protostructure_label(c) for c in frame.to_crystals()) == first
    assert len(frame) == 2


def test_prototypes_are_drawn_by_their_votes() -> None:
    """Two prototypes whose templates are equally similar; one has three times the templates."""
    one = Crystal(225, ("a", "b"), (19, 17), NOTHING, (5.5, *FLAT))
    other = Crystal(221, ("a", "b"), (19, 17), NOTHING, (4.3, *FLAT))
    templates = Templates(OrbitBatch.from_crystals([one, other, other, other]), torch.zeros(4))
    task, generator = CrystalTask(composition={11: 1, 17: 1}), torch.Generator().manual_seed(0)
    n = 2000
    frames = [templates.prototypes(task, 1, generator) for _ in range(n)]
    share = sum(int(f.space_group[0]) == 221 for f in frames if f is not None) / n
    assert share == pytest.approx(0.75, abs=3 * (0.75 * 0.25 / n) ** 0.5)


def test_voters_without_geometry_vote_and_are_never_started_from() -> None:
    geometry = Crystal(225, ("a", "b"), (55, 53), NOTHING, (7.5, *FLAT))
    voters = [
        Crystal(221, ("a", "b"), (19, 17), NOTHING, (0.0, *FLAT)),
        Crystal(225, ("a", "b"), (19, 17), NOTHING, (0.0, *FLAT)),
    ]
    batch = OrbitBatch.from_crystals([geometry, *voters])
    templates = Templates(batch, torch.zeros(3), n_voters=2)
    assert len(templates) == 1
    task = CrystalTask(composition={11: 1, 17: 1})
    frame = templates.prototypes(task, 2, torch.Generator().manual_seed(0))
    assert frame is not None
    assert {protostructure_label(c) for c in frame.to_crystals()} == {ROCKSALT, CSCL}
    order = torch.argsort(frame.space_group)
    start = templates.start(frame.select(order))
    started, elements, found = start.crystals, start.elements, start.found
    assert found.tolist() == [False, True]  # the one with geometry, though a voter is more similar
    assert sorted(elements[1].tolist()) == [53, 55]
    assert started.strain[1, 0] == pytest.approx(7.5)
    assert Templates(OrbitBatch.from_crystals([geometry]), torch.zeros(1), ["AB_cF8_225_a_b"]).start(frame).found.any()
