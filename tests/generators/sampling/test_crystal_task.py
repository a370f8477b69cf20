"""Tasks: what can never hold is one clear line before anything is drawn."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from data.orbit_batch import OrbitBatch
from data.prototypes import prototype_library
from generators.sampling.crystal_task import CRYSTAL_SYSTEMS, CrystalTask, reduced

TIO2 = {22: 1, 8: 2}
MISTAKES = [
    ({"n_atoms": (3, 2)}, r"n_atoms=\[3, 2\]: give two numbers"),
    ({"n_atoms": (0, 2)}, r"n_atoms=\[0, 2\]"),
    ({"n_atoms": (1, 65)}, "at most 64 atoms in the primitive cell"),
    ({"n_elements": (2, 1)}, r"n_elements=\[2, 1\]"),
    ({"space_groups": frozenset([231])}, "space_groups=231: does not exist"),
    ({"max_orbits": 33}, "max_orbits=33"),
    ({"keep_elements": 1.5}, "keep_elements=1.5"),
    ({"noise": 0.0}, "noise=0.0"),
    ({"n_atoms": (3, 3), "space_groups": frozenset([227])}, r"n_atoms=\[3, 3\]: no crystal of space group 227"),
    ({"n_atoms": (5, 7), "space_groups": frozenset([230])}, "no crystal of space group 230"),
    ({"composition": TIO2, "n_atoms": (4, 5)}, "no crystal of space group any has such a primitive cell and this"),
    ({"composition": TIO2, "formula_units": (1, 1), "space_groups": frozenset([62])}, "and this composition"),
    ({"composition": {3: 1, 8: 1, 9: 1}, "formula_units": (1, 1), "space_groups": frozenset([225])}, "and this comp"),
    ({"composition": TIO2, "chemical_system": frozenset([22, 9])}, "contradicts the composition"),
    ({"composition": TIO2, "allowed_elements": frozenset([8])}, "Ti is asked for but not allowed"),
    ({"chemical_system": frozenset([3, 8]), "n_elements": (3, 4)}, "2 elements are asked for"),
    ({"allowed_elements": frozenset([3, 8]), "n_elements": (3, 4)}, "2 are left for"),
    ({"composition": {8: 0}}, "counts must be 1 or more"),
    ({"n_elements": (5, 9), "n_atoms": (1, 4)}, "no crystal of space group any"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[str(i) for i in range(len(MISTAKES))])
def test_what_can_never_hold_is_an_error(arguments: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=message) as error:
        CrystalTask(**arguments)
    assert "\n" not in str(error.value)


def test_elements_that_the_model_does_not_know() -> None:
    task = CrystalTask(chemical_system=frozenset([3, 84]))
    with pytest.raises(ValueError, match="elements=Po: the model was not trained on it, it knows Li O"):
        task.element_mask([3, 8])
    mask = CrystalTask(allowed_elements=frozenset([3, 8])).element_mask([3, 8, 9])
    assert mask.nonzero().squeeze(-1).tolist() == [3, 8]


def test_atom_counts_of_a_composition_are_multiples() -> None:
    task = CrystalTask(composition=TIO2, formula_units=(2, 5), n_atoms=(1, 14))
    assert task.atom_counts().nonzero().squeeze(-1).tolist() == [6, 9, 12]
    assert task.required == frozenset(TIO2)
    assert reduced({22: 4, 8: 8}) == TIO2


def test_crystal_systems_are_all_space_groups() -> None:
    ranges = [range(low, high + 1) for low, high in CRYSTAL_SYSTEMS.values()]
    assert [g for r in ranges for g in r] == list(range(1, 231))


def test_fulfilled_knows_right_from_wrong() -> None:
    names = {"perovskite": [20, 22, 8], "rocksalt": [11, 17], "fluorite": [20, 9]}
    crystals = OrbitBatch.from_crystals([prototype_library().get(n).crystal(z) for n, z in names.items()])
    formulas = [c.reduced_formula for c in crystals.to_crystals()]

    def fit(task: CrystalTask) -> set[str]:
        return {f for f, fine in zip(formulas, task.fulfilled(crystals).tolist(), strict=True) if fine}

    perovskite, rocksalt, fluorite = formulas
    assert fit(CrystalTask()) == set(formulas)
    assert fit(CrystalTask(space_groups=frozenset([225]))) == {rocksalt, fluorite}
    assert fit(CrystalTask(n_atoms=(3, 5))) == {perovskite, fluorite}
    assert fit(CrystalTask(n_elements=(2, 2))) == {rocksalt, fluorite}
    assert fit(CrystalTask(composition={11: 1, 17: 1})) == {rocksalt}
    assert fit(CrystalTask(composition={11: 1, 17: 1}, formula_units=(2, 3))) == set()
    assert fit(CrystalTask(chemical_system=frozenset([20, 22, 8]))) == {perovskite}
    assert fit(CrystalTask(allowed_elements=frozenset([11, 17, 20]))) == {rocksalt}
    assert fit(CrystalTask(max_orbits=2)) == {rocksalt, fluorite}


def test_leaders_tie_the_orbits_of_one_species(random_batch: Callable[..., OrbitBatch]) -> None:
    seeds = random_batch(30, seed=1, elements=(3, 8))
    leaders = CrystalTask(seeds=seeds).leaders(seeds)
    same = seeds.atomic_number.gather(1, leaders) == seeds.atomic_number
    assert bool(same[seeds.mask].all())
    n_leading = ((leaders == torch.arange(leaders.shape[1])) & seeds.mask).sum(1)
    assert n_leading.tolist() == [len(set(c.atomic_numbers)) for c in seeds.to_crystals()]
    free = CrystalTask(seeds=seeds, tied=False).leaders(seeds)
    assert torch.equal(free, torch.arange(leaders.shape[1]).expand_as(free))
