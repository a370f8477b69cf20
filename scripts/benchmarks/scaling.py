"""Models of whole crystals of several sizes, and from parts of the data: losses on unseen crystals, and what they draw."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from benchmarks.crystal_sets import LARGEST, CrystalBench, published_hull
from generators.checkpoints import save_checkpoint
from generators.crystals.build import build_crystals
from generators.crystals.datamodule import CrystalDataModule
from generators.crystals.model import load_crystal_model
from generators.crystals.module import CrystalDiffusion
from generators.crystals.usual import UNSHARPENED
from generators.oracles.hull import Hull
from generators.sampling.crystal_task import CrystalTask
from generators.schema import TrainConfig, register
from generators.shipped import shipped
from generators.train import trainer_precision

STEPS, BATCH, N, SEED = 2_500, 128, 400, 10
LOSSES = ("loss", "space_group", "positions", "elements", "coordinates", "lattice")
SHOWN = {"sun": "S.U.N.", "metastable": "metastable", "novel": "novel", "valid_composition": "neutral or alloy"}


@dataclass(frozen=True)
class Point:
    """One training.

    Attributes:
        width, depth, heads, learning_rate: of the denoiser.
        share: of the training crystals.
    """

    width: int
    depth: int
    heads: int
    learning_rate: float
    share: float = 1.0

    @property
    def name(self) -> str:
        """Of its files."""
        return f"scaling-{self.width}-{self.depth}-{round(1 / self.share)}"


SMALL = Point(96, 4, 4, 0.002)
POINTS = (
    Point(160, 6, 5, 0.0015), SMALL, replace(SMALL, share=1 / 4), replace(SMALL, share=1 / 16), Point(48, 3, 3, 0.002),
)  # fmt: skip


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Needs ``--structures`` and ``--data``; two trainings run side by side, what is in ``--cache`` is only read."""
    if arguments.structures is None or arguments.data is None:
        raise SystemExit("benchmark: scaling needs --structures TABLE --data FOLDER")
    arguments.cache.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        rows = list(pool.map(_trained, POINTS, repeat(arguments.structures), repeat(arguments.cache)))
    rows = sorted(rows, key=lambda row: (row["crystals"], row["weights"]))
    rows.append(_shipped(arguments.structures, arguments.cache))
    bench, hull = CrystalBench(arguments.structures), published_hull(arguments.data)
    rows = [row | _drawn(bench, hull, row["model"], arguments.cache) for row in rows]
    return {"markdown": _page(pd.DataFrame(rows)), "steps": STEPS, "batch": BATCH, "samples": N, "points": rows}


def _config(structures: Path, *overrides: str) -> TrainConfig:
    """That of the shipped model's experiment, whose size and learning rate each point sets anew."""
    register()
    with initialize_config_module("generators.conf", version_base="1.3"):
        config = compose(
            "train", ["experiment=crystals", f"data.path={structures}", f"data.batch_size={BATCH}", *overrides]
        )  # fmt: skip
    typed: TrainConfig = OmegaConf.to_object(config)  # type: ignore[assignment]
    return typed


def _trained(point: Point, structures: Path, cache: Path) -> dict[str, Any]:
    model, file = cache / f"{point.name}.pt", cache / f"{point.name}.json"
    if file.exists():
        read: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return read
    torch.set_num_threads(1)
    sizes = [f"model.{key}={getattr(point, key)}" for key in ("width", "depth", "heads", "learning_rate")]
    data, module, _ = build_crystals(_config(structures, *sizes))
    _keep(data, point.share)
    trainer = _trainer(max_steps=STEPS)
    trainer.fit(module, data)
    row = {"model": str(model), "crystals": len(data.parts["train"]), "seen": STEPS * BATCH, **_losses(module, data)}
    save_checkpoint(model, "crystal", *module.export())
    file.write_text(json.dumps(row), encoding="utf-8")
    return row


def _shipped(structures: Path, cache: Path) -> dict[str, Any]:
    """The losses of what the shipped model draws prototypes and elements with; it was trained for longer."""
    path, file = shipped("crystal"), cache / "scaling-shipped.json"
    if not file.exists():
        data, module, _ = build_crystals(_config(structures, f"model.initial={path}"))
        row = {"model": str(path), "crystals": len(data.parts["train"]), "seen": None, **_losses(module, data)}
        file.write_text(json.dumps(row), encoding="utf-8")
    read: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return read


def _keep(data: CrystalDataModule, share: float) -> None:
    """A random part of the training crystals, the same for every model."""
    part = data.parts["train"]
    rows = torch.randperm(len(part), generator=torch.Generator().manual_seed(0))[: round(share * len(part))]
    data.parts["train"] = type(part)(part.batch.select(rows), part.labels[rows], part.source[rows])
    data.share = data.share[rows]


def _trainer(**settings: Any) -> pl.Trainer:
    return pl.Trainer(
        logger=False, enable_checkpointing=False, enable_model_summary=False, accelerator="cpu", gradient_clip_val=1.0,
        num_sanity_val_steps=0, limit_val_batches=0, reload_dataloaders_every_n_epochs=1,
        precision=trainer_precision("auto"), **settings,  # type: ignore[arg-type]
    )  # fmt: skip


def _losses(module: CrystalDiffusion, data: CrystalDataModule) -> dict[str, float]:
    found = _trainer(enable_progress_bar=False).test(module, data, verbose=False)[0]
    weights = sum(parameter.numel() for parameter in module.denoiser.parameters())
    return {"weights": weights, **{name.removeprefix("test/"): float(value) for name, value in found.items()}}


def _drawn(bench: CrystalBench, hull: Hull, model: str, cache: Path) -> dict[str, float]:
    """What the model draws under the wish to be stable."""
    file = cache / f"scaling-drawn-{Path(model).stem}.json"
    if not file.exists():
        bench.model = load_crystal_model(Path(model))
        batch = bench.drawn(CrystalTask(n_atoms=(1, LARGEST)), UNSHARPENED, bench.stable())(N, SEED)
        with tempfile.TemporaryDirectory() as folder:
            result = bench.judged(batch, hull, Path(folder))
        figures = {name: result.figures[name].value for name in SHOWN}
        figures["rmsd"] = float(result.table["rmsd"].fillna(float("inf")).median())
        file.write_text(json.dumps(figures), encoding="utf-8")
        print(model, figures, flush=True)
    read: dict[str, float] = json.loads(file.read_text(encoding="utf-8"))
    return read


def _page(frame: pd.DataFrame) -> str:
    lines = []
    for row in frame.to_dict("records"):
        seen = "longer" if pd.isna(row["seen"]) else f"{row['seen'] / 1e6:.2f}"
        losses = " | ".join(f"{row[name]:.3f}" if name in LOSSES[4:] else f"{row[name]:.2f}" for name in LOSSES)
        shares = " | ".join(f"{100 * row[name]:.0f}" for name in SHOWN)
        lines.append(
            f"| {row['weights'] / 1e6:.2f} | {row['crystals']:,} | {seen} | {losses} | {shares} | {row['rmsd']:.3f} |"
        )
    return f"""## Scaling of whole crystals

`python scripts/benchmark.py scaling --structures STRUCTURES.parquet --data FOLDER`: trainings of {STEPS:,} steps of at most {BATCH} crystals on the data of
the shipped model or a random part of them (one thread each, two at a time), and the shipped model, trained for longer. Losses of the test part, nats per crystal
and mean squares as in the model card, of batches of {BATCH}; the shipped ones before its geometry was learnt anew. Then {N} samples each of at most {LARGEST} atoms under the wish to be stable, as in "Whole crystals",
nothing filtered, novel against all that is embedded; shares in % (95 % intervals are at most ± 5), Å to relaxed (median).

| million weights | crystals | million seen | {" | ".join(LOSSES)} | {" | ".join(SHOWN.values())} | Å |
|---|---|---|{"---|" * (len(LOSSES) + len(SHOWN) + 1)}
{chr(10).join(lines)}"""
