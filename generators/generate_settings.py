"""How a wish is answered: numbers that a user may change."""

from __future__ import annotations

from dataclasses import dataclass

MAY_DIFFER = ("logger.", "oracle.workers", "oracle.device", "oracle.second_opinions", "top")
"""Keys that another command in the folder of a run may change."""


@dataclass(frozen=True)
class GenerateSettings:
    """How a wish is answered.

    Attributes:
        seed: of every draw.
        judge_calls: candidates that the judge relaxes.
        pool: unique novel proposals that the surrogate ranks to choose those.
        guidance: strength of classifier-free guidance (1: the plain conditional model).
        temperature: of every draw.
        prototypes: names to decorate; empty means all that the model was trained on, in the proportions that
            it expects under the wish.
        baselines: also judge what random decoration and surrogate screening propose.
        baseline_pool: random decorations that the surrogate screening ranks.
        workers: judge processes.
        device: of the judge, ``auto`` for whatever is there.
        shard_size: proposals per shard.
        max_shards: give up proposing after so many.
    """

    seed: int = 0
    judge_calls: int = 300
    pool: int = 3000
    guidance: float = 1.0
    temperature: float = 1.0
    prototypes: tuple[str, ...] = ()
    baselines: bool = False
    baseline_pool: int = 20_000
    workers: int = 2
    device: str = "auto"
    shard_size: int = 1024
    max_shards: int = 200

    def __post_init__(self) -> None:
        for name in ("judge_calls", "pool", "baseline_pool", "workers", "shard_size", "max_shards"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.guidance < 0:
            raise ValueError(f"guidance={self.guidance}: must not be negative")
        if self.temperature <= 0:
            raise ValueError(f"temperature={self.temperature}: must be positive")
        if self.pool < self.judge_calls:
            raise ValueError(f"pool={self.pool}: must not be smaller than judge_calls={self.judge_calls}")
