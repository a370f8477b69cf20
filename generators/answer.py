"""``raremat-generate`` from configuration to the files of the run folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.dataset import CrystalDataset
from data.decorations import load_decorations
from data.prototypes import Prototype
from generators.build import load_data, load_generator
from generators.export import write_candidates
from generators.generate import Generation, describe
from generators.generate_settings import MAY_DIFFER, GenerateSettings
from generators.judging import write_parquet
from generators.manifest import claim_folder, write_json
from generators.oracles.judge import PROPERTIES as JUDGED
from generators.oracles.judge import JudgeSettings
from generators.oracles.surrogate import SurrogateOracle
from generators.outcome import Answer
from generators.report.html import write_report
from generators.schema import DataConfig, GenerateConfig
from generators.shipped import shipped
from generators.wish import Wish, parse_wish

if TYPE_CHECKING:
    from generators.confirm import SecondJudges


def answer(config: GenerateConfig, plain: dict[str, Any], folder: Path) -> str:
    """Run, write everything, and return the text for the terminal.

    Raises:
        ValueError: anything in the wish, the files or the folder that cannot be used.
    """
    module = load_generator(config.generator)
    surrogate_path = Path(config.surrogate) if config.surrogate else shipped("surrogate")
    surrogate = SurrogateOracle.load(surrogate_path)
    judged = (*JUDGED, "e_above_hull")
    known = [s.name for s in module.scales if s.name in surrogate.properties and s.name in judged]
    target = config.target
    wish = parse_wish(
        target.wish,
        known,
        lambda name, share: _quantile(module, name, share),
        target.allowed_elements,
        target.forbidden_elements,
    )
    screening, oracle = config.screening, config.oracle
    settings = GenerateSettings(
        seed=config.seed,
        judge_calls=screening.judge_calls,
        pool=screening.pool,
        guidance=1.0 if screening.guidance is None else screening.guidance,
        temperature=1.0 if screening.temperature is None else screening.temperature,
        prototypes=tuple(target.prototypes),
        baselines=screening.baselines,
        baseline_pool=screening.baseline_pool,
        workers=oracle.workers,
        device=oracle.device,
        shard_size=screening.shard_size,
        max_shards=screening.max_shards,
    )
    extra = [Prototype.from_file(Path(p)) for p in target.prototype_cifs]
    training = _training(config.data.path)
    judge = JudgeSettings(
        oracle.max_force, oracle.max_stress, oracle.max_evaluations, oracle.with_bulk_modulus, oracle.all_bulk_moduli
    )
    generation = Generation(module, surrogate, training, wish, settings, folder, extra, judge)
    second = _second_judges() if oracle.second_opinions else None
    files = {
        "generator": Path(config.generator) if config.generator else shipped("composition"),
        "surrogate": surrogate_path,
    }
    claim_folder(folder, plain, files, MAY_DIFFER)
    result = generation.run()
    if second is not None:
        result = second.confirm(result, wish, oracle.second_opinions, folder)
    return write_answer(result, generation.training, wish, folder, config)


def _second_judges() -> SecondJudges:
    from generators.confirm import SecondJudges

    return SecondJudges()


def write_answer(result: Answer, training: CrystalDataset, wish: Wish, folder: Path, config: GenerateConfig) -> str:
    """Tables, structures, report and W&B; returns the text for the terminal."""
    write_candidates(result.candidates, result.batch, folder, config.top)
    write_parquet(result.rejected, folder / "rejected.parquet")
    write_json(folder / "summary.json", result.summary)
    report = write_report(folder, result, training, wish)
    if config.logger.name == "wandb":
        from generators.wandb_logging import log_answer

        log_answer(folder, config.logger.project, config.run, result, training, wish)
    best = result.candidates.head(5)
    lines = [f"wish: {wish.describe()}", describe(result.summary), "", "best:"]
    for row in best.itertuples():
        values = ", ".join(f"{name} {getattr(row, name):.3f}" for name in wish.intervals)
        lines.append(f"  {row.formula:16s}{row.prototype:20s}{values}")
    lines.append(f"report: {report}")
    return "\n".join(lines)


def _quantile(module: Any, name: str, share: float) -> float:
    import torch

    scale = next(s for s in module.scales if s.name == name)
    return float(scale.quantile(torch.tensor([share], dtype=torch.float64)))


def _training(path: str | None) -> CrystalDataset:
    if path is None:
        return load_decorations()
    return load_data(DataConfig(path=path))[0]
