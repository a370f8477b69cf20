"""``raremat-generate task=crystals`` from configuration to the files of the run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from data.prototypes import prototype_library
from data.sources import read_crystals
from generators.conditioning import Conditions
from generators.crystals.draws import CrystalDraws, drawing_device
from generators.crystals.generate import CrystalGeneration, CrystalRunSettings, describe_crystals
from generators.crystals.judging import CrystalJudge
from generators.crystals.model import CrystalModel, load_crystal_model
from generators.crystals.rounds import RoundSettings
from generators.crystals.task_schema import SOURCES
from generators.crystals.tasks import crystal_task, describe_task
from generators.crystals.usual import asked, usual, with_usual_elements
from generators.export import write_candidates
from generators.generate_settings import MAY_DIFFER
from generators.judging import write_parquet
from generators.manifest import claim_folder, write_json
from generators.oracles.base import Oracle
from generators.oracles.cgcnn import CgcnnOracle
from generators.oracles.judge import JudgeSettings
from generators.outcome import Answer
from generators.report.crystals import write_crystal_report
from generators.sampling.crystal_geometry import CrystalSamplerSettings
from generators.sampling.crystal_task import CrystalTask
from generators.schema import GenerateConfig
from generators.shipped import shipped
from generators.wish import Wish, parse_wish

BEST = 5
EXCHANGE = 0.5
GPU_BATCH = 4096
"""Crystals in one evaluation on a graphics card."""


def answer_crystals(config: GenerateConfig, plain: dict[str, Any], folder: Path) -> str:
    """Run, write everything, and return the text for the terminal.

    Raises:
        ValueError: anything in the task, the wish, the files or the folder that cannot be used.
    """
    if config.screening.baselines:
        raise ValueError("screening.baselines: not with task=crystals, compare with raremat-evaluate")
    path = Path(config.generator) if config.generator else shipped("crystal")
    model = load_crystal_model(path)
    wish = _wish(config, model)
    task_config, target = config.task, config.target
    names = [*target.prototypes, *task_config.prototypes]
    task_config.prototypes = names
    library = prototype_library()
    if target.prototype_cifs:
        library = library.with_files([Path(p) for p in target.prototype_cifs])
    given = crystal_task(task_config, wish, model.known_elements, library)
    task = with_usual_elements(given, wish, model.known_elements)
    screening, oracle = config.screening, config.oracle
    device = drawing_device(oracle.device)
    settings = sampler_settings(config, task, wish, device)
    draws = CrystalDraws(
        path, settings, task, Conditions.from_wish(asked(task, wish), [s.name for s in model.scales], 1), config.seed,
        device, task_config.templates,
    )  # fmt: skip
    if task.seeds is not None:
        draws.sampler().usable_seeds(task)  # told before the folder is there
    by_composition = bool(task.composition)
    run = CrystalRunSettings(
        n=task_config.n,
        shard_size=task_config.shard_size,
        judge_calls=screening.judge_calls,
        top=config.top,
        keep_known=by_composition if task_config.keep_known is None else task_config.keep_known,
        geometries=task_config.geometries or (None if by_composition else 1),
        workers=oracle.workers,
        likely=screening.choose == "likely",
        rounds=_rounds(config, task),
    )
    own = read_crystals(Path(config.data.path))[0] if config.data.path else None
    judge = JudgeSettings(
        oracle.max_force, oracle.max_stress, oracle.max_evaluations, oracle.with_bulk_modulus, oracle.all_bulk_moduli
    )
    network = _gap_network() if screening.band_gap else None
    crystal_judge = CrystalJudge(
        wish, judge, oracle.workers, oracle.device, "known" if screening.hull == "known" else "embedded", network
    )
    spread = {scale.name: float(scale.std) for scale in model.scales}
    told = describe_task(task_config) + ("" if task is given else "; no noble gases, no radioactive elements")
    generation = CrystalGeneration(draws, wish, told, spread, run, folder, crystal_judge, own)
    second = _second_judges() if oracle.second_opinions else None
    claim_folder(folder, plain, {"generator": path}, MAY_DIFFER)
    result = generation.run()
    if second is not None and screening.judge_calls:
        result = second.confirm(result, wish, oracle.second_opinions, folder)
    return _write(result, generation, config, folder)


def sampler_settings(config: GenerateConfig, task: CrystalTask, wish: Wish, device: str) -> CrystalSamplerSettings:
    """How crystals are drawn: what the configuration leaves open follows from the task, the wish and the device."""
    screening, given = config.screening, config.task
    best = usual(task, wish)
    guidance = best.guidance if screening.guidance is None else screening.guidance
    temperature = best.temperature if screening.temperature is None else screening.temperature
    return CrystalSamplerSettings(
        guidance=guidance,
        temperature=temperature,
        prototype_guidance=guidance if given.prototype_guidance is None else given.prototype_guidance,
        prototype_temperature=temperature if given.prototype_temperature is None else given.prototype_temperature,
        steps=given.steps,
        source=SOURCES.index(best.like if given.like is None else given.like),
        batch_size=CrystalSamplerSettings.batch_size if device == "cpu" else GPU_BATCH,
    )


def _rounds(config: GenerateConfig, task: CrystalTask) -> RoundSettings | None:
    screening = config.screening
    if not screening.rounds:
        return None
    if screening.judge_calls < screening.rounds:
        raise ValueError(f"screening.rounds={screening.rounds}: needs as many screening.judge_calls at least")
    bound = bool(task.composition) or task.seeds is not None
    if bound and screening.exchange:
        raise ValueError(
            f"screening.exchange={screening.exchange}: exchanged crystals keep to no composition, prototype or seed, "
            "say screening.exchange=0"
        )
    exchange = (0.0 if bound else EXCHANGE) if screening.exchange is None else screening.exchange
    return RoundSettings(
        screening.rounds, exchange, 0 if bound else screening.similar, screening.seeds,
        workers=config.oracle.workers, shard_size=config.task.shard_size,
    )  # fmt: skip


def _gap_network() -> Oracle:
    try:
        return CgcnnOracle()
    except ImportError as error:
        raise ValueError(f"screening.band_gap: {error}") from None


def _second_judges() -> Any:
    from generators.confirm import SecondJudges

    return SecondJudges()


def _wish(config: GenerateConfig, model: CrystalModel) -> Wish:
    target = config.target
    if target.wish is not None and not isinstance(target.wish, dict):
        raise ValueError(f"target.wish={target.wish}: write it as 'target.wish={{bulk_modulus: [150, null]}}'")
    scales = {scale.name: scale for scale in model.scales}

    def quantile(name: str, share: float) -> float:
        return float(scales[name].quantile(torch.tensor([share], dtype=torch.float64)))

    return parse_wish(target.wish or {}, list(scales), quantile, target.allowed_elements, target.forbidden_elements)


def _write(result: Answer, generation: CrystalGeneration, config: GenerateConfig, folder: Path) -> str:
    """Tables, structures, report and W&B; returns the text for the terminal."""
    write_candidates(result.candidates, result.batch, folder, config.top)
    write_parquet(result.rejected, folder / "rejected.parquet")
    write_json(folder / "summary.json", result.summary)
    report = write_crystal_report(folder, result, generation.judge.measured)
    if config.logger.name == "wandb":
        from generators.wandb_logging import log_crystals

        log_crystals(folder, config.logger.project, config.run, result, generation.judge.measured)
    lines = [
        f"task: {result.summary['task']}",
        f"wish: {generation.wish.describe()}",
        describe_crystals(result),
        "",
        "best:",
    ]
    for row in result.candidates.head(BEST).to_dict("records"):
        values = [f"{name} {row[name]:.3f}" for name in generation.judge.measured.intervals if name in row]
        if "e_above_hull" in row and "e_above_hull" not in generation.judge.measured.intervals:
            values.append(f"e_above_hull {row['e_above_hull']:.3f}")
        lines.append(f"  {row['formula']:16s}{row['protostructure']:34s}{', '.join(values)}".rstrip())
    lines.append(f"samples: {folder / 'samples.parquet'}")
    lines.append(f"report: {report}")
    return "\n".join(lines)
