"""Data and model of ``raremat-train model=crystal``: whole crystals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from data.dataset import CrystalDataset
from data.decorations import load_decorations
from data.exchanges import load_all_exchanges, load_draws
from data.protostructure import protostructure_label
from data.sources import read_crystals
from data.sources.rows import Rejected
from data.strain_scale import StrainScale
from generators.checkpoints import load_checkpoint
from generators.conditioning import PropertyScale
from generators.crystals.datamodule import CrystalDataModule, CrystalSource
from generators.crystals.labelled import with_judged_labels
from generators.crystals.model import exported_scales
from generators.crystals.module import CrystalDiffusion
from generators.crystals.task_schema import SOURCES
from generators.denoiser.crystal_denoiser import CrystalDenoiserConfig
from generators.oracles.hull_tables import FAR_BELOW
from generators.oracles.overcounted import raised
from generators.schedule import OptimizerConfig
from generators.schema import TrainConfig
from generators.screening.charge_balance import balanced_or_alloy

PROPERTIES = ("formation_energy_per_atom", "e_above_hull", "band_gap", "magnetization_density", "bulk_modulus")
DECORATION_SHARE = 0.3
"""Of the random decorations in each epoch: they show what is unstable, on few prototypes."""


def build_crystals(config: TrainConfig) -> tuple[CrystalDataModule, CrystalDiffusion, list[Rejected]]:
    """Known crystals of ``data.path``, the embedded exchanges (predicted compounds among them), draws and decorations;
    and an untrained model.

    With ``model.initial`` the model goes on from that one's weights, with its size, its properties and their scales: a
    small table need not have labels of all of them. With ``model.learn=geometry`` prototypes and elements stay as that
    model has them, exactly.

    Raises:
        ValueError: a property that no part has, too few labels, or another list of properties than the initial model's.
    """
    rejected: list[Rejected] = []
    sources: list[CrystalSource] = []
    group_of: dict[str, str] = {}

    def add(name: str, dataset: CrystalDataset, groups: list[str], share: float = 1.0) -> None:
        sources.append(CrystalSource(SOURCES.index(name), dataset, groups, share))

    if config.data.path is not None:
        known, rejected = read_crystals(Path(config.data.path))
        known = with_judged_labels(known.select(torch.arange(len(known))[: config.data.limit]))
        groups = groups_of(known)
        group_of = dict(zip(known.ids, groups, strict=True))
        add("known", known, groups)
    exchanges = _plausible(load_all_exchanges())
    exchanges = exchanges.select(torch.arange(len(exchanges))[: config.data.limit])
    parents = [name or f"without {i}" for i, name in enumerate(exchanges.ids)]  # that of a drawn crystal has no name
    add("exchanged", exchanges, [group_of.get(name, name) for name in parents])
    for name, chosen, share in (("drawn", False, 1.0), ("chosen", True, config.data.chosen_share)):
        draws = load_draws(chosen)
        if draws is not None and share > 0:
            draws = _plausible(draws)
            if chosen and config.data.chosen_balanced:
                draws = draws.select(torch.tensor(_balanced_rows(draws)))
            draws = draws.select(torch.arange(len(draws))[: config.data.limit])
            add(name, draws, draws.keys(), share)
    decorations = load_decorations()
    decorations = decorations.select(torch.arange(len(decorations))[: config.data.limit])
    add("decorated", decorations, decorations.keys(), DECORATION_SHARE)

    has = {name for source in sources for name in source.dataset.properties}
    names = list(config.data.properties) or [name for name in PROPERTIES if name in has]
    initial = None if config.model.initial is None else load_checkpoint(Path(config.model.initial), "crystal")
    scales: dict[str, PropertyScale] = {}
    if initial is not None:
        scales = exported_scales(*initial)
        if config.data.properties and names != list(scales):
            raise ValueError(f"data.properties: the model of model.initial has {', '.join(scales)}, leave this key out")
        names = list(scales)
    for name in names:
        if name not in has and name not in scales:
            raise ValueError(f"data.properties={name!r}: not in the data, which has {', '.join(sorted(has))}")
    first, second, third = config.data.fractions
    model = config.model
    data = CrystalDataModule(
        sources, names, config.data.batch_size, (first, second, third), config.seed, config.data.max_orbits
    )  # fmt: skip
    part = data.parts["train"]
    size = CrystalDenoiserConfig(model.width, model.depth, model.heads, model.n_radial, model.dropout)
    torch.manual_seed(config.seed)
    module = CrystalDiffusion(
        [scales[n] if n in scales else PropertyScale.fit(n, part.labels[:, i]) for i, n in enumerate(names)],
        StrainScale.fit(part.batch),
        sorted(set(part.batch.atomic_number.flatten().tolist()) - {0}),
        size if initial is None else replace(CrystalDenoiserConfig(**initial[0]["denoiser"]), dropout=model.dropout),
        OptimizerConfig(
            model.learning_rate, model.weight_decay, model.warmup_steps, model.ema_decay, model.unconditional
        ),
        config.seed,
    )
    if initial is not None:
        module.start_from(initial[1])
        if model.learn == "geometry":
            module.learn_geometry()
    return data, module, rejected


def _plausible(dataset: CrystalDataset) -> CrystalDataset:
    """Without what the judge puts so far below the hull that it must be wrong, and with energies higher by what it may
    overcount for anions (`generators.oracles.overcounted`): a model would learn to make such."""
    return raised(dataset.select((dataset.properties["e_above_hull"] >= FAR_BELOW).nonzero().squeeze(-1)))


def _balanced_rows(dataset: CrystalDataset) -> list[int]:
    crystals = dataset.batch.to_crystals()
    return [i for i, c in enumerate(crystals) if balanced_or_alloy(c.atomic_numbers, c.multiplicities)]


def groups_of(dataset: CrystalDataset) -> list[str]:
    """Protostructure and formula: crystals that share both never end in different parts."""
    return [f"{protostructure_label(c)} {c.reduced_formula}" for c in dataset.batch.to_crystals()]
