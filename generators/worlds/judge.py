"""The judge of a world whose labels are few: an ensemble of orbit graph networks, applied to every crystal once."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from generators.checkpoints import load_checkpoint, save_checkpoint
from generators.datamodule import Batch, EpochBatches
from generators.oracles.surrogate import SurrogateOracle
from generators.oracles.surrogate_module import SurrogateModule, SurrogateOptimizer
from generators.oracles.surrogate_network import SurrogateConfig
from generators.worlds.space import Space

log = logging.getLogger(__name__)
CHUNK = 2048


@dataclass(frozen=True)
class JudgeFit:
    """How the judge is fitted; part of the cache's name."""

    width: int = 64
    depth: int = 3
    members: int = 4
    dropout: float = 0.0
    epochs: int = 40
    batch_size: int = 256
    seed: int = 1_000_001  # far from the seeds of anything that is trained against this judge


def judge_everything(
    space: Space, index: Tensor, labels: Tensor, name: str, cache: Path, settings: JudgeFit | None = None
) -> Tensor:
    """[N] judged values of every crystal of ``space``, read from ``cache`` if they were computed before.

    Args:
        space: all crystals.
        index: [n] the labelled ones; labels: [n].
        name: of the property.
        cache: folder for the values, about 8 bytes per crystal.
        settings: of the fit.
    """
    settings = settings or JudgeFit()
    content = json.dumps([name, asdict(settings), len(space)]).encode() + labels.numpy().tobytes()
    content += index.numpy().tobytes()
    path = cache / f"judge-{hashlib.sha256(content).hexdigest()[:16]}.pt"
    if path.is_file():
        return load_checkpoint(path, "world_judge")[1]["values"]
    log.warning("fitting the judge of %s crystals once, its values are kept in %s", f"{len(space):,}", path)
    oracle = SurrogateOracle(fit_judge(space, index, labels, name, settings))
    values = []
    rows = torch.arange(len(space)).split(CHUNK)
    for part in tqdm(rows, unit_scale=CHUNK, unit="crystal", desc="judge the whole space", mininterval=5.0):
        zero = torch.zeros(len(part), dtype=torch.long)
        values.append(oracle.predict(space.table, zero, space.at(part)).values[name])
    truth = torch.cat(values)
    save_checkpoint(path, "world_judge", {"property": name, **asdict(settings)}, {"values": truth})
    return truth


class _Labels(Dataset[Batch]):
    def __init__(self, elements: Tensor, labels: Tensor) -> None:
        self.elements, self.labels = elements, labels[:, None]

    def __len__(self) -> int:
        return len(self.elements)

    def __getitem__(self, rows: list[int]) -> Batch:
        zero = torch.zeros(len(rows), dtype=torch.long)
        return {"prototype": zero, "elements": self.elements[rows], "labels": self.labels[rows]}


def fit_judge(space: Space, index: Tensor, labels: Tensor, name: str, settings: JudgeFit) -> SurrogateModule:
    """The ensemble, fitted on all labels given: nothing is held out."""
    torch.manual_seed(settings.seed)
    elements = space.at(index)
    center, scale = SurrogateModule.standardisation(labels[:, None], [name])
    module = SurrogateModule(
        space.table,
        [name],
        center,
        scale,
        sorted(set(elements.flatten().tolist())),
        SurrogateConfig(settings.width, settings.depth, 16, settings.members, settings.dropout),
        SurrogateOptimizer(seed=settings.seed),
    )
    rows = _Labels(elements, labels)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=settings.epochs, logger=False, enable_checkpointing=False, enable_model_summary=False,
            accelerator="cpu", gradient_clip_val=1.0, default_root_dir=folder,
        )  # fmt: skip
        trainer.fit(module, DataLoader(rows, sampler=_Shuffled(len(rows), settings), batch_size=None))
    return module.eval()


class _Shuffled(EpochBatches):
    """`EpochBatches` that starts a new epoch whenever it is read again."""

    def __init__(self, n: int, settings: JudgeFit) -> None:
        super().__init__(n, settings.batch_size, settings.seed, -1, shuffle=True, rank=0, ranks=1)

    def __iter__(self):  # type: ignore[no-untyped-def]
        self.epoch += 1
        return super().__iter__()
