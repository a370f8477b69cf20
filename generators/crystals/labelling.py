"""Hypothetical crystals judged by CHGNet, as a compact table with labels: what the build scripts write."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from data.frames import CRYSTAL_COLUMNS, to_frame
from data.full_symmetry import in_full_symmetry
from data.orbit_batch import OrbitBatch
from data.protostructure import crystal_key, labels_of
from generators.judging import JudgeWorkers, judged_batch, judged_formation_energies, write_parquet
from generators.oracles.chgnet_potential import SCALE
from generators.oracles.hull import fractions_of_batch
from generators.oracles.hull_tables import ENERGY, FAR_BELOW, LOWEST, chgnet_hull, reference_compounds
from generators.oracles.judge import JudgeSettings

LABELS = (ENERGY, "volume_per_atom", "magnetization_density", "bulk_modulus", "e_above_hull")
STORED = tuple(name for name in LABELS if name != "volume_per_atom")
"""Labels of a compact table; `data.exchanges.load_exchanges` finds the volume from the cell."""
_DIGITS = {"magnetization_density": 4, "bulk_modulus": 1}
_SHARD, _BY = 64, "- Drawn by"


def labelled(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """Formation energy and energy above the embedded hull beside what the judge measured.

    Args:
        frame: of `generators.judging.Workers.judge`, more columns allowed.

    Returns:
        The rows that are valid, each crystal in all the symmetry that it has (`data.full_symmetry`), with its
        ``crystal_key``, none of them a known compound or there twice; and how many others there were for which reason.
    """
    values = judged_formation_energies(frame)
    modulus = frame["bulk_modulus"].where(frame["bulk_modulus"] > 0)  # at a maximum, not a minimum
    frame = frame.assign(bulk_modulus=modulus)
    frame[ENERGY] = values
    usable = frame["valid"] & np.isfinite(values) & (values > LOWEST)
    reasons = Counter(frame["reason"].where(frame["reason"] != "", "no plausible energy")[~usable])
    good = frame[usable]
    above = chgnet_hull().e_above_hull(
        fractions_of_batch(judged_batch(good)), good[ENERGY].to_numpy(dtype=np.float64), SCALE
    )
    plausible = above >= FAR_BELOW
    if not plausible.all():
        reasons["far below the hull"] = int((~plausible).sum())
    good = with_full_symmetry(good.assign(e_above_hull=above)[plausible])
    known = good["crystal_key"].isin(reference_compounds()["crystal_key"])
    lowest = good[~known].sort_values(ENERGY, kind="stable").drop_duplicates("crystal_key").sort_index()
    reasons += {
        "relaxed to a known compound": int(known.sum()),
        "relaxed to one of the others": int((~known).sum()) - len(lowest),
    }
    return lowest, dict(+reasons)


def with_full_symmetry(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with each crystal in all the symmetry that it has (`data.full_symmetry`), and its ``crystal_key``."""
    crystals = in_full_symmetry(judged_batch(frame))
    columns = to_frame(OrbitBatch.from_crystals(crystals)).set_index(frame.index)
    return frame.assign(
        **{name: columns[name] for name in CRYSTAL_COLUMNS},
        crystal_key=[crystal_key(crystal) for crystal in crystals],
    )


def relaxed_by_judge(batch: OrbitBatch, folder: Path, workers: int) -> pd.DataFrame:
    """What CHGNet makes of drawn crystals, the smallest first; a killed run goes on in its folder."""
    batch = batch.select(torch.argsort(batch.n_atoms, stable=True))
    frames = []
    with (
        tqdm(total=len(batch), unit="crystal", smoothing=0.02, mininterval=5) as bar,
        JudgeWorkers(JudgeSettings(), workers) as judge,
    ):
        for i, rows in enumerate(torch.split(torch.arange(len(batch)), 2048)):
            part = OrbitBatch.from_crystals(batch.select(rows).to_crystals())
            frames.append(judge.judge(part, folder, f"part-{i:03d}", _SHARD, progress=lambda n, _: bar.update(n)))
    return pd.concat(frames, ignore_index=True).assign(parent="")


def compact(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns of a crystal and its labels in small types, after the columns ``parent`` and ``protostructure``.

    Alike ones are together. Fractional coordinates, strains and energies (eV/atom) are rounded to a thousandth, so that
    an energy above the hull of 0 is below 0.5 meV/atom; magnetization densities to 1e-4, bulk moduli to 0.1 GPa.
    """
    table = pd.DataFrame(
        {
            "parent": frame["parent"].astype(str),
            "protostructure": pd.Categorical(labels_of(judged_batch(frame))),
            "space_group": frame["space_group"].astype(np.uint8),
            "letters": frame["letters"].astype("category"),
            "atomic_numbers": [np.asarray(z, dtype=np.uint8) for z in frame["atomic_numbers"]],
            "coordinates": [np.asarray(u, dtype=np.float32).round(3) for u in frame["coordinates"]],
            "strain": [np.asarray(s, dtype=np.float32).round(3) for s in frame["strain"]],
            **{name: frame[name].astype(np.float32).round(_DIGITS.get(name, 3)) for name in STORED},
        }
    )
    return alike_together(table)


def alike_together(table: pd.DataFrame) -> pd.DataFrame:
    """Sorted by space group and positions, which makes the file a tenth smaller."""
    return table.sort_values(["space_group", "letters"], kind="stable").reset_index(drop=True)


def write_drawn(table: pd.DataFrame, output: Path, made_by: str, by: str, add: bool) -> None:
    """Write drawn crystals and their card (the same name, ``.md``).

    Args:
        table: of `compact`.
        output: Parquet file.
        made_by: how they are drawn and judged, for the card.
        by: who drew these; it follows ``- Drawn by`` there.
        add: keep the rows that the file has, and what its card says of who drew them.
    """
    card, drawn_by = output.with_suffix(".md"), [f"{_BY} {by}"]
    if add:
        table = pd.concat([pd.read_parquet(output), table], ignore_index=True)
        table["protostructure"] = pd.Categorical(table["protostructure"])
        table = alike_together(table)
        entries = re.split(r"\n(?=- )", card.read_text(encoding="utf-8").rstrip())
        drawn_by = [entry for entry in entries if entry.startswith(_BY)] + drawn_by
    write_parquet(table, output, small=True)
    lines = "\n".join(drawn_by)
    card.write_text(
        f"""# Card of {output.name}

- Made by {made_by}
  Relaxed within symmetry by CHGNet, then each written in all the symmetry that it has (`data/full_symmetry.py`).
{lines}
- Rows: {len(table):,}; what CHGNet puts more than {-FAR_BELOW:g} eV/atom below the hull is left out, as its error.
- **Labels are CHGNet's (0.3.0), not DFT's.** Energy above the embedded hull: {shares_above_hull(table)} eV/atom.
- Columns: as in exchanges.parquet ({", ".join(STORED)}), without parents.
""",
        encoding="utf-8",
    )


def shares_above_hull(frame: pd.DataFrame) -> str:
    """For cards: which share lies how high above the hull."""
    above = frame["e_above_hull"]
    return ", ".join(f"{(above <= limit).mean():.1%} at most {limit:g}" for limit in (0.0, 0.05, 0.1, 0.2))
