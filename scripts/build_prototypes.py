"""Build ``data/tables/prototypes.jsonl``: AFLOW's prototypes as pymatgen carries them, and the extra ones.

Run: ``python scripts/build_prototypes.py``. Structures come from pymatgen's AFLOW list (Mehl et al., Comput.
Mater. Sci. 136, S1 (2017)) and from ``data/tables/extra_prototypes.yaml``.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pymatgen.core import Lattice, Structure

from data.prototypes import Prototype, PrototypeLibrary
from data.wyckoff import wyckoff_table

READABLE = {
    "AB_cF8_225_a_b": "rocksalt",
    "AB_cP2_221_b_a": "cscl",
    "AB_cF8_216_c_a": "zincblende",
    "AB2_cF12_225_a_c": "fluorite",
    "AB3_cP4_221_a_c": "cu3au",
    "AB_hP4_186_b_b": "wurtzite",
    "AB_hP4_194_c_a": "nias",
    "AB2_hP3_164_a_d": "cdi2",
    "AB2_hP3_191_a_d": "alb2",
    "ABC_cF12_216_b_c_a": "half_heusler",
    "AB2C_cF16_225_a_c_b": "full_heusler",
    "AB3C_cP5_221_a_c_b": "perovskite",
    "ABC2_tI16_122_a_b_d": "chalcopyrite",
    "ABC_tP6_129_c_a_c": "pbfcl",
    "ABCD_tP8_129_c_b_a_c": "zrcusias",
    "A2BC4_cF56_227_d_a_e": "spinel",
    "ABC2_hP8_194_d_a_f": "max_211",
    "AB3C4_hP16_194_c_af_ef": "max_413",
    "AB_tP2_123_a_d": "cuau",
    "A2B_tP6_136_f_a": "rutile",
    "ABC2_hR4_166_a_b_c": "caswellsilverite",
    "A2B_cF24_227_d_a": "laves_c15",
    "AB2_hP12_194_f_ah": "laves_c14",
    "AB2_hP24_194_ef_fgh": "laves_c36",
    "AB3_cF16_225_a_bc": "d0_3",
    "AB5_hP6_191_a_cg": "cacu5",
    "A3B_cP8_223_c_a": "a15",
    "AB2_hP6_194_c_f": "molybdenite_2h",
    "A4BC_tI24_141_h_b_a": "zircon",
    "AB3C_oP20_62_c_cd_a": "orthorhombic_perovskite",
    "AB2_tI6_139_a_e": "mosi2",
    "A2BC4D_tI16_121_d_a_i_b": "stannite",
}


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def aflow() -> list[Prototype]:
    """One prototype per AFLOW entry; names from `READABLE`, the mineral, or the label."""
    from pymatgen.analysis.prototypes import AFLOW_PROTOTYPE_LIBRARY

    result: list[Prototype] = []
    used: set[str] = set()
    for entry in AFLOW_PROTOTYPE_LIBRARY:
        label, tags = entry["tags"]["aflow"], entry["tags"]
        mineral = _slug(tags["mineral"] or "")
        name = READABLE.get(label, "")
        if not name or name in used:
            name = mineral if 3 < len(mineral) < 40 else _slug(label)
        if name in used:
            name = _slug(label)
        count = 2
        while name in used:
            name = f"{_slug(label)}_{count}"
            count += 1
        used.add(name)
        structure = entry["snl"].structure
        result.append(Prototype.from_structure(name, structure, f"AFLOW {label} in pymatgen"))
    return result


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


def extra(path: Path) -> list[Prototype]:
    """The hand-collected ones. Raises ValueError where the data do not give the stated symmetry."""
    result = []
    for row in yaml.safe_load(path.read_text(encoding="utf-8")):
        structure = _structure(row["space_group"], row["lattice"], row["sites"])
        prototype = Prototype.from_structure(row["name"], structure, row["source"])
        letters = sorted(site[1] for site in row["sites"])
        if prototype.space_group != row["space_group"] or len(prototype.letters) != len(letters):
            raise ValueError(
                f"{row['name']}: written as {row['space_group']} {letters}, "
                f"found {prototype.space_group} {sorted(prototype.letters)}"
            )
        result.append(prototype)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tables = Path(__file__).parents[1] / "data" / "tables"
    parser.add_argument("--output", type=Path, default=tables / "prototypes.jsonl")
    path = parser.parse_args().output
    library = PrototypeLibrary((*aflow(), *extra(tables / "extra_prototypes.yaml")))
    library.save(path)
    print(f"{path}: {len(library)} prototypes, {len({p.label for p in library})} protostructures")


if __name__ == "__main__":
    main()
