"""``raremat-evaluate`` from configuration to the files of the run folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data.sources import Source, read_crystals
from generators.evaluation.evaluate import MIN_DISTANCE, STABLE, Evaluation, Protocol, Reference, evaluate
from generators.evaluation.matching import SETTINGS as MATCHING
from generators.evaluation.metrics import MEANS, SHARES, Figure
from generators.evaluation.samples import read_samples
from generators.export import write_extxyz
from generators.judging import JudgeWorkers, write_parquet
from generators.manifest import claim_folder, write_json
from generators.oracles.chgnet_potential import SCALE
from generators.oracles.hull import Hull
from generators.oracles.hull_tables import EMBEDDED, WORDS, chgnet_hull, read_hull, reference_compounds
from generators.oracles.judge import JudgeSettings
from generators.oracles.phonons import PhononSettings
from generators.schema import EvaluateConfig
from generators.screening.charge_balance import SETTINGS as CHARGE_BALANCE

MAY_DIFFER = ("oracle.workers", "oracle.device")
UNITS = {"density": "g/cm^3", "elements_per_formula": "", "formation_energy_per_atom": "eV/atom"}


def evaluate_command(config: EvaluateConfig, plain: dict[str, Any], folder: Path) -> str:
    """Run, write everything, and return the text for the terminal.

    Raises:
        ValueError: anything in the paths or the folder that cannot be used.
    """
    if config.path is None:
        raise ValueError("path: say what to evaluate, for instance raremat-evaluate samples.zip")
    path, known = Path(config.path), config.reference
    files = {"samples": path} if path.is_file() else {}
    files |= {f"hull_{i}": Path(p) for i, p in enumerate(known.hull) if p not in WORDS}
    files |= {"reference": Path(known.structures)} if known.structures else {}
    for name, file in files.items():
        if not file.is_file():
            raise ValueError(f"{name}={str(file)!r}: no such file")
    hull = _hull(known.hull, known.hull_scale)
    with tqdm(unit="crystal", desc="read", mininterval=1.0) as bar:
        samples = read_samples(path, config.symprec, config.first, progress=bar.update)
    if known.structures:
        dataset, _ = read_crystals(Path(known.structures), Source(symprec=config.symprec, labels=False))
        reference = Reference.from_dataset(dataset)
    else:
        reference = Reference.from_table(reference_compounds())
    claim_folder(folder, plain, files, MAY_DIFFER)
    protocol = Protocol(
        config.symprec, config.relaxed_symprec, config.relax, config.metastable, config.bootstrap, config.seed,
        config.phonons,
    )  # fmt: skip
    oracle = config.oracle
    judge = JudgeWorkers(
        JudgeSettings(
            oracle.max_force,
            oracle.max_stress,
            oracle.max_evaluations,
            oracle.with_bulk_modulus,
            oracle.all_bulk_moduli,
        ),
        oracle.workers,
        oracle.device,
    )
    result = evaluate(samples, protocol, reference, hull, judge, folder)
    _write(result, protocol, hull, config, folder)
    return describe(result, samples.n_all, folder)


def _hull(paths: list[str], scale: str | None) -> Hull:
    tables = paths or [EMBEDDED]
    if scale is None and set(tables) <= set(WORDS):
        scale = SCALE  # this package knows its own
    if scale is None:
        raise ValueError(
            f"reference.hull_scale: name the energy scale of your hull tables; the judge's energies are on {SCALE!r}"
        )
    if scale != SCALE:
        raise ValueError(
            f"reference.hull_scale={scale}: the judge's energies are on {SCALE!r} and two scales never meet in one "
            f"hull; if you want it all the same, say reference.hull_scale='{SCALE}'"
        )
    return chgnet_hull() if tables == [EMBEDDED] else read_hull([Path(p) for p in tables], scale)


def _write(result: Evaluation, protocol: Protocol, hull: Hull, config: EvaluateConfig, folder: Path) -> None:
    write_parquet(result.table, folder / "evaluation.parquet")
    if result.relaxed is not None:
        write_extxyz(result.table.iloc[: len(result.relaxed)], result.relaxed, folder / "relaxed.extxyz")
    reasons = result.table["reason"]
    card = {
        **asdict(protocol),
        "judge": f"{SCALE}, max_force {config.oracle.max_force} eV/Å, max_stress {config.oracle.max_stress} GPa, "
        f"at most {config.oracle.max_evaluations} evaluations",
        "hull": f"{len(hull)} compositions on {hull.scale}, {', '.join(config.reference.hull) or EMBEDDED}",
        "reference": config.reference.structures or "embedded reference compounds (labels only)",
        "matching": MATCHING,
        "charge_balance": CHARGE_BALANCE,
        "valid_structure": f"shortest distance at least {MIN_DISTANCE} Å",
        "phonons": str(PhononSettings()),
        "stable": f"at most {STABLE} eV/atom above the hull",
    }
    content = {
        "samples": len(result.table),
        "figures": {name: asdict(figure) for name, figure in result.figures.items()},
        "wasserstein_distances": result.distances,
        "coverage": {**asdict(result.coverage), "share": result.coverage.share},
        "reasons": reasons[reasons != ""].value_counts().head(50).to_dict(),
        "protocol": card,
    }
    write_json(folder / "metrics.json", content)


def describe(result: Evaluation, n: int, folder: Path) -> str:
    """The figures as text for the terminal."""
    lines = [f"{n:,} samples; shares of all of them with 95 % bootstrap intervals"]
    for name, figure in result.figures.items():
        lines.append(_line(name, figure, SHARES.get(name) or MEANS[name], name in SHARES))
    for name, value in result.distances.items():
        lines.append(f"  {'distance in ' + name:34s}{value:8.4f}   {UNITS[name]}")
    found = result.coverage
    lines.append(f"  coverage: {found.found:,} of {found.reference:,} reference crystals ({found.share:.2%})")
    lines.append(f"figures and protocol: {folder / 'metrics.json'}")
    return "\n".join(lines)


def _line(name: str, figure: Figure, meaning: str, share: bool) -> str:
    if figure.n == 0:
        return f"  {name:22s} none"
    unit = 100 if share else 1
    text = f"{figure.value * unit:8.2f} ({figure.low * unit:.2f} to {figure.high * unit:.2f})"
    return f"  {name:22s}{text:30s}{'% ' if share else ''}{meaning}"
