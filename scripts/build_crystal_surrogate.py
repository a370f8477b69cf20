"""Make ``generators/weights/crystal_surrogate.pt``: the surrogate of the judge that chooses among drawn crystals."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from data.sources import read_crystals
from generators.checkpoints import save_checkpoint
from generators.crystals.draws import embedded_templates
from generators.crystals.labelled import as_drawn, labelled_crystals
from generators.element_features import N_STATES
from generators.oracles.crystal_surrogate import CrystalSurrogate, EnsembleFit
from generators.oracles.judge import PROPERTIES
from generators.shipped import CRYSTAL_SURROGATE

FIT = EnsembleFit(steps=12_000)
HELD_OUT = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    weights = Path(__file__).parents[1] / "generators" / "weights"
    parser.add_argument("structures", type=Path, help="the table of build_reference_compounds.py")
    parser.add_argument("--output", type=Path, default=weights / f"{CRYSTAL_SURROGATE}.pt")
    arguments = parser.parse_args()
    start = time.perf_counter()
    labelled = labelled_crystals(read_crystals(arguments.structures)[0])
    dataset, properties = labelled.dataset, list(PROPERTIES)
    labels = torch.stack([dataset.properties[name].double() for name in properties], 1)

    formulas = [crystal.reduced_formula for crystal in dataset.batch.to_crystals()]
    names = {formula: i for i, formula in enumerate(dict.fromkeys(formulas))}
    number = torch.tensor([names[formula] for formula in formulas])
    test = (torch.rand(len(names), generator=torch.Generator().manual_seed(0)) < HELD_OUT)[number]
    sketched, own = as_drawn(labelled, embedded_templates())
    features, row = torch.cat([labelled.features, sketched]), torch.cat([torch.arange(len(dataset)), own])
    taught = ~test[row]
    trial = CrystalSurrogate.fit(features[taught], labels[row[taught]], properties, 0, FIT)
    rows = []
    for kind, seen, of in (("relaxed", labelled.features, torch.arange(len(dataset))), ("as drawn", sketched, own)):
        held, truth = test[of], labels[of[test[of]]]
        mean, std = trial.predict(seen[held])
        for p, name in enumerate(properties):
            known = torch.isfinite(truth[:, p])
            error = (mean[:, p] - truth[:, p])[known].abs()
            inside = (error <= std[known, p]).double().mean()
            rows.append(
                f"| {kind} | {name} | {int(known.sum()):,} | {error.mean():.3g} | {error.median():.3g} | {inside:.0%} |"
            )

    surrogate = CrystalSurrogate.fit(features, labels[row], properties, 0, FIT, slice(N_STATES, None))
    save_checkpoint(arguments.output, CRYSTAL_SURROGATE, *surrogate.export())
    parameters = sum(parameter.numel() for parameter in surrogate.networks.parameters())
    table = "\n".join(rows)
    card = f"""# Card of {arguments.output.name}

Surrogate of the judge for whole crystals: {FIT.members} small networks on composition, symmetry and neighbours
(`generators.screening.crystal_features`), means and standard deviations out. It chooses which drawn crystals the judge
relaxes.

- Made by: `scripts/build_crystal_surrogate.py STRUCTURES.parquet`, {time.perf_counter() - start:.0f} s on one core
- Data: {len(dataset):,} crystals of at most 24 atoms: STRUCTURES (parts of MP-20 and MPTS-52, Materials Project,
  CC-BY 4.0), embedded exchanges, predicted compounds, draws and decorations, all with CHGNet's labels
  (0.3.0), not DFT's; {len(own):,} of them a second time with the geometry of their nearest template of other elements,
  as crystals are drawn
- Parameters: {parameters:,}, in half precision
- Meant for: ranking crystals before the judge. Not for: values to rely on.

Test: {HELD_OUT:.0%} of the formulas, held out of a first fit (the shipped one has seen all).

| geometry | property | crystals | mean absolute error | median | inside one standard deviation |
|---|---|---|---|---|---|
{table}
"""
    arguments.output.with_suffix(".md").write_text(card, encoding="utf-8")
    print(card)


if __name__ == "__main__":
    main()
