"""The hull against hand-made cases and pymatgen's phase diagram."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition, Element

from data.crystal import Crystal
from data.orbit_batch import OrbitBatch
from generators.oracles.hull import Hull, fractions_of, fractions_of_batch

SCALE = "test"


def hull(**energies: float) -> Hull:
    return Hull(fractions_of(energies), np.array(list(energies.values())), SCALE, elements=[3, 8, 9, 11, 17])


def random_compounds(elements: list[str], n: int, seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    found: dict[str, float] = {}
    while len(found) < n:
        some = rng.choice(elements, size=rng.integers(2, len(elements) + 1), replace=False)
        formula = Composition({e: int(rng.integers(1, 13)) for e in some}).reduced_formula
        found[formula] = float(rng.uniform(-2, 0.2))
    return found


def test_a_binary_by_hand() -> None:
    # Tie line from Na (0) to NaCl (-2 at one half): at Na3Cl it stands at -1.
    line = hull(NaCl=-2.0, Na3Cl=-0.7)
    energy = line.e_above_hull(fractions_of(["Na3Cl", "NaCl", "NaCl3", "Na"]), np.array([-0.7, -2.0, -1.5, 0.1]), SCALE)
    assert energy == pytest.approx([0.3, 0.0, -0.5, 0.1])
    assert line.decomposition(fractions_of(["Na3Cl"]))[0] == pytest.approx({"Na": 0.5, "NaCl": 0.5})
    assert line.decomposition_energy(fractions_of(["NaCl", "Na3Cl"]), np.array([-2.0, -0.7]), SCALE) == pytest.approx(
        [-2.0 + 0.7 * 2 / 3, 0.3]  # without NaCl the line goes from Na3Cl to Cl
    )


def test_an_element_may_have_a_form_below_its_reference() -> None:
    line = hull(Na=-0.1, NaCl=-2.0)
    assert line.hull_energy(fractions_of(["Na", "Cl", "Na3Cl"])) == pytest.approx([-0.1, 0.0, -1.05])


def test_lowest_of_several_entries_counts_and_unstable_ones_never() -> None:
    fractions = fractions_of(["NaCl", "Na2Cl2", "Na3Cl"])
    both = Hull(fractions, np.array([-1.0, -2.0, 0.5]), SCALE)
    assert both.hull_energy(fractions) == pytest.approx([-2.0, -2.0, -1.0])


@pytest.mark.parametrize(
    "elements", [["Na", "Cl"], ["Li", "Na", "O"], ["Li", "Na", "O", "F"], ["Li", "Na", "O", "F", "Cl"]]
)
def test_same_as_pymatgen(elements: list[str]) -> None:
    compounds = random_compounds(elements, 12 * len(elements), seed=len(elements))
    references = hull(**compounds)
    entries = [PDEntry(Composition(f), e * Composition(f).num_atoms) for f, e in compounds.items()]
    diagram = PhaseDiagram([*entries, *(PDEntry(Composition(e), 0.0) for e in elements)])
    queries = list(random_compounds(elements, 40, seed=99))
    expected = [diagram.get_hull_energy_per_atom(Composition(f)) for f in queries]
    assert references.hull_energy(fractions_of(queries)) == pytest.approx(expected, abs=1e-9)
    stable = [e.composition.reduced_formula for e in diagram.stable_entries if not e.is_element]
    depth = references.decomposition_energy(fractions_of(stable), np.array([compounds[f] for f in stable]), SCALE)
    by_formula = {e.composition.reduced_formula: e for e in diagram.stable_entries}
    assert depth == pytest.approx(
        [diagram.get_phase_separation_energy(by_formula[f], tols=[1e-8]) for f in stable], abs=1e-6
    )


def test_planes_and_linear_programme_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    elements = ["Li", "Na", "O", "F", "Cl", "S"]
    compounds, queries = random_compounds(elements, 60, 1), fractions_of(random_compounds(elements, 40, 2))
    by_planes = Hull(fractions_of(compounds), np.array(list(compounds.values())), SCALE).hull_energy(queries)
    monkeypatch.setattr("generators.oracles.hull.MAX_QHULL_ELEMENTS", 1)
    by_programme = Hull(fractions_of(compounds), np.array(list(compounds.values())), SCALE).hull_energy(queries)
    assert by_planes == pytest.approx(by_programme, abs=1e-9)


def test_decomposition_has_the_composition_and_the_energy() -> None:
    elements = ["Li", "Na", "O", "F"]
    compounds = random_compounds(elements, 40, 3)
    references, queries = hull(**compounds), fractions_of(random_compounds(elements, 20, 4))
    energy = {**compounds, **dict.fromkeys(["Li", "Na", "O2", "F2"], 0.0)}
    for query, parts, value in zip(
        queries, references.decomposition(queries), references.hull_energy(queries), strict=True
    ):
        shares = fractions_of(parts)
        assert np.array(list(parts.values())) @ shares == pytest.approx(query, abs=1e-6)
        assert sum(energy[name] * share for name, share in parts.items()) == pytest.approx(value, abs=1e-6)


def test_two_scales_never_meet() -> None:
    with pytest.raises(ValueError, match="two scales never meet"):
        hull(NaCl=-2.0).e_above_hull(fractions_of(["NaCl"]), np.array([-2.0]), "MP 2020")


def test_unknown_elements_have_no_hull_and_bad_formulas_are_named() -> None:
    assert np.isnan(hull(NaCl=-2.0).hull_energy(fractions_of(["NaBr", "NaCl"]))).tolist() == [True, False]
    with pytest.raises(ValueError, match="formula='Xyz2'"):
        fractions_of(["Xyz2"])
    with pytest.raises(ValueError, match="must be finite"):
        Hull(fractions_of(["NaCl"]), np.array([np.nan]), SCALE)


def test_fractions_of_crystals_count_multiplicities() -> None:
    fluorite = Crystal(225, ("a", "c"), (20, 9), ((0, 0, 0), (0, 0, 0)), (0.0,) * 6)
    rocksalt = Crystal(225, ("a", "b"), (11, 17), ((0, 0, 0), (0, 0, 0)), (0.0,) * 6)
    found = fractions_of_batch(OrbitBatch.from_crystals([fluorite, rocksalt]))
    assert found == pytest.approx(fractions_of(["CaF2", "NaCl"]))
    assert found[0, Element("F").Z] == pytest.approx(2 / 3)
