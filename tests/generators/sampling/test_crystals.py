"""The sampler of whole crystals: what is asked holds in every sample, whatever the network says."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from smact.screening import smact_validity

from data.crystal import Crystal
from data.orbit_batch import OrbitBatch
from data.protostructure import protostructure_label
from data.prototypes import prototype_library
from data.strain_scale import StrainScale
from data.wyckoff import wyckoff_table
from generators.conditioning import Conditions, PropertyScale
from generators.denoiser.crystal_denoiser import CrystalDenoiser, CrystalDenoiserConfig
from generators.sampling.crystal_geometry import CrystalSamplerSettings
from generators.sampling.crystal_task import CrystalTask
from generators.sampling.crystals import CrystalSampler
from generators.sampling.templates import Templates

KNOWN = tuple(range(1, 84))
SEEDS = {
    "perovskite": [20, 22, 8], "rocksalt": [11, 17], "fluorite": [20, 9], "half_heusler": [3, 12, 7],
    "spinel": [12, 13, 8], "elpasolite": [11, 3, 26, 9],
}  # fmt: skip


@pytest.fixture(scope="module")
def sampler() -> CrystalSampler:
    """Untrained, but not indifferent: every weight is perturbed."""
    torch.manual_seed(0)
    network = CrystalDenoiser(1, CrystalDenoiserConfig(width=16, depth=1, heads=2, n_radial=4, dropout=0.0))
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    scale = PropertyScale.fit("y", torch.linspace(0, 1, 100, dtype=torch.float64))
    strain = StrainScale(10 + torch.arange(119.0) / 5, torch.zeros(6, 6), 0.1 * torch.ones(6, 6))
    return CrystalSampler(network.eval(), (scale,), strain, KNOWN, CrystalSamplerSettings(steps=2))


NOTHING = Conditions.nothing(1, 1)


def colder(sampler: CrystalSampler) -> CrystalSampler:
    """Draws elements a second time, at another temperature than the prototypes."""
    return using(sampler, CrystalSamplerSettings(steps=2, temperature=0.5))


def using(sampler: CrystalSampler, settings: CrystalSamplerSettings) -> CrystalSampler:
    return CrystalSampler(sampler.denoiser, sampler.scales, sampler.strain_scale, KNOWN, settings)


def seeds() -> OrbitBatch:
    return OrbitBatch.from_crystals([prototype_library().get(n).crystal(z) for n, z in SEEDS.items()])


def problems(crystal: Crystal, task: dict[str, Any]) -> list[str]:
    """What is violated, found without any of the sampler's own tables of what is possible."""
    table = wyckoff_table()
    atoms: Counter[int] = Counter()
    for position, z in zip(crystal.positions, crystal.atomic_numbers, strict=True):
        atoms[z] += int(table.primitive_multiplicity[position])
    low, high = task.get("n_atoms", (1, 64))
    fewest, most = task.get("n_elements", (1, 10))
    checks = {
        "space group": crystal.space_group in (task.get("space_groups") or range(1, 231)),
        "n_atoms": low <= sum(atoms.values()) <= high,
        "n_elements": fewest <= len(atoms) <= most,
        "known": set(atoms) <= set(KNOWN),
        "allowed": set(atoms) <= set(task.get("allowed_elements") or KNOWN),
        "system": set(atoms) == set(task["chemical_system"]) if task.get("chemical_system") else True,
        "orbits": len(crystal.letters) <= 32,
    }
    if composition := task.get("composition"):
        units = {atoms[z] / n for z, n in composition.items()}
        first, last = task.get("formula_units", (1, 64))
        checks["composition"] = set(atoms) == set(composition) and len(units) == 1 and first <= units.pop() <= last
    return [name for name, fine in checks.items() if not fine]


def random_task(generator: torch.Generator) -> dict[str, Any]:
    """Constraints in random combination; some are impossible together."""

    def integer(low: int, high: int) -> int:
        return low + int(torch.randint(high - low + 1, (), generator=generator))

    def some(share: float) -> bool:
        return bool(torch.rand((), generator=generator) < share)

    def several(n: int, of: range) -> list[int]:
        return [of[i] for i in torch.randperm(len(of), generator=generator)[:n].tolist()]

    task: dict[str, Any] = {}
    if some(0.3):
        task["composition"] = {z: integer(1, 4) for z in several(integer(1, 4), range(1, 84))}
        if some(0.5):
            first = integer(1, 3)
            task["formula_units"] = (first, first + integer(0, 4))
    elif some(0.4):
        task["chemical_system"] = frozenset(several(integer(1, 5), range(1, 84)))
    elif some(0.4):
        task["allowed_elements"] = frozenset(several(integer(2, 12), range(1, 84)))
    if some(0.4):
        task["space_groups"] = frozenset(several(integer(1, 6), range(1, 231)))
    if some(0.5):
        low = integer(1, 20)
        task["n_atoms"] = (low, low + integer(0, 20))
    if some(0.3) and "composition" not in task and "chemical_system" not in task:
        low = integer(1, 4)
        task["n_elements"] = (low, low + integer(0, 2))
    if some(0.25):
        task["seeds"] = seeds()
        task["noise"] = 0.3 if some(0.5) else 1.0
        task["keep_elements"] = 0.5 if some(0.5) else 0.0
        task["tied"] = some(0.7)
    return task


@pytest.mark.slow
def test_no_constraint_is_ever_violated(sampler: CrystalSampler) -> None:
    """10,000 samples under random combinations of constraints; impossible ones are one clear line."""
    generator = torch.Generator().manual_seed(1)
    drawn = asked = 0
    reasons: list[str] = []
    kinds: Counter[str] = Counter()
    once, twice = (using(sampler, CrystalSamplerSettings(steps=1, temperature=t)) for t in (1.0, 0.5))
    while drawn < 10_000:
        arguments = random_task(generator)
        asked += 1
        try:
            task = CrystalTask(**arguments)
            batch = (twice if asked % 2 else once).draw(task, NOTHING, 100, torch.Generator().manual_seed(asked))
        except ValueError as error:
            reasons.append(str(error))
            continue
        assert 0 < len(batch) <= 100
        assert bool(task.fulfilled(batch).all())
        for crystal in batch.to_crystals():  # Crystal itself refuses a position without freedom that occurs twice
            assert problems(crystal, arguments) == [], (arguments, crystal)
        assert bool(torch.isfinite(batch.coordinates).all()) and bool(torch.isfinite(batch.strain).all())
        drawn += len(batch)
        kinds.update(arguments.keys())
    assert min(kinds[name] for name in ("composition", "chemical_system", "space_groups", "n_atoms", "seeds")) >= 5
    assert len(reasons) < asked / 2
    assert all(re.match(r"[\w.]+(=.*)?: ", reason) and "\n" not in reason for reason in reasons)


def test_the_second_draw_of_elements_leaves_the_protostructures(sampler: CrystalSampler) -> None:
    task = CrystalTask(n_atoms=(1, 20), allowed_elements=frozenset((3, 8, 12, 22)))
    once = sampler.draw(task, NOTHING, 60, torch.Generator().manual_seed(3)).to_crystals()
    twice = colder(sampler).draw(task, NOTHING, 60, torch.Generator().manual_seed(3)).to_crystals()
    assert [protostructure_label(c) for c in once] == [protostructure_label(c) for c in twice]
    assert [c.atomic_numbers for c in once] != [c.atomic_numbers for c in twice]


def test_the_same_seed_gives_the_same_crystals(sampler: CrystalSampler) -> None:
    task = CrystalTask(n_atoms=(1, 20))
    one, two, other = (sampler.draw(task, NOTHING, 20, torch.Generator().manual_seed(s)) for s in (3, 3, 4))
    assert torch.equal(one.position, two.position) and torch.equal(one.coordinates, two.coordinates)
    assert one.position.shape != other.position.shape or not torch.equal(one.position, other.position)


def test_a_prototype_stays_and_species_stay_together(sampler: CrystalSampler) -> None:
    task = CrystalTask(seeds=seeds())
    labels = {protostructure_label(c) for c in seeds().to_crystals()}
    crystals = sampler.draw(task, NOTHING, 100, torch.Generator().manual_seed(0)).to_crystals()
    assert {protostructure_label(c) for c in crystals} == labels


def test_seeds_keep_the_elements_that_they_shall_keep(sampler: CrystalSampler) -> None:
    before = {c.atomic_numbers for c in seeds().to_crystals()}
    everything = CrystalTask(seeds=seeds(), keep_elements=1.0, noise=0.2)
    crystals = sampler.draw(everything, NOTHING, 60, torch.Generator().manual_seed(0)).to_crystals()
    assert {c.atomic_numbers for c in crystals} == before
    half = CrystalTask(seeds=seeds(), keep_elements=0.5, noise=0.2)
    crystals = sampler.draw(half, NOTHING, 200, torch.Generator().manual_seed(0)).to_crystals()
    kept = [any(set(c.atomic_numbers) & set(b) for b in before) for c in crystals]
    assert 0.5 < sum(kept) / len(kept) <= 1.0


def test_where_charges_shall_balance_smact_agrees(sampler: CrystalSampler) -> None:
    for given in ({"n_elements": (2, 3)}, {"seeds": seeds(), "noise": 0.3}, {"seeds": seeds(), "exchange": 1}):
        task = CrystalTask(charge_balanced=True, **given)  # type: ignore[arg-type]
        drawn = sampler.draw(task, NOTHING, 60, torch.Generator().manual_seed(0))
        assert len(drawn) == 60
        assert all(smact_validity(c.composition, include_alloys=False) for c in drawn.to_crystals())
    free = sampler.draw(CrystalTask(n_elements=(2, 3)), NOTHING, 60, torch.Generator().manual_seed(0)).to_crystals()
    assert not all(smact_validity(c.composition, include_alloys=False) for c in free)
    nothing = CrystalTask(charge_balanced=True, seeds=seeds(), allowed_elements=frozenset({11, 19, 37, 55, 3}))
    with pytest.raises(ValueError, match=r"task\.charge_balanced: nothing of this kind that the model draws is"):
        sampler.draw(nothing, NOTHING, 20, torch.Generator().manual_seed(0))


def test_an_exchange_within_groups_takes_a_neighbour_for_one_species(sampler: CrystalSampler) -> None:
    batch = OrbitBatch.from_crystals([prototype_library().get("perovskite").crystal([20, 22, 8])])
    task = CrystalTask(seeds=batch, exchange=1, within_groups=True, noise=0.1)
    drawn = {c.atomic_numbers for c in sampler.draw(task, NOTHING, 200, torch.Generator().manual_seed(0)).to_crystals()}
    before = batch.to_crystals()[0].atomic_numbers
    neighbours = {20: {12, 38}, 22: {40}, 8: {16}}  # Mg, Sr; Zr; S
    expected = {tuple(new if z == old else z for z in before) for old in neighbours for new in neighbours[old]}
    assert drawn == expected


def test_a_little_noise_keeps_the_geometry_near(
    sampler: CrystalSampler, random_batch: Callable[..., OrbitBatch]
) -> None:
    """Where the network takes no step, noise t moves a coordinate by at most t / 2."""
    start = random_batch(40, seed=2, elements=(3, 8, 12))
    torch.manual_seed(0)
    quiet = CrystalDenoiser(1, sampler.denoiser.config).eval()  # its steps start at zero
    still = CrystalSampler(quiet, sampler.scales, sampler.strain_scale, KNOWN, CrystalSamplerSettings(steps=1))
    task = CrystalTask(seeds=start, keep_elements=1.0, noise=0.1)
    moved = still.draw(task, NOTHING, 40, torch.Generator().manual_seed(0))
    picked = torch.randint(40, (40,), generator=torch.Generator().manual_seed(0))
    step = moved.coordinates - start.coordinates[picked]
    step = (step - step.round()).abs()
    assert 0.02 < float(step.max()) <= 0.05 + 1e-6


def test_with_templates_the_wish_holds_and_known_prototypes_keep_their_geometry(
    sampler: CrystalSampler, random_batch: Callable[..., OrbitBatch]
) -> None:
    batch = random_batch(300, seed=4, groups=(2, 12, 62, 139, 166, 194), most=3, elements=(8, 22))
    torch.manual_seed(0)
    quiet = CrystalDenoiser(1, sampler.denoiser.config).eval()
    settings = CrystalSamplerSettings(steps=2, template_noise=0.02, template_share=0.5)
    templates = Templates(batch, torch.zeros(len(batch)))
    following = CrystalSampler(quiet, sampler.scales, sampler.strain_scale, KNOWN, settings, templates)
    task = CrystalTask(composition={22: 1, 8: 2}, n_atoms=(3, 12))
    drawn = following.draw(task, NOTHING, 40, torch.Generator().manual_seed(0))
    assert len(drawn) == 40
    assert bool(task.fulfilled(drawn).all())
    start = templates.start(drawn)
    expected, found = start.crystals, start.found
    assert 5 < int(found.sum()) < 40
    step = ((drawn.coordinates - expected.coordinates) * drawn.coordinate_mask)[found]
    assert 0.002 < float((step - step.round()).abs().max()) <= 0.01 + 1e-6


def test_guidance_moves_samples_towards_the_wish(sampler: CrystalSampler) -> None:
    wish = Conditions(torch.tensor([[0.9]]), torch.tensor([[1.0]]), torch.tensor([[True]]))
    plain = sampler.draw(CrystalTask(), wish, 20, torch.Generator().manual_seed(0))
    strong = CrystalSamplerSettings(steps=2, guidance=3.0, prototype_guidance=30.0)
    guided = using(sampler, strong).draw(CrystalTask(), wish, 20, torch.Generator().manual_seed(0))
    assert plain.space_group.tolist() != guided.space_group.tolist()


def test_each_crystal_has_the_number_of_elements_that_was_drawn_for_it(sampler: CrystalSampler) -> None:
    task, generator = CrystalTask(n_atoms=(1, 30)), torch.Generator().manual_seed(0)
    numbers = torch.tensor([1, 2, 3, 4, 6]).repeat(4)
    frame, shall = sampler.draw_prototypes(task, NOTHING, numbers, generator)
    assert sorted(shall.tolist()) == sorted(numbers.tolist())
    drawn = sampler.draw_elements(frame, task, NOTHING, generator, numbers=shall)
    assert torch.equal(drawn.n_elements, shall)


@pytest.mark.slow
def test_small_crystals_are_those_that_the_model_would_draw_small(sampler: CrystalSampler) -> None:
    """Not larger ones squeezed: numbers of elements are spread as among the small ones of a draw without a limit."""
    generator = torch.Generator().manual_seed(2)
    free = sampler.draw(CrystalTask(), NOTHING, 1500, generator)
    small = free.select((free.n_atoms <= 50).nonzero().squeeze(-1))
    assert 0.5 < len(small) / len(free) < 0.95
    drawn = sampler.draw(CrystalTask(n_atoms=(1, 50)), NOTHING, 1500, generator)
    assert len(drawn) == 1500 and int(drawn.n_atoms.max()) <= 50
    for of in (lambda b: b.n_elements, lambda b: b.n_orbits, lambda b: b.space_group // 20):
        one, other = (torch.bincount(of(b), minlength=40).double() / len(b) for b in (small, drawn))
        assert float((one - other).abs().sum()) / 2 < 0.1


def test_numbers_of_elements_are_those_that_the_task_leaves(sampler: CrystalSampler) -> None:
    def numbers(**given: Any) -> set[int]:
        return set(sampler.draw_numbers(CrystalTask(**given), NOTHING, 200, torch.Generator().manual_seed(0)).tolist())

    assert numbers() <= set(range(1, 9)) and len(numbers()) > 3
    assert numbers(n_elements=(3, 4)) == {3, 4}
    assert numbers(chemical_system=frozenset([3, 26, 8])) == {3}
    assert numbers(allowed_elements=frozenset([11, 17])) == {1, 2}
    assert numbers(n_elements=(9, 10)) <= {9, 10}


def test_seeds_that_cannot_fulfil_the_task_are_told(sampler: CrystalSampler) -> None:
    for arguments in ({"space_groups": frozenset([62])}, {"composition": {11: 1, 17: 3}}, {"n_elements": (5, 6)}):
        with pytest.raises(ValueError, match="task.seeds: none of 6 fulfils"):
            sampler.draw(CrystalTask(seeds=seeds(), **arguments), NOTHING, 5, torch.Generator())


def test_settings_that_make_no_sense() -> None:
    for bad in ({"guidance": -1.0}, {"temperature": 0.0}, {"steps": 0}, {"source": 9}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            CrystalSamplerSettings(**bad)  # type: ignore[arg-type]
