"""From configuration to objects: the only place that reads configuration dataclasses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from data.assign_prototypes import assign_prototypes
from data.dataset import CrystalDataset
from data.decorations import load_decorations
from data.prototype_table import PrototypeTable
from data.prototypes import PrototypeLibrary, prototype_library
from data.sources.read import read_crystals
from data.sources.rows import Rejected
from generators.checkpoints import load_checkpoint
from generators.conditioning import PropertyScale
from generators.crystals.build import build_crystals
from generators.crystals.datamodule import CrystalDataModule
from generators.datamodule import DecorationDataModule, label_matrix
from generators.denoiser.orbit_denoiser import DenoiserConfig
from generators.module import CompositionDiffusion
from generators.oracles.surrogate_module import SurrogateModule, SurrogateOptimizer
from generators.oracles.surrogate_network import SurrogateConfig
from generators.schedule import OptimizerConfig
from generators.schema import DataConfig, TrainConfig
from generators.shipped import shipped
from generators.structures.dataset import StructureDataModule, read_structure_rows
from generators.structures.module import StructureModule, StructureOptimizer, mean_neighbours
from generators.structures.network import StructureConfig

MODEL_KINDS = ("composition", "crystal", "surrogate", "structure")


def load_generator(path: str | None) -> CompositionDiffusion:
    """The generator from a model file; None is the shipped one."""
    config, state = load_checkpoint(Path(path) if path else shipped("composition"), "composition")
    return CompositionDiffusion.from_export(config, state)


def load_data(config: DataConfig) -> tuple[CrystalDataset, PrototypeLibrary, list[Rejected]]:
    """The training crystals, the library in which their prototypes are found, and the rows set aside.

    Raises:
        ValueError: the file as a whole is of no use.
    """
    library = prototype_library()
    if config.prototype_cifs:
        library = library.with_files([Path(p) for p in config.prototype_cifs])
    rejected: list[Rejected] = []
    if config.path is None:
        dataset = load_decorations(None, library)
    else:
        dataset, rejected = read_crystals(Path(config.path), library=library)
        dataset, library = assign_prototypes(dataset, library)
    return dataset.select(torch.arange(len(dataset))[: config.limit]), library, rejected


def _properties(config: DataConfig, dataset: CrystalDataset) -> list[str]:
    names = list(config.properties) or list(dataset.properties)
    if not names:
        raise ValueError("data.path: the table has no numeric column to learn")
    label_matrix(dataset, names)
    return names


def build_training(
    config: TrainConfig,
) -> tuple[DecorationDataModule | StructureDataModule | CrystalDataModule, pl.LightningModule, list[Rejected]]:
    """Data module, model, and the rows set aside, of ``raremat-train``.

    Raises:
        ValueError: an unknown kind, property or prototype, or too few labels.
    """
    if config.model.kind not in MODEL_KINDS:
        raise ValueError(f"model.kind={config.model.kind!r}: use one of {', '.join(MODEL_KINDS)}")
    if config.model.kind == "structure":
        return _build_structure(config)
    if config.model.kind == "crystal":
        return build_crystals(config)
    dataset, library, rejected = load_data(config.data)
    names = _properties(config.data, dataset)
    table = PrototypeTable.build([library.get(name) for name in dict.fromkeys(dataset.prototype)])
    first, second, third = config.data.fractions
    data = DecorationDataModule(dataset, table, names, config.data.batch_size, (first, second, third), config.seed)
    elements = sorted(set(dataset.batch.atomic_number.flatten().tolist()) - {0})
    labels = data.parts["train"].labels
    torch.manual_seed(config.seed)
    model = config.model
    if model.kind == "surrogate":
        center, scale = SurrogateModule.standardisation(labels, names)
        surrogate = SurrogateModule(
            table,
            names,
            center,
            scale,
            elements,
            SurrogateConfig(model.width, model.depth, model.n_radial, model.members, model.dropout),
            SurrogateOptimizer(model.learning_rate, model.weight_decay, config.seed),
        )
        return data, surrogate, rejected
    generator = CompositionDiffusion(
        table,
        [PropertyScale.fit(name, labels[:, i]) for i, name in enumerate(names)],
        elements,
        DenoiserConfig(model.width, model.depth, model.heads, model.n_radial, model.dropout),
        OptimizerConfig(
            model.learning_rate, model.weight_decay, model.warmup_steps, model.ema_decay, model.unconditional
        ),
        config.seed,
    )
    return data, generator, rejected


def _build_structure(config: TrainConfig) -> tuple[StructureDataModule, pl.LightningModule, list[Rejected]]:
    model, data = config.model, config.data
    if not data.properties:
        raise ValueError("data.properties: name the columns to learn, for instance data.properties=[band_gap]")
    path = Path(data.path) if data.path else None
    rows = read_structure_rows(path, data.properties, model.cutoff, data.limit, data.tensor_frame)
    first, second, third = data.fractions
    module = StructureDataModule(rows, data.batch_size, (first, second, third), config.seed)
    torch.manual_seed(config.seed)
    network = StructureModule(
        rows.specs,
        sorted({int(z) for graph in rows.graphs for z in graph.atomic_number}),
        mean_neighbours(module.parts["train"]),
        StructureConfig(model.width, model.depth, model.n_radial, model.cutoff, model.members),
        StructureOptimizer(model.learning_rate, model.weight_decay, config.seed),
    )
    network.fit_scales(module.parts["train"])
    return module, network, rows.rejected


def build_logger(name: str, project: str, folder: Path, run: str) -> Any:
    """Lightning logger by name: ``wandb`` (offline unless logged in), ``csv`` or ``none``."""
    if name == "none":
        return False
    if name == "csv":
        from pytorch_lightning.loggers import CSVLogger

        return CSVLogger(str(folder), name="csv")
    if name == "wandb":
        from generators.wandb_logging import wandb_logger

        return wandb_logger(folder, project, run)
    raise ValueError(f"logger.name={name!r}: use wandb, csv or none")
