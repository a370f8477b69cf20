"""Formation energies of random decorations: the first judge and its second opinions."""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data.decorations import load_decorations
from data.frames import to_frame
from generators.oracles.cgcnn import CgcnnOracle
from generators.oracles.corrections import mp2020_correction
from generators.oracles.judge import JudgeSettings, SevenNetJudge
from generators.oracles.second_opinion import ENERGY, second_opinion
from generators.wish import Wish

N = 100


def differences(second: NDArray[np.float64], first: NDArray[np.float64]) -> dict[str, float]:
    """Of those that have both values, eV/atom."""
    gap = (second - first)[np.isfinite(second)]
    return {
        "n": len(gap),
        "mean_absolute": round(float(np.abs(gap).mean()), 3),
        "mean": round(float(gap.mean()), 3),
        "within_90_percent": round(float(np.quantile(np.abs(gap), 0.9)), 3),
    }


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """The embedded set holds what CHGNet relaxed and found; SevenNet relaxes on, CGCNN reads the structures."""
    torch.set_num_threads(1)
    training = load_decorations()
    rows = torch.randperm(len(training.batch), generator=torch.Generator().manual_seed(0))[:N]
    batch = training.batch.select(rows)
    first = training.properties[ENERGY][rows].numpy()
    table = to_frame(batch).assign(**{ENERGY: first})
    judge, network = SevenNetJudge(JudgeSettings(with_bulk_modulus=False)), CgcnnOracle()
    start = time.perf_counter()
    found = second_opinion(table, Wish({}), judge, network, corrected=False)
    seconds = (time.perf_counter() - start) / N
    raw = found[f"{ENERGY}_{judge.name}"].to_numpy()
    correction = mp2020_correction(batch).numpy()
    anions = correction != 0
    cgcnn = network.evaluate(batch).values[ENERGY].numpy()
    compared = {
        "SevenNet-0, raw": raw,
        "SevenNet-0 with MP2020 corrections": raw + correction,
        "CGCNN": cgcnn,
    }
    figures: dict[str, Any] = {
        "crystals": N,
        "with_corrected_anions": int(anions.sum()),
        "seconds_per_crystal": round(seconds, 3),
        "evaluations_per_crystal": round(judge.potential.n_evaluations / N, 1),
        "failed": found[f"reason_{judge.name}"].replace("", np.nan).dropna().value_counts().to_dict(),
        "against_chgnet": {
            title: {
                "all": differences(value, first),
                "anions": differences(value[anions], first[anions]),
                "no_anions": differences(value[~anions], first[~anions]),
            }
            for title, value in compared.items()
        },
    }
    return {"markdown": markdown(figures), **figures}


def markdown(figures: dict[str, Any]) -> str:
    """This part of the page."""
    lines = []
    for title, gap in figures["against_chgnet"].items():
        cells = [f"{gap[k]['mean_absolute']:.3f} ({gap[k]['mean']:+.3f})" for k in ("all", "anions", "no_anions")]
        lines.append(f"| {title} | {' | '.join(cells)} | {gap['all']['within_90_percent']:.2f} |")
    table = "\n".join(lines)
    failed = ", ".join(f"{reason} {n}" for reason, n in figures["failed"].items()) or "none"
    return f"""## Second opinions on formation energies

`python scripts/benchmark.py agreement`: {figures["crystals"]} random crystals of the embedded set, relaxed by CHGNet, relaxed on by SevenNet within
symmetry ({figures["evaluations_per_crystal"]:.1f} evaluations, {figures["seconds_per_crystal"]:.2f} s each, one thread; failed: {failed}) and read by CGCNN. Differences to CHGNet's
formation energies in eV/atom, mean absolute (mean); {figures["with_corrected_anions"]} crystals hold anions that the Materials Project corrects.

| | all | with such anions | without | 90 % within |
|---|---|---|---|---|
{table}

CHGNet was trained on corrected energies, SevenNet-0 on raw ones; most of the difference between them for compounds
of anions is this correction."""
