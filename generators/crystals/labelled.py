"""Crystals with labels on the judge's scale, for a surrogate of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data.dataset import CrystalDataset
from data.decorations import load_decorations
from data.exchanges import load_all_exchanges, load_draws
from data.strain_scale import StrainScale
from generators.oracles.hull_tables import ENERGY, judged_compounds
from generators.sampling.templates import Templates
from generators.screening.crystal_features import crystal_features

CHUNK = 1000
MOST_ATOMS = 24
"""In the primitive cell: larger crystals cost most of the time and teach the least."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """Crystals with labels, and their features [N, F] (`crystal_features`)."""

    dataset: CrystalDataset
    features: Tensor


def labelled_crystals(own: CrystalDataset | None = None) -> Labelled:
    """The embedded exchanges, draws and decorations, and the user's crystals, of at most `MOST_ATOMS` atoms.

    Args:
        own: the user's table. Its energies count only where the crystal is among the embedded known compounds (by
            id), with CHGNet's values; other properties as the file has them.
    """
    draws = load_draws()
    parts = [load_all_exchanges(), *([draws] if draws is not None else []), load_decorations()]
    if own is not None:
        parts.append(with_judged_labels(own))
    dataset = CrystalDataset.concatenate([part.select(part.batch.n_atoms <= MOST_ATOMS) for part in parts])
    return Labelled(dataset, crystal_features(dataset.batch))


def as_drawn(labelled: Labelled, templates: Templates) -> tuple[Tensor, Tensor]:
    """Features of the crystals with the geometry of their nearest template of other elements, and their rows.

    What a surrogate is asked about was drawn on a template and has not been relaxed. One that has seen relaxed crystals
    alone takes chance neighbours for bonds, and a choice by it finds where (docs/crystal-trials.md, "Sharpening").

    Returns:
        Features [M, F] and rows [M] of those that have such a template.
    """
    batch = labelled.dataset.batch
    scale = StrainScale.fit(batch)
    features, rows = [], []
    for some in torch.arange(len(batch)).split(CHUNK):
        start = templates.start(batch.select(some), others=True)
        found = start.found.nonzero().squeeze(-1)
        if len(found):
            features.append(crystal_features(start.sketched(scale).select(found)))
            rows.append(some[found])
    if not rows:
        return labelled.features[:0], torch.zeros(0, dtype=torch.long)
    return torch.cat(features), torch.cat(rows)


def with_judged_labels(dataset: CrystalDataset) -> CrystalDataset:
    """CHGNet's labels in place of the file's own where the embedded known compounds have them (by id).

    Everything that is learned together must be on one scale. Crystals that are not among them keep what the file says
    of properties without an energy scale, and lose their energies.
    """
    compounds = judged_compounds().drop_duplicates("id").set_index("id")
    known = [name in compounds.index for name in dataset.ids]
    found = compounds.reindex(list(dataset.ids))
    properties = dict(dataset.properties)
    for name in (ENERGY, "e_above_hull", "volume_per_atom", "magnetization_density", "bulk_modulus"):
        judged = torch.from_numpy(found[name].to_numpy(dtype=np.float64, copy=True))
        own = properties.get(name) if name not in (ENERGY, "e_above_hull") else None
        properties[name] = judged if own is None else torch.where(torch.tensor(known), judged, own)
    return CrystalDataset(dataset.batch, properties, dataset.prototype, dataset.ids)
