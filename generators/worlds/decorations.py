"""World ``decorations``: every half-Heusler of the embedded decorations' 60 elements, judged by CHGNet itself."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from data.decoration import canonical_elements, to_orbit_batch, with_volume_per_atom
from data.decorations import load_decorations
from data.prototype_table import PrototypeTable
from data.prototypes import prototype_library
from generators.judging import JudgeWorkers, judged_batch, judged_formation_energies
from generators.oracles.chgnet_potential import SCALE
from generators.oracles.hull import fractions_of_batch
from generators.oracles.hull_tables import FAR_BELOW, known_hull
from generators.screening.atomic_volumes import additive_volume
from generators.wish import Interval, Wish
from generators.worlds.space import Space
from generators.worlds.world import World

PROTOTYPE = "half_heusler"
ABOVE, MAGNETIZATION, MODULUS = "e_above_hull", "magnetization_density", "bulk_modulus"
SHARD = 1024
STABLE = {ABOVE: Interval(FAR_BELOW, 0.05)}
"""What lies further below the hull is an error of CHGNet."""
_NAME = f"{ABOVE} {FAR_BELOW:g} to 0.05"
TARGETS = {
    _NAME: Wish(STABLE),
    f"{_NAME}, {MODULUS} > 160": Wish({**STABLE, MODULUS: Interval(160.0, None)}),
    f"{_NAME}, {MODULUS} > 120, {MAGNETIZATION} > 0.05": Wish(
        {**STABLE, MODULUS: Interval(120.0, None), MAGNETIZATION: Interval(0.05, None)}
    ),
}


def half_heuslers(elements: Tensor) -> Space:
    """All of three different elements: 102,660 crystals for 60, the two outer sites exchanged is one crystal."""
    table = PrototypeTable.build([prototype_library().get(PROTOTYPE)])
    triples = torch.cartesian_prod(*[elements] * 3)
    ordered = triples.sort(1).values
    return Space.build(table, triples[(ordered[:, 1:] != ordered[:, :-1]).all(1)])


def judge_by_chgnet(space: Space, folder: Path) -> dict[str, Tensor]:
    """[N] energy above the hull of the known compounds (eV/atom), magnetization density (µB/Å^3), bulk modulus (GPa) of
    every crystal of the space; NaN where the relaxation fails. Shards in ``folder`` are read, not judged again."""
    everything = torch.zeros(len(space), dtype=torch.long)
    batch = to_orbit_batch(space.table, everything, space.elements.long())
    batch = with_volume_per_atom(batch, additive_volume(batch).double())
    workers = min(os.cpu_count() or 1, 16)
    with (
        tqdm(total=len(batch), unit="crystal", desc="judge the whole space", mininterval=5.0) as bar,
        JudgeWorkers(workers=workers) as judge,
    ):
        frame = judge.judge(batch, folder, PROTOTYPE, SHARD, lambda n, _: bar.update(n))
    relaxed = judged_batch(frame)
    formation = judged_formation_energies(frame, relaxed)
    above = known_hull().e_above_hull(fractions_of_batch(relaxed), formation, SCALE)
    columns = {ABOVE: above, **{name: frame[name].to_numpy(float) for name in (MAGNETIZATION, MODULUS)}}
    columns[MODULUS] = np.where(columns[MODULUS] > 0, columns[MODULUS], np.nan)  # at a maximum, not a minimum
    valid = frame["valid"].to_numpy()
    return {name: torch.from_numpy(np.where(valid, values, np.nan)) for name, values in columns.items()}


def decorations(cache: Path) -> World:
    """The world; its labels are the embedded decorations of that prototype. Judging it takes a quarter of an hour of
    one core, once (kept in ``cache``)."""
    embedded = load_decorations()
    rows = torch.tensor([name == PROTOTYPE for name in embedded.prototype]).nonzero().squeeze(-1)
    space = half_heuslers(torch.unique(embedded.batch.atomic_number)[1:].long())
    part = embedded.select(rows)
    numbers = part.batch.atomic_number[:, :3]
    elements = canonical_elements(space.table, torch.zeros(len(numbers), dtype=torch.long), numbers)
    energy = part.properties["formation_energy_per_atom"].double().numpy()
    labels = {
        ABOVE: torch.from_numpy(known_hull().e_above_hull(fractions_of_batch(part.batch), energy, SCALE)),
        **{name: part.properties[name].double() for name in (MAGNETIZATION, MODULUS)},
    }
    return World(
        name="decorations",
        space=space,
        truth=judge_by_chgnet(space, cache / "half-heuslers"),
        train_index=space.index(elements),
        train_labels=labels,
        targets=TARGETS,
        judge="CHGNet 0.3.0, relaxed within symmetry, hull of the known compounds",
    )
