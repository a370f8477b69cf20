"""Make ``data/tables/predicted_compounds.parquet``: known formulas whose structure is not at hand, predicted.

A hull needs energies of all that exists, and many compounds are at hand as a formula only. Each takes the structures
of the most similar crystals of its anonymous formula; of these the surrogate keeps those that are likely to be lowest
in energy, CHGNet relaxes them, and the lowest energy counts. What is not found leaves the hull as it was: the energy of
a wrong structure lies above the true one. A killed run goes on with the same command.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pymatgen.core import Composition
from torch import Tensor
from tqdm import tqdm

from data.dataset import CrystalDataset
from data.decorations import load_decorations
from data.exchanges import load_draws, load_exchanges
from data.orbit_batch import OrbitBatch
from data.protostructure import labels_of
from data.sources import read_crystals
from generators.crystals.labelled import MOST_ATOMS, with_judged_labels
from generators.crystals.labelling import compact, with_full_symmetry
from generators.element_features import N_STATES, element_features
from generators.judging import JudgeWorkers, judged_formation_energies, write_parquet
from generators.oracles.chgnet_potential import SCALE
from generators.oracles.crystal_surrogate import CrystalSurrogate
from generators.oracles.hull_tables import ENERGY, LOWEST, reference_compounds
from generators.oracles.judge import JudgeSettings, elemental_references
from generators.sampling.templates import ONE_HOT_WEIGHT, UNKNOWN, VOTE_ENERGY, VOTE_LENGTH, element_orders
from generators.screening.crystal_exchange import with_elements
from generators.screening.crystal_features import crystal_features

FOUND = 0.05
"""eV/atom above the published energy up to which a structure counts as found."""
DOUBTFUL = -0.3
"""eV/atom below the published energy; what lies lower is an error of the potential and is left out."""


def anonymous(counts: tuple[int, ...]) -> tuple[int, ...]:
    """Amounts in ascending order, without a common divisor."""
    return tuple(sorted(n // int(np.gcd.reduce(counts)) for n in counts))


class Parents:
    """Crystals with geometry, by anonymous formula."""

    def __init__(self, dataset: CrystalDataset, most_atoms: int) -> None:
        small = (dataset.batch.n_atoms <= most_atoms).nonzero().squeeze(-1)
        self.batch = dataset.batch.select(small)
        self.ids = [dataset.ids[row] for row in small.tolist()]
        above = dataset.properties["e_above_hull"][small].nan_to_num(UNKNOWN).clamp(0, 1)
        self.penalty = (above / VOTE_ENERGY).numpy()
        self.labels = labels_of(self.batch)
        self.features = element_features()
        self.features[:, 4:] *= ONE_HOT_WEIGHT
        found: dict[tuple[int, ...], tuple[list[int], list[list[int]]]] = defaultdict(lambda: ([], []))
        for row, (numbers, weights) in enumerate(
            zip(self.batch.atomic_number.tolist(), self.batch.multiplicity.tolist(), strict=True)
        ):
            amounts: dict[int, int] = defaultdict(int)
            for z, n in zip(numbers, weights, strict=True):
                if z:
                    amounts[z] += n
            order = sorted(amounts, key=lambda z: (amounts[z], z))
            rows, species = found[anonymous(tuple(amounts.values()))]
            rows.append(row)
            species.append(order)
        self.kinds = {
            kind: (np.array(rows), self.features[torch.tensor(species)].flatten(1), np.array(species))
            for kind, (rows, species) in found.items()
        }

    def nearest(self, amounts: dict[int, int], n: int) -> list[tuple[int, dict[int, int]]]:
        """Rows of the ``n`` likeliest parents, of different protostructures, and what their elements become."""
        kind = anonymous(tuple(amounts.values()))
        if kind not in self.kinds:
            return []
        rows, features, species = self.kinds[kind]
        orders = element_orders(amounts)
        wanted = self.features[torch.tensor(orders)].flatten(1)
        away, which = torch.cdist(features, wanted).min(1)
        score = away.numpy() / VOTE_LENGTH + self.penalty[rows]
        chosen: dict[str, tuple[int, dict[int, int]]] = {}
        for i in np.argsort(score, kind="stable"):
            label = self.labels[rows[i]]
            if label not in chosen:
                mapping = dict(zip(species[i].tolist(), orders[int(which[i])], strict=True))
                chosen[label] = int(rows[i]), mapping
                if len(chosen) == n:
                    break
        return list(chosen.values())


def missing_formulas(path: Path, elements: frozenset[int]) -> pd.DataFrame:
    """Reduced formula and published energy of the table's compounds that are not among the reference compounds."""
    table: pd.DataFrame = pd.read_parquet(path)
    table = table[np.isfinite(table[ENERGY]) & (table[ENERGY] > LOWEST)]
    table = table.assign(formula=[Composition(f).reduced_formula for f in table["formula"]])
    table = table.sort_values(["formula", ENERGY]).drop_duplicates("formula").reset_index(drop=True)
    known = set(reference_compounds().dropna(subset=[ENERGY])["formula"])
    usable = [
        f not in known and len(c := Composition(f)) > 1 and {int(e.Z) for e in c} <= elements for f in table["formula"]
    ]
    shuffled: pd.DataFrame = table[usable].sample(frac=1, random_state=0)  # --first takes a fair part
    return shuffled.reset_index(drop=True)


def candidates(parents: Parents, formulas: pd.Series, n: int) -> tuple[OrbitBatch, Tensor, list[int]]:
    """Crystals, cells rescaled by `with_elements`; the row of each one's formula, and of its parent."""
    rows, numbers, of_formula = [], [], []
    for i, formula in enumerate(tqdm(formulas, desc="parents", mininterval=5)):
        amounts = {int(element.Z): int(amount) for element, amount in Composition(formula).items()}
        for row, mapping in parents.nearest(amounts, n):
            table = torch.arange(N_STATES)
            for old, new in mapping.items():
                table[old] = new
            rows.append(row)
            numbers.append(table[parents.batch.atomic_number[row]])
            of_formula.append(i)
    batch = with_elements(parents.batch.select(torch.tensor(rows)), torch.stack(numbers))
    return batch, torch.tensor(of_formula), rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tables = Path(__file__).parents[1] / "data" / "tables"
    parser.add_argument(
        "formulas", type=Path, help="Parquet: formula, formation_energy_per_atom of compounds that exist"
    )
    parser.add_argument("structures", type=Path, help="the table of build_reference_compounds.py")
    parser.add_argument("--output", type=Path, default=tables / "predicted_compounds.parquet")
    parser.add_argument("--work", type=Path, default=Path("outputs/build/predicted_compounds"))
    parser.add_argument("--parents", type=int, default=8, help="structures that are thought of, for each formula")
    parser.add_argument("--relaxed", type=int, default=2, help="of them relaxed")
    parser.add_argument("--atoms", type=int, default=40, help="in the primitive cell at most")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--first", type=int, default=None, help="so many formulas only")
    arguments = parser.parse_args()

    own = with_judged_labels(read_crystals(arguments.structures)[0])
    references = elemental_references(SCALE)
    formulas = missing_formulas(arguments.formulas, frozenset(references.energies))[: arguments.first]
    draws = load_draws()
    parts = [own, load_exchanges(), *([draws] if draws is not None else [])]
    parents = Parents(CrystalDataset.concatenate(parts), arguments.atoms)
    batch, of_formula, parent_row = candidates(parents, formulas["formula"], arguments.parents)
    parent_ids = [parents.ids[row] for row in parent_row]
    learned = CrystalDataset.concatenate([*parts[1:], load_decorations(), own])
    learned = learned.select(learned.batch.n_atoms <= MOST_ATOMS)
    surrogate = CrystalSurrogate.fit(
        crystal_features(learned.batch), learned.properties[ENERGY].double()[:, None], (ENERGY,), 0
    )  # fmt: skip
    expected = surrogate.predict(crystal_features(batch))[0][:, 0]
    order = np.lexsort((expected.numpy(), of_formula.numpy()))
    rank = pd.Series(of_formula.numpy()[order]).groupby(of_formula.numpy()[order]).cumcount().to_numpy()
    kept = torch.from_numpy(np.sort(order[rank < arguments.relaxed]))
    print(f"{len(formulas)} formulas, {len(torch.unique(of_formula))} with parents, {len(kept)} crystals", flush=True)

    batch, of_formula = batch.select(kept), of_formula[kept]
    settings = JudgeSettings(max_evaluations=100, with_bulk_modulus=False)
    with (
        tqdm(total=len(batch), unit="crystal", smoothing=0.02, mininterval=5) as bar,
        JudgeWorkers(settings, arguments.workers) as workers,
    ):
        frame = workers.judge(batch, arguments.work, "predicted", 64, progress=lambda n, _: bar.update(n))
    frame[ENERGY] = judged_formation_energies(frame)
    frame["parent"] = [parent_ids[i] for i in kept.tolist()]
    frame["formula"] = formulas["formula"].to_numpy()[of_formula]
    frame = frame[frame["valid"] & np.isfinite(frame[ENERGY]) & (frame[ENERGY] > LOWEST)]
    published = formulas.set_index("formula")[ENERGY].reindex(frame["formula"]).to_numpy()
    frame["above"] = frame[ENERGY] - published
    best = frame[frame["above"] > DOUBTFUL].sort_values(ENERGY, kind="stable").drop_duplicates("formula")
    best = best.sort_values("formula", ignore_index=True)
    result = compact(with_full_symmetry(best.assign(bulk_modulus=np.nan, e_above_hull=np.nan)))
    write_parquet(result, arguments.output, small=True)
    shares = ", ".join(f"{at:g} eV/atom {(best['above'] <= at).mean():.0%}" for at in (0.0, FOUND, 0.1, 0.2))
    card = f"""# Card of {arguments.output.name}

- Made by: `scripts/build_predicted_compounds.py`: {len(formulas):,} formulas of compounds that exist (on the hull of
  the Materials Project, CC-BY 4.0) without a structure at hand. {arguments.parents} structures of the most similar
  crystals (known, exchanged, drawn; at most {arguments.atoms} atoms); the {arguments.relaxed} lowest by a surrogate
  relaxed within symmetry by CHGNet; the lowest energy kept.
- Rows: {len(result):,}; the other {len(formulas) - len(result):,} found no parent, did not relax, or ended more than
  {-DOUBTFUL:g} eV/atom below the published energy.
- So many lie at most so far above the published energy of the formula (DFT's, which is not in the table): {shares}.
  Where the structure is known, CHGNet and DFT differ by 0.07 (standard deviation). A wrong structure leaves the hull
  too high there, never too low.
- Labels: CHGNet 0.3.0, not DFT. Columns: as in exchanges.parquet; bulk moduli were not measured, energies above the
  hull are those of `scripts/build_hull_labels.py`.
"""
    arguments.output.with_suffix(".md").write_text(card, encoding="utf-8")
    print(f"{card}\nnow run scripts/build_hull_labels.py")


if __name__ == "__main__":
    main()
