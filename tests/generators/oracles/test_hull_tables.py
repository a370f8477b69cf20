"""The embedded hulls: what is in them, and what may stand beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data.decorations import load_decorations
from generators.oracles.chgnet_potential import SCALE
from generators.oracles.hull import fractions_of, fractions_of_batch
from generators.oracles.hull_tables import ENERGY, chgnet_hull, known_hull, read_hull, reference_compounds


def known_rows() -> tuple[np.ndarray, np.ndarray]:
    table = reference_compounds().dropna(subset=[ENERGY]).iloc[::20]
    table = table[table[ENERGY] > -6]
    return fractions_of(table["formula"]), table[ENERGY].to_numpy(dtype=np.float64)


def test_no_known_compound_lies_below_the_known_hull_and_the_embedded_one_is_never_above_it() -> None:
    fractions, energy = known_rows()
    known = known_hull().e_above_hull(fractions, energy, SCALE)
    embedded = chgnet_hull().e_above_hull(fractions, energy, SCALE)
    assert known.min() > -1e-6
    assert (embedded >= known - 1e-9).all()
    # Hypothetical compounds push some known ones off the hull: the two hulls are not the same.
    on_hull = [(above <= 1e-3).mean() for above in (known, embedded)]
    assert on_hull[0] > on_hull[1] + 0.01


def test_known_formulas_without_a_structure_are_on_the_known_hull() -> None:
    """Sesquioxides, a nitride and iodides that every hull must have; published formation energies in eV/atom."""
    published = {"Y2O3": -3.9, "Gd2O3": -3.8, "GdN": -1.8, "NdI3": -1.7, "ErI3": -1.6}
    hull = known_hull().hull_energy(fractions_of(list(published)))
    assert np.abs(hull - np.array(list(published.values()))).max() < 0.35


def test_decorations_belong_to_the_embedded_hull_only() -> None:
    decorations = load_decorations()
    rows = np.arange(0, len(decorations.batch), 50).tolist()
    energy = decorations.properties[ENERGY].double().numpy()[rows]
    fractions = fractions_of_batch(decorations.batch)[rows]
    assert chgnet_hull().e_above_hull(fractions, energy, SCALE).min() > -1e-5
    assert known_hull().e_above_hull(fractions, energy, SCALE).min() < -0.05


def test_words_stand_for_the_embedded_hulls() -> None:
    fractions, _ = known_rows()
    fractions = fractions[:200]
    for word, hull in (("known", known_hull()), ("embedded", chgnet_hull())):
        assert read_hull([Path(word)], SCALE).hull_energy(fractions) == pytest.approx(hull.hull_energy(fractions))


def test_a_table_beside_a_word_is_their_lower_envelope(tmp_path: Path) -> None:
    own = tmp_path / "own.csv"
    own.write_text(f"formula,{ENERGY}\nNaCl,-3.5\n")
    both = read_hull([Path("known"), own], SCALE)
    salts = fractions_of(["NaCl", "KCl"])
    assert both.hull_energy(salts) == pytest.approx([-3.5, known_hull().hull_energy(salts)[1]])


def test_words_are_on_the_scale_of_the_judge() -> None:
    with pytest.raises(ValueError, match="two scales never meet"):
        read_hull([Path("known")], "MP 2020")
