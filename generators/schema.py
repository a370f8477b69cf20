"""The configuration's closed parts: a typo in a key is an error that names the key."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING


@dataclass
class DataConfig:
    """Which crystals to train on."""

    path: str | None = None  # None: the embedded decorations; else CSV or Parquet with (prototype, elements)
    properties: list[str] = field(default_factory=list)  # labels to learn; empty: every numeric column
    prototype_cifs: list[str] = field(default_factory=list)  # the user's own prototypes
    limit: int | None = None
    fractions: list[float] = field(default_factory=lambda: [0.9, 0.05, 0.05])
    batch_size: int = 512


@dataclass
class ModelConfig:
    """Which model, how large, how trained."""

    kind: str = MISSING  # composition | surrogate
    width: int = 128
    depth: int = 4
    heads: int = 4
    n_radial: int = 16
    members: int = 4
    dropout: float = 0.1
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    warmup_steps: int = 100
    ema_decay: float = 0.998
    unconditional: float = 0.15


@dataclass
class TrainerConfig:
    """Passed to pytorch_lightning.Trainer."""

    max_epochs: int = 40
    accelerator: str = "auto"
    devices: str = "auto"
    strategy: str = "auto"
    precision: str = "32-true"
    gradient_clip_val: float = 1.0
    check_val_every_n_epoch: int = 1


@dataclass
class LoggerConfig:
    """Where figures go."""

    name: str = "wandb"  # wandb | csv | none
    project: str = "raremat"


@dataclass
class TrainConfig:
    """Root of ``raremat-train``."""

    run: str = MISSING
    seed: int = 0
    export: str | None = None  # where the finished model goes; None: RUN/model.pt
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)


@dataclass
class OracleConfig:
    """The judge."""

    max_force: float = 0.1
    max_stress: float = 0.5
    max_evaluations: int = 60
    with_bulk_modulus: bool = True
    workers: int = 2


@dataclass
class ScreeningConfig:
    """From proposals to judged candidates."""

    judge_calls: int = 300
    pool: int = 3000
    guidance: float = 1.0
    temperature: float = 1.0
    shard_size: int = 1024
    max_shards: int = 200
    baselines: bool = False
    baseline_pool: int = 20_000


@dataclass
class TargetConfig:
    """The wish."""

    wish: dict[str, Any] = field(default_factory=dict)
    allowed_elements: list[str] | None = None
    forbidden_elements: list[str] = field(default_factory=list)
    prototypes: list[str] = field(default_factory=list)
    prototype_cifs: list[str] = field(default_factory=list)


@dataclass
class GenerateConfig:
    """Root of ``raremat-generate``."""

    run: str = MISSING
    seed: int = 0
    generator: str | None = None  # a model file; None: the shipped one
    surrogate: str | None = None
    data: str | None = None  # training table for novelty; None: the embedded one
    top: int = 50  # crystals written as CIF
    target: TargetConfig = field(default_factory=TargetConfig)
    oracle: OracleConfig = field(default_factory=OracleConfig)
    screening: ScreeningConfig = field(default_factory=ScreeningConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)


def register() -> None:
    """Put the schemas into Hydra's store."""
    store = ConfigStore.instance()
    store.store(name="train_schema", node=TrainConfig)
    store.store(name="generate_schema", node=GenerateConfig)
