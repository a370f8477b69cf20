"""From crystals to the table of single crystals and the figures of merit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pymatgen.core import Composition, Structure
from tqdm import tqdm

from data.cells import decode
from data.dataset import CrystalDataset
from data.full_symmetry import RELAXED_SYMPREC, in_full_symmetry
from data.orbit_batch import OrbitBatch
from data.protostructure import crystal_key, protostructure_label
from generators.evaluation.matching import first_equal, matches, same_crystals
from generators.evaluation.metrics import Figure, distances, summarise
from generators.evaluation.samples import Samples, displacement, shortest_distance, without_symmetry
from generators.judging import JudgeWorkers, PhononWorkers, judged_batch, judged_formation_energies
from generators.oracles.chgnet_potential import SCALE
from generators.oracles.hull import Hull, fractions_of_batch
from generators.oracles.hull_tables import FAR_BELOW
from generators.screening.charge_balance import balanced_or_alloy, charge_balanced

ENERGY = "formation_energy_per_atom"
MIN_DISTANCE = 0.5
STABLE = 1e-3
PHONON_SHARD = 4


@dataclass(frozen=True, eq=False)
class Reference:
    """Known crystals, for novelty and distances.

    Attributes:
        formulas: reduced formulas.
        keys: crystal keys.
        prototypes: protostructure labels.
        quantities: columns for Wasserstein distances.
        structures: for matching, with ``structure_formulas``; empty if only labels are known.
    """

    formulas: frozenset[str]
    keys: frozenset[str]
    prototypes: frozenset[str]
    quantities: dict[str, NDArray[np.float64]]
    structures: tuple[Structure, ...] = ()
    structure_formulas: tuple[str, ...] = ()

    @classmethod
    def from_table(cls, table: pd.DataFrame) -> Reference:
        """From `generators.oracles.hull_tables.reference_compounds`."""
        compositions = [Composition(f) for f in table["formula"]]
        volume = table["volume_per_atom"].to_numpy(dtype=np.float64)
        return cls(
            frozenset(table["formula"]),
            frozenset(table["crystal_key"]),
            frozenset(table["protostructure"]),
            {
                "density": density(compositions, volume),
                "elements_per_formula": np.array([len(c) for c in compositions], dtype=np.float64),
                ENERGY: table[ENERGY].to_numpy(dtype=np.float64),
            },
        )

    @classmethod
    def from_dataset(cls, dataset: CrystalDataset) -> Reference:
        """From structures of the user (no energies)."""
        crystals = dataset.batch.to_crystals()
        cells = decode(dataset.batch)
        formulas = tuple(c.reduced_formula for c in crystals)
        compositions = [c.composition for c in crystals]
        return cls(
            frozenset(formulas),
            frozenset(dataset.keys()),
            frozenset(protostructure_label(c) for c in crystals),
            {
                "density": density(compositions, (cells.volume / cells.n_atoms).numpy()),
                "elements_per_formula": np.array([len(c) for c in compositions], dtype=np.float64),
            },
            tuple(cells.structures()),
            formulas,
        )


def density(compositions: list[Composition], volume_per_atom: NDArray[np.float64]) -> NDArray[np.float64]:
    """[N] g/cm^3."""
    mass = np.array([float(c.weight) / c.num_atoms for c in compositions])
    return mass / volume_per_atom * 1.66053906660


@dataclass(frozen=True)
class Protocol:
    """Everything that a figure depends on; written beside every result.

    Attributes:
        symprec: Å, tolerance with which samples are read as orbits.
        relaxed_symprec: Å, the same for relaxed crystals, where novelty is decided.
        relax: ``symmetric`` (free parameters of the space group), ``free`` (all atoms) or ``none``.
        metastable: eV/atom above the hull that still counts.
        repeats: bootstrap samples.
        seed: of the bootstrap.
        phonons: for so many metastable samples, drawn at random, lattice vibrations are computed.
    """

    symprec: float = 0.01
    relaxed_symprec: float = RELAXED_SYMPREC
    relax: str = "symmetric"
    metastable: float = 0.1
    repeats: int = 1000
    seed: int = 0
    phonons: int = 0


@dataclass(frozen=True)
class Coverage:
    """Crystals of the reference that occur among the samples (by structure, or by crystal key)."""

    found: int
    reference: int

    @property
    def share(self) -> float:
        """Found over all."""
        return self.found / max(self.reference, 1)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What comes out.

    Attributes:
        table: one row per sample, the unreadable ones last (columns in ``docs/evaluate.md``).
        relaxed: relaxed crystals in the order of the readable rows, or None.
        figures: shares and means.
        distances: Wasserstein distances to the reference.
        coverage: how much of the reference the samples hold.
    """

    table: pd.DataFrame
    relaxed: OrbitBatch | None
    figures: dict[str, Figure]
    distances: dict[str, float]
    coverage: Coverage


def evaluate(
    samples: Samples, protocol: Protocol, reference: Reference, hull: Hull, judge: JudgeWorkers, folder: Path
) -> Evaluation:
    """Evaluate every sample; relaxations are kept in ``folder / "judged"`` and never repeated."""
    batch = samples.dataset.batch
    table, structures = _as_generated(samples.dataset, reference)
    relaxed = None
    if protocol.relax != "none":
        start = batch if protocol.relax == "symmetric" else without_symmetry(batch)
        with judge, tqdm(total=len(batch), unit="crystal", desc="relax", mininterval=1.0) as bar:
            judged = judge.judge(start, folder / "judged", "samples", progress=lambda n, _: bar.update(n))
        relaxed = judged_batch(judged)
        _add_energies(table, judged, relaxed, hull, protocol)
        table["rmsd"] = np.where(judged["valid"], displacement(start, relaxed).numpy(), np.nan)
        after = _after_relaxation(table, relaxed, structures, reference, protocol)
        table["matches_relaxed"] = table["relaxed"] & np.array(same_crystals(structures, after))
        structures = after
    same = first_equal(table["formula"].tolist(), structures)
    table["duplicate_of"] = [table["id"][j] if j != i else "" for i, j in enumerate(same)]
    table["unique"] = table["duplicate_of"] == ""
    if reference.structures:
        n_found, n_reference = _match(table, structures, reference), len(reference.structures)
    else:
        keys = {*table["crystal_key"], *table.get("crystal_key_relaxed", ())}
        n_found, n_reference = len(keys & reference.keys), len(reference.keys)
    if protocol.phonons and relaxed is not None:
        _add_phonons(table, relaxed, protocol, judge, folder)
    if "metastable" in table:
        table["sun"] = table["metastable"] & table["unique"] & table["novel"]
        table["sun_strict"] = table["stable"] & table["unique"] & table["novel"]
    quantities = {
        "density": density([Composition(f) for f in table["formula"]], table["volume_per_atom"].to_numpy()),
        "elements_per_formula": np.array([len(Composition(f)) for f in table["formula"]], dtype=np.float64),
    }
    if ENERGY in table:
        quantities[ENERGY] = table[ENERGY].to_numpy(dtype=np.float64)
    unread = pd.DataFrame(
        {"id": [r.id for r in samples.rejected], "reason": [r.reason for r in samples.rejected]}, dtype=object
    )
    whole = pd.concat([table, unread], ignore_index=True) if len(unread) else table
    return Evaluation(
        whole,
        relaxed,
        summarise(whole, protocol.seed, protocol.repeats),
        distances(quantities, reference.quantities),
        Coverage(n_found, n_reference),
    )


def _as_generated(dataset: CrystalDataset, reference: Reference) -> tuple[pd.DataFrame, list[Structure]]:
    batch = dataset.batch
    crystals, cells = batch.to_crystals(), decode(batch)
    keys, labels = dataset.keys(), [protostructure_label(c) for c in crystals]
    formulas = [c.reduced_formula for c in crystals]
    table = pd.DataFrame(
        {
            "id": list(dataset.ids),
            "formula": formulas,
            "n_atoms": cells.n_atoms.numpy(),
            "space_group": batch.space_group.numpy(),
            "protostructure": labels,
            "crystal_key": keys,
            "volume_per_atom": (cells.volume / cells.n_atoms).numpy(),
            "reason": "",
            "valid_structure": (shortest_distance(cells) >= MIN_DISTANCE).numpy(),
            "charge_balanced": [charge_balanced(c.atomic_numbers, c.multiplicities) for c in crystals],
            "valid_composition": [balanced_or_alloy(c.atomic_numbers, c.multiplicities) for c in crystals],
            "symmetric": batch.space_group.numpy() > 1,
            "novel": [key not in reference.keys for key in keys],
            "novel_formula": [formula not in reference.formulas for formula in formulas],
            "novel_prototype": [label not in reference.prototypes for label in labels],
        }
    )
    return table, list(cells.structures())


def _add_energies(
    table: pd.DataFrame, judged: pd.DataFrame, relaxed: OrbitBatch, hull: Hull, protocol: Protocol
) -> None:
    values = judged_formation_energies(judged, relaxed)
    fractions = fractions_of_batch(relaxed)
    table["relaxed"] = judged["valid"]
    table["reason"] = judged["reason"]
    table[ENERGY] = values
    table["e_above_hull"] = hull.e_above_hull(fractions, values, SCALE)
    table["decomposes_to"] = [" + ".join(parts) for parts in hull.decomposition(fractions)]
    for name in ("magnetization_density", "bulk_modulus", "max_force", "max_stress"):
        table[name] = judged[name]
    table["volume_per_atom_relaxed"] = judged["volume_per_atom"]
    table["judge_evaluations"] = judged["judge_evaluations"]
    table["metastable"] = table["e_above_hull"] <= protocol.metastable
    table["stable"] = table["e_above_hull"] <= STABLE
    table["far_below_hull"] = table["e_above_hull"] < FAR_BELOW


def _add_phonons(
    table: pd.DataFrame, relaxed: OrbitBatch, protocol: Protocol, judge: JudgeWorkers, folder: Path
) -> None:
    candidates = np.flatnonzero(table["metastable"].to_numpy(dtype=bool))
    drawn = np.random.default_rng(protocol.seed).permutation(candidates)[: protocol.phonons]
    rows = torch.from_numpy(np.sort(drawn))
    for name in ("lowest_frequency", "dynamically_stable"):
        table[name] = np.nan
    table["phonon_reason"] = ""
    if not len(rows):
        return
    workers = PhononWorkers(workers=judge.workers, device=judge.device)
    with workers, tqdm(total=len(rows), unit="crystal", desc="phonons", mininterval=1.0) as bar:
        found = workers.judge(
            relaxed.select(rows), folder / "judged", "phonons", PHONON_SHARD, progress=lambda n, _: bar.update(n)
        )
    for name in ("lowest_frequency", "dynamically_stable"):
        table.loc[rows.numpy(), name] = found[name].to_numpy()
    table.loc[rows.numpy(), "phonon_reason"] = found["reason"].to_numpy()


def _after_relaxation(
    table: pd.DataFrame, relaxed: OrbitBatch, structures: list[Structure], reference: Reference, protocol: Protocol
) -> list[Structure]:
    """Novelty and symmetry of the relaxed crystals; the structures to compare (as generated where not relaxed)."""
    after = list(decode(relaxed).structures())
    keys, labels, groups = (table[name].tolist() for name in ("crystal_key", "protostructure", "space_group"))
    rows = np.flatnonzero(table["relaxed"])
    described = in_full_symmetry(relaxed.select(torch.from_numpy(rows)), protocol.relaxed_symprec)
    for i, crystal in zip(rows, described, strict=True):
        keys[i], labels[i], groups[i] = crystal_key(crystal), protostructure_label(crystal), crystal.space_group
    table["space_group_relaxed"] = groups
    table["crystal_key_relaxed"] = keys
    table["novel"] &= np.array([key not in reference.keys for key in keys])
    table["novel_prototype"] &= np.array([label not in reference.prototypes for label in labels])
    return [new if ok else old for ok, new, old in zip(table["relaxed"], after, structures, strict=True)]


def _match(table: pd.DataFrame, structures: list[Structure], reference: Reference) -> int:
    """Distance to the closest reference structure, novelty by it; how many reference structures were found."""
    found = matches(table["formula"].tolist(), structures, reference.structure_formulas, reference.structures)
    table["match_distance"] = [pairs[0][1] if pairs else np.nan for pairs in found]
    table["novel"] &= np.array([not pairs for pairs in found])
    return len({i for pairs in found for i, _ in pairs})
