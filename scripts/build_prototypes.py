"""Build ``data/tables/prototypes.jsonl`` and ``docs/prototypes.md``: AFLOW's prototypes and some it lacks.

Run: ``python scripts/build_prototypes.py``. Structures come from pymatgen's AFLOW list (Mehl et al., Comput.
Mater. Sci. 136, S1 (2017)) and from ``data/tables/extra_prototypes.yaml``; readable names of the former from
``data/tables/prototype_names.yaml``.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pymatgen.core import Element, Lattice, Structure

from data.contact import covalent_radii
from data.protostructure import label_of
from data.prototypes import Prototype, PrototypeLibrary
from data.wyckoff import wyckoff_table

_ROOT = Path(__file__).parents[1]
_TABLES = _ROOT / "data" / "tables"
_STRUKTURBERICHT = re.compile(r"[A-L]\d*'?(_[a-z0-9]+)?")
_AS_IN_AFLOW = "_as_in_aflow"
_NO_NAME = {"alpha", "beta", "gamma"}
_SHORTEST_RATIO = 0.6


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def aflow(names: dict[str, list[str]]) -> list[Prototype]:
    """One prototype per AFLOW entry.

    Args:
        names: ``"label formula"`` -> name and further names.

    Raises:
        ValueError: a key of ``names`` that no entry has.
    """
    from pymatgen.analysis.prototypes import AFLOW_PROTOTYPE_LIBRARY

    entries = [
        ({k: "" if v in (None, "None") else v for k, v in entry["tags"].items()}, entry["snl"].structure)
        for entry in AFLOW_PROTOTYPE_LIBRARY
    ]
    symbols = Counter(tags["strukturbericht"] for tags, _ in entries)
    keys = {f"{tags['aflow']} {structure.composition.reduced_formula}" for tags, structure in entries}
    stray = sorted(set(names) - keys)
    if stray:
        raise ValueError(f"prototype_names.yaml: no AFLOW entry {stray}")
    result: list[Prototype] = []
    used = {name for row in names.values() for name in row}
    for tags, structure in entries:
        formula = structure.composition.reduced_formula
        key = f"{tags['aflow']} {formula}"
        symbol = tags["strukturbericht"]
        known = names.get(key) or [_default_name(tags, structure, used)]
        used.update(known)
        aliases = list(known[1:])
        fits = symbol == "A15" or symbol.startswith("A") == (len(structure.composition) == 1)
        fits = fits and not known[0].endswith(_AS_IN_AFLOW)
        if fits and _STRUKTURBERICHT.fullmatch(symbol) and symbols[symbol] == 1 and symbol not in known:
            aliases.append(symbol)
        source = f"AFLOW {tags['aflow']} in pymatgen"
        result.append(Prototype.from_structure(known[0], structure, source, aliases=aliases))
    return result


def _default_name(tags: dict[str, str], structure: Structure, used: set[str]) -> str:
    mineral, label = _slug(tags["mineral"]), tags["aflow"]
    group = _slug(tags["strukturbericht"]) or "_".join(label.split("_")[1:3]).lower()
    if len(structure.composition) == 1:
        base = Element(structure.composition.reduced_formula.rstrip("0123456789")).long_name.lower()
        options = [mineral, f"{base}_{group}", f"{base}_{_slug(label)}"]
        if mineral in _NO_NAME or len(mineral) > 25:
            options = options[1:]
    else:
        base = _slug(structure.composition.reduced_formula)
        options = [mineral, base, f"{base}_{group}", f"{base}_{_slug(label)}"]
        if len(mineral) > 25:
            options = options[1:]
    return next(name for name in options if name and name not in used)


def _structure(space_group: int, lattice: list[float], sites: list[list[Any]]) -> Structure:
    """Conventional cell in the standard setting of `data.wyckoff` (origin choice 2)."""
    table = wyckoff_table()
    start, n = int(table.position_start[space_group]), int(table.n_positions[space_group])
    general = table.images(start + n - 1).numpy()
    to_conventional = table.primitive_rows[space_group].numpy()
    grid = np.stack(np.meshgrid(*[np.arange(-1, 2)] * 3, indexing="ij"), -1).reshape(-1, 3)
    centering = np.unique(np.round(np.mod(grid @ to_conventional, 1.0), 6) % 1.0, axis=0)
    species, coords = [], []
    for element, _, *xyz in sites:
        points = general[:, :, :3] @ np.asarray(xyz, dtype=float) + general[:, :, 3]
        images = np.mod((points[:, None] + centering).reshape(-1, 3), 1.0)
        kept: list[np.ndarray] = []
        for point in images:
            gaps = [point - other for other in kept]
            if all(np.abs(gap - np.round(gap)).max() > 1e-3 for gap in gaps):
                kept.append(point)
        species += [element] * len(kept)
        coords += kept
    return Structure(Lattice.from_parameters(*lattice), species, coords)


def extra(rows: list[dict[str, Any]]) -> list[Prototype]:
    """The hand-collected ones.

    Raises:
        ValueError: the data do not give the stated space group and Wyckoff letters, or atoms overlap.
    """
    result = []
    radii = covalent_radii()
    for row in rows:
        name, group, sites = row["name"], row["space_group"], row["sites"]
        structure = _structure(group, row["lattice"], sites)
        prototype = Prototype.from_structure(name, structure, row["source"], aliases=row.get("aliases", ()))
        stated = label_of(group, tuple(s[1] for s in sites), tuple(s[0] for s in sites))
        if prototype.label != stated:
            raise ValueError(f"{name}: stated {stated}, found {prototype.label}")
        center, neighbour, _, distance = structure.get_neighbor_list(4.0)
        sizes = np.array([float(radii[site.specie.Z]) for site in structure])
        ratio = (distance / (sizes[center] + sizes[neighbour])).min()
        if ratio < _SHORTEST_RATIO:
            raise ValueError(f"{name}: atoms overlap, shortest distance {ratio:.2f} of the radii's sum")
        result.append(prototype)
    return result


def document(library: PrototypeLibrary) -> str:
    """The list for people, Markdown."""
    symbols = wyckoff_table().symbols
    lines = [
        "# Prototypes",
        "",
        "Made by `python scripts/build_prototypes.py`; do not edit by hand.",
        "",
        f"{len(library)} prototypes with {len({p.label for p in library})} different protostructure labels. "
        "Wherever a prototype is asked for, any of its names or its label will do. Prototypes of one label "
        "differ in their free coordinates. Those called `..._as_in_aflow` have atoms too close in the copy of "
        "AFLOW's list that was used; the corrected one has the name without it, or another. "
        'Your own: `prototype_library().with_files(["my.cif"])`.',
        "",
        "| name | other names | label | space group | example | atoms | elements | source |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for p in sorted(library, key=lambda p: p.name):
        cells = (
            p.name, ", ".join(p.aliases), p.label, f"{symbols[p.space_group]} ({p.space_group})", p.example,
            str(p.n_atoms), str(p.n_species), p.source,
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=_TABLES / "prototypes.jsonl")
    parser.add_argument("--document", type=Path, default=_ROOT / "docs" / "prototypes.md")
    arguments = parser.parse_args()
    names = yaml.safe_load((_TABLES / "prototype_names.yaml").read_text(encoding="utf-8"))
    rows = yaml.safe_load((_TABLES / "extra_prototypes.yaml").read_text(encoding="utf-8"))
    library = PrototypeLibrary((*aflow(names), *extra(rows)))
    library.save(arguments.output)
    arguments.document.write_text(document(library), encoding="utf-8")
    print(f"{arguments.output}: {len(library)} prototypes, {len({p.label for p in library})} protostructures")


if __name__ == "__main__":
    main()
