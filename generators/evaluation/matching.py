"""Which crystals are the same: pymatgen's StructureMatcher among crystals of one formula."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

SETTINGS = "pymatgen StructureMatcher, ltol=0.2, stol=0.3, angle_tol=5, primitive cells, scaled volumes"


def first_equal(formulas: Sequence[str], structures: Sequence[Structure]) -> list[int]:
    """Per structure the index of the first one that is the same crystal; its own index if it is the first."""
    matcher = StructureMatcher()
    result = list(range(len(structures)))
    leaders: dict[str, list[int]] = defaultdict(list)
    for i, (formula, structure) in enumerate(zip(formulas, structures, strict=True)):
        same = next((j for j in leaders[formula] if matcher.fit(structures[j], structure)), None)
        if same is None:
            leaders[formula].append(i)
        else:
            result[i] = same
    return result


def same_crystals(first: Sequence[Structure], second: Sequence[Structure]) -> list[bool]:
    """Whether the two structures of each pair are the same crystal."""
    matcher = StructureMatcher()
    return [bool(matcher.fit(a, b)) for a, b in zip(first, second, strict=True)]


def matches(
    formulas: Sequence[str],
    structures: Sequence[Structure],
    reference_formulas: Sequence[str],
    references: Sequence[Structure],
) -> list[list[tuple[int, float]]]:
    """Per structure the references that it matches, closest first, with normalised root mean square distances.

    The distance is in units of (volume / atoms)^(1/3), as in published match rates.
    """
    matcher = StructureMatcher()
    by_formula: dict[str, list[int]] = defaultdict(list)
    for i, formula in enumerate(reference_formulas):
        by_formula[formula].append(i)
    result: list[list[tuple[int, float]]] = []
    for formula, structure in zip(formulas, structures, strict=True):
        found = []
        for i in by_formula.get(formula, ()):
            distance = matcher.get_rms_dist(references[i], structure)
            if distance is not None:
                found.append((i, float(distance[0])))
        result.append(sorted(found, key=lambda pair: pair[1]))
    return result
