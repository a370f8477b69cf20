"""Build ``data/tables/wyckoff.npz``: Wyckoff positions and normalizer cosets of the 230 space groups.

The coordinates come from pyxtal (International Tables A, standard settings: unique axis b, hexagonal
axes, origin choice 2); nothing is typed by hand. Run: ``python scripts/build_wyckoff_tables.py``.
Needs pyxtal (``pip install raremat[dev]``).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

GENERIC = np.array([0.1234567, 0.2718281, 0.3819660])
CENTERING_PRIMITIVE_ROWS = {
    "P": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "A": [[1, 0, 0], [0, 0.5, -0.5], [0, 0.5, 0.5]],
    "C": [[0.5, 0.5, 0], [-0.5, 0.5, 0], [0, 0, 1]],
    "I": [[-0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.5, 0.5, -0.5]],
    "F": [[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]],
    "R": [[2 / 3, 1 / 3, 1 / 3], [-1 / 3, 1 / 3, 1 / 3], [-1 / 3, -2 / 3, 1 / 3]],
}


def _is_integer(x: NDArray[np.float64], tolerance: float = 1e-5) -> bool:
    return bool(np.all(np.abs(x - np.round(x)) < tolerance))


def _parse(text: str) -> NDArray[np.float64]:
    from pymatgen.core.operations import SymmOp

    return np.asarray(SymmOp.from_xyz_str(text).affine_matrix[:3, :], dtype=np.float64)


def build() -> dict[str, NDArray[np.generic]]:
    from pyxtal.symmetry import Group

    columns: dict[str, list[object]] = {
        name: []
        for name in (
            "space_group", "letter", "multiplicity", "site_symmetry", "free", "n_operations",
            "coset_count",
        )
    }  # fmt: skip
    operations: list[NDArray[np.float64]] = []
    coset_affine: list[NDArray[np.float64]] = []
    coset_letters: list[list[int]] = []
    group_rows = []
    for number in range(1, 231):
        group = Group(number)
        centering = group.symbol[0]
        primitive = np.array(CENTERING_PRIMITIVE_ROWS[centering], dtype=np.float64)
        to_primitive: NDArray[np.float64] = np.asarray(np.linalg.inv(primitive), dtype=np.float64)
        positions = sorted(group, key=lambda w: w.index, reverse=True)  # a first
        images = []
        for wyckoff in positions:
            affine = np.array([op.affine_matrix[:3, :] for op in wyckoff.ops])
            kept: list[int] = []
            points = affine[:, :, :3] @ GENERIC + affine[:, :, 3]
            for k, point in enumerate(points):
                if not any(_is_integer((point - points[j]) @ to_primitive) for j in kept):
                    kept.append(k)
            expected = wyckoff.multiplicity * abs(np.linalg.det(primitive))
            if len(kept) != round(expected):
                raise ValueError(f"{number}{wyckoff.letter}: {len(kept)} primitive images, expected {expected}")
            images.append(affine[kept])
            columns["space_group"].append(number)
            columns["letter"].append(wyckoff.letter)
            columns["multiplicity"].append(wyckoff.multiplicity)
            wyckoff.get_site_symmetry()
            columns["site_symmetry"].append(wyckoff.site_symm)
            columns["free"].append(np.any(np.abs(affine[0, :, :3]) > 1e-9, axis=0))
            columns["n_operations"].append(len(kept))
            operations.append(affine[kept])
        rotations = images[-1][:, :, :3]
        stacked = (rotations - np.eye(3)).reshape(-1, 3)
        polar = np.array([np.allclose(stacked @ axis, 0) for axis in np.eye(3)])
        cosets = [_parse(t.strip()) for t in group.get_alternatives()["Coset Representative"]]
        n_valid = 0
        for coset in cosets:
            letters = [_image_letter(coset, images, k, to_primitive) for k in range(len(images))]
            if -1 in letters or len(set(letters)) != len(letters):
                print(f"space group {number}: coset {coset.tolist()} does not permute positions, left out")
                continue
            coset_affine.append(coset)
            coset_letters.append(letters)
            n_valid += 1
        group_rows.append((number, group.symbol, centering, polar, len(positions), n_valid, primitive))
    return {
        "symbols": np.array([row[1] for row in group_rows]),
        "centering": np.array([row[2] for row in group_rows]),
        "polar": np.array([row[3] for row in group_rows]),
        "n_positions": np.array([row[4] for row in group_rows], dtype=np.int32),
        "n_cosets": np.array([row[5] for row in group_rows], dtype=np.int32),
        "primitive": np.array([row[6] for row in group_rows]),
        "space_group": np.array(columns["space_group"], dtype=np.int32),
        "letter": np.array(columns["letter"]),
        "multiplicity": np.array(columns["multiplicity"], dtype=np.int32),
        "site_symmetry": np.array(columns["site_symmetry"]),
        "free": np.array(columns["free"]),
        "n_operations": np.array(columns["n_operations"], dtype=np.int32),
        "operations": np.concatenate(operations),
        "coset_affine": np.array(coset_affine),
        "coset_letters": np.array([k for row in coset_letters for k in row], dtype=np.int16),
    }


def _image_letter(
    coset: NDArray[np.float64],
    images: list[NDArray[np.float64]],
    k: int,
    to_primitive: NDArray[np.float64],
) -> int:
    """Index of the position onto which ``coset`` carries position ``k`` of the same group, or -1."""
    first = images[k][0]
    point = coset[:, :3] @ (first[:, :3] @ GENERIC + first[:, 3]) + coset[:, 3]
    shifts = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), -1).reshape(-1, 3)
    lattice = shifts @ np.linalg.inv(to_primitive)
    for j, candidate in enumerate(images):
        if len(candidate) != len(images[k]):
            continue
        for op in candidate:
            # On the affine subspace: exists u with R u + t = point + lattice vector.
            residual = point + lattice - op[:, 3]
            solved = residual @ np.linalg.pinv(op[:, :3]).T @ op[:, :3].T
            if np.any(np.all(np.abs(solved - residual) < 1e-5, axis=1)):
                return j
    return -1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).parents[1] / "data" / "tables" / "wyckoff.npz"
    parser.add_argument("--output", type=Path, default=default)
    path = parser.parse_args().output
    tables = build()
    np.savez_compressed(path, **tables)  # type: ignore[arg-type]
    print(f"{path}: {len(tables['letter'])} Wyckoff positions, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
