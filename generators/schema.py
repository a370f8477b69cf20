"""The configuration's closed parts: a typo in a key is an error that names the key.

Every class checks its own values when it is made and raises ValueError with the dotted key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from generators.crystals.task_schema import TaskConfig

LOGGERS = ("wandb", "csv", "none")
TENSOR_FRAMES = ("structure", "ieee")
RELAXATIONS = ("symmetric", "free", "none")
HULLS = ("embedded", "known")
CHOICES = ("likely", "first")


def _at_least(config: object, prefix: str, low: float, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and not value >= low:
            raise ValueError(f"{prefix}{name}={value}: must be at least {low:g}")


def _positive(config: object, prefix: str, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and not value > 0:
            raise ValueError(f"{prefix}{name}={value}: must be positive")


def _share(config: object, prefix: str, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(f"{prefix}{name}={getattr(config, name)}: must lie in [0, 1)")


@dataclass
class DataConfig:
    """Which crystals to train on."""

    path: str | None = None  # None: the embedded decorations; else CSV or Parquet with (prototype, elements)
    properties: list[str] = field(default_factory=list)  # labels to learn; empty: every numeric column
    prototype_cifs: list[str] = field(default_factory=list)  # the user's own prototypes
    limit: int | None = None
    fractions: list[float] = field(default_factory=lambda: [0.9, 0.05, 0.05])
    batch_size: int = 512
    max_orbits: int = 32  # of whole crystals; larger ones are left out
    chosen_share: float = 1.0  # of the embedded chosen draws that one pass sees (crystal); 0: they are left out
    chosen_balanced: bool = False  # of these only charge-balanced ones and alloys
    tensor_frame: str = "structure"  # axes of tensor columns: those of the lattice, or the IEEE standard's

    def __post_init__(self) -> None:
        _at_least(self, "data.", 1, "limit", "batch_size", "max_orbits")
        if not 0 <= self.chosen_share <= 1:
            raise ValueError(f"data.chosen_share={self.chosen_share}: must lie in [0, 1]")
        if self.tensor_frame not in TENSOR_FRAMES:
            raise ValueError(f"data.tensor_frame={self.tensor_frame}: use one of {', '.join(TENSOR_FRAMES)}")
        if len(self.fractions) != 3 or min(self.fractions) <= 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise ValueError(
                f"data.fractions={list(self.fractions)}: give three shares (train, val, test) that sum to 1"
            )


@dataclass
class ModelConfig:
    """Which model, how large, how trained."""

    kind: str = MISSING  # composition | crystal | surrogate | structure
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
    cutoff: float = 5.0  # Å, of the structure network
    initial: str | None = None  # a model file whose weights training starts from (crystal)
    learn: str = "all"  # all | geometry: prototypes and elements stay those of the initial model (crystal)

    def __post_init__(self) -> None:
        _at_least(self, "model.", 1, "width", "depth", "heads", "members")
        _at_least(self, "model.", 0 if self.kind == "crystal" else 1, "n_radial")  # 0: distances are not seen
        _at_least(self, "model.", 0, "weight_decay", "warmup_steps")
        _positive(self, "model.", "learning_rate", "cutoff")
        _share(self, "model.", "dropout", "ema_decay", "unconditional")
        if self.learn not in ("all", "geometry"):
            raise ValueError(f"model.learn={self.learn!r}: use all or geometry")
        if self.learn == "geometry" and self.initial is None:
            raise ValueError("model.learn=geometry: needs model.initial, whose prototypes and elements stay")


@dataclass
class TrainerConfig:
    """Passed to pytorch_lightning.Trainer."""

    max_epochs: int = 40
    accelerator: str = "auto"
    devices: str = "auto"
    strategy: str = "auto"
    precision: str = "32-true"  # as Lightning spells it; auto: bf16-mixed where the processor is fast at it
    gradient_clip_val: float = 1.0
    check_val_every_n_epoch: int = 1
    local_steps: int = 1  # processes average their weights after so many steps; 1: their gradients in every step

    def __post_init__(self) -> None:
        _at_least(self, "trainer.", 1, "max_epochs", "check_val_every_n_epoch", "local_steps")
        _at_least(self, "trainer.", 0, "gradient_clip_val")


@dataclass
class LoggerConfig:
    """Where figures go."""

    name: str = "wandb"  # wandb | csv | none
    project: str = "raremat"

    def __post_init__(self) -> None:
        if self.name not in LOGGERS:
            raise ValueError(f"logger.name={self.name}: use one of {', '.join(LOGGERS)}")


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

    def __post_init__(self) -> None:
        _at_least(self, "", 0, "seed")


@dataclass
class OracleConfig:
    """The judge."""

    max_force: float = 0.1
    max_stress: float = 0.5
    max_evaluations: int = 60
    with_bulk_modulus: bool = True
    all_bulk_moduli: bool = False  # not only of cubic crystals without free coordinates; twice the time
    workers: int = 2  # processes; they share a GPU
    device: str = "auto"  # auto | cpu | cuda | mps
    second_opinions: int = 0  # so many of the best candidates go to SevenNet and CGCNN (pip install 'raremat[second]')

    def __post_init__(self) -> None:
        _positive(self, "oracle.", "max_force", "max_stress")
        _at_least(self, "oracle.", 0, "second_opinions")
        _at_least(self, "oracle.", 1, "max_evaluations", "workers")


@dataclass
class ScreeningConfig:
    """From proposals to judged candidates."""

    judge_calls: int = 300  # 0: samples only, of whole crystals
    pool: int = 3000
    guidance: float | None = None  # weight on the wish; None: 1, for whole crystals 4, or 3 on what is given
    temperature: float | None = (
        None  # below 1: likelier crystals; None: 1, for whole crystals 0.9, or 0.5 on what is given
    )
    shard_size: int = 1024
    max_shards: int = 200
    baselines: bool = False
    baseline_pool: int = 20_000
    choose: str = "likely"  # of whole crystals: likely (to be hits, by the embedded surrogate) | first (drawn)
    rounds: int = 0  # above 0, of whole crystals: judge calls in so many rounds, chosen by a surrogate that learns
    exchange: float | None = None  # with rounds: share of the draws that change the best crystals so far; None: 0.5
    similar: int = 4000  # with rounds: children of the best crystals per round, by similar elements, without the model
    seeds: int = 150  # with rounds: so many best crystals are changed
    hull: str = "embedded"  # what e_above_hull of whole crystals counts against: embedded | known (they exist)
    band_gap: bool = False  # of whole crystals, judged by CGCNN once they are relaxed (pip install 'raremat[second]')

    def __post_init__(self) -> None:
        names = ("pool", "shard_size", "max_shards", "baseline_pool", "seeds")
        _at_least(self, "screening.", 1, *names)
        _at_least(self, "screening.", 0, "guidance", "judge_calls", "rounds", "similar")
        if self.exchange is not None and not 0 <= self.exchange <= 1:
            raise ValueError(f"screening.exchange={self.exchange}: must lie between 0 and 1")
        if self.hull not in HULLS:
            raise ValueError(f"screening.hull={self.hull}: use one of {', '.join(HULLS)}")
        if self.choose not in CHOICES:
            raise ValueError(f"screening.choose={self.choose}: use one of {', '.join(CHOICES)}")
        _positive(self, "screening.", "temperature")


@dataclass
class TargetConfig:
    """The wish."""

    # Any, not a dictionary: what is typed on the command line shall replace it, and dictionaries are merged.
    wish: Any = None  # {property: [low, high]}, null for an open side, or {property: "lowest 1 %"}
    allowed_elements: list[str] | None = None
    forbidden_elements: list[str] = field(default_factory=list)
    prototypes: list[str] = field(default_factory=list)
    prototype_cifs: list[str] = field(default_factory=list)


@dataclass
class TrainingTableConfig:
    """Group ``data`` of ``raremat-generate``: what the generator was trained on."""

    path: str | None = None  # table or folder, against which novelty counts; None: the embedded one


@dataclass
class GenerateConfig:
    """Root of ``raremat-generate``."""

    run: str = MISSING
    seed: int = 0
    generator: str | None = None  # a model file; None: the shipped one
    surrogate: str | None = None
    data: TrainingTableConfig = field(default_factory=TrainingTableConfig)
    top: int = 50  # crystals written as CIF
    target: TargetConfig = field(default_factory=TargetConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    oracle: OracleConfig = field(default_factory=OracleConfig)
    screening: ScreeningConfig = field(default_factory=ScreeningConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)

    def __post_init__(self) -> None:
        _at_least(self, "", 0, "seed", "top")
        if self.task.kind == "crystals":
            return
        screening, given = self.screening, self.task.given()
        if given:
            raise ValueError(f"task.{given[0]}: is for whole crystals, say task=crystals too")
        if screening.rounds:
            raise ValueError(f"screening.rounds={screening.rounds}: is for whole crystals, say task=crystals too")
        if screening.pool < screening.judge_calls:
            raise ValueError(f"screening.pool={screening.pool}: must be at least judge_calls={screening.judge_calls}")


@dataclass
class ReferenceConfig:
    """What is known already, and the hull."""

    structures: str | None = None  # for novelty; None: the labels of the embedded reference compounds
    hull: list[str] = field(default_factory=list)  # embedded (default) | known | tables: formula, formation energy
    hull_scale: str | None = None  # must be named for your own tables; an energy of another scale is an error


@dataclass
class EvaluateConfig:
    """Root of ``raremat-evaluate``."""

    path: str | None = None  # folder or zip of structure files, one structure file, or a table
    run: str = MISSING
    seed: int = 0
    first: int | None = None  # only so many rows
    symprec: float = 0.01  # Å, for reading the samples
    relaxed_symprec: float = 0.1  # Å, for comparing relaxed crystals
    relax: str = "symmetric"  # symmetric | free | none
    metastable: float = 0.1  # eV/atom above the hull
    bootstrap: int = 1000
    phonons: int = 0  # so many metastable samples are tested for imaginary modes
    reference: ReferenceConfig = field(default_factory=ReferenceConfig)
    oracle: OracleConfig = field(default_factory=OracleConfig)

    def __post_init__(self) -> None:
        _at_least(self, "", 0, "seed", "phonons")
        _at_least(self, "", 1, "first", "bootstrap")
        _positive(self, "", "symprec", "relaxed_symprec")
        if self.relax not in RELAXATIONS:
            raise ValueError(f"relax={self.relax}: use one of {', '.join(RELAXATIONS)}")


@dataclass
class CampaignConfig:
    """Root of ``raremat-campaign``."""

    run: str = MISSING
    seed: int = 0
    world: str = "elpasolite"  # elpasolite | perov_5 | perov_5_gap | decorations
    tables: str | None = None  # folder of the world's published table; decorations needs none
    cache: str = "outputs/worlds"  # where a fitted judge, or what it said, is kept
    labels: int | None = 0  # labels known at the start; 0: none at all, null: all of the world's table
    start: str | None = None  # run folder of another campaign in this world: its models, and all that it judged
    budget: int = 3000  # judge calls
    enough: int | None = None  # stop when so many hits are found
    patience: int | None = None  # stop after so many rounds without a hit
    batch: int = 250  # judge calls per round
    first: int = 250  # random crystals of the first round, if nothing is known
    explore: float = 0.2
    draws: int = 6000
    per_system: float = 0.15
    steps: int = 300  # of teaching, per round
    samples: int = 2000  # drawn for the Goodhart check at the end
    target: TargetConfig = field(default_factory=TargetConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)

    def __post_init__(self) -> None:
        _at_least(self, "", 0, "seed", "labels", "samples")
        _at_least(self, "", 1, "budget", "batch", "first", "draws", "steps", "enough", "patience")
        _share(self, "", "explore")
        if self.start is not None and self.labels != 0:
            raise ValueError(f"start={self.start}: brings its own labels, leave labels={self.labels} out")


def register() -> None:
    """Put the schemas into Hydra's store."""
    store = ConfigStore.instance()
    store.store(name="train_schema", node=TrainConfig)
    store.store(name="generate_schema", node=GenerateConfig)
    store.store(name="evaluate_schema", node=EvaluateConfig)
    store.store(name="campaign_schema", node=CampaignConfig)
