"""Formation energies of random decorations: the first judge and its second opinions."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common import Bench
from data.decorations import load_decorations
from data.frames import to_frame
from generators.generate import Generation
from generators.generate_settings import GenerateSettings
from generators.oracles.cgcnn import CgcnnOracle
from generators.oracles.corrections import mp2020_correction
from generators.oracles.judge import JudgeSettings, SevenNetJudge
from generators.oracles.second_opinion import ENERGY, second_opinion
from generators.report.figures import wilson
from generators.wish import Interval, Wish

N, CALLS, HITS = 100, 96, 32


def differences(second: NDArray[np.float64], first: NDArray[np.float64]) -> dict[str, float]:
    """Of those that have both values, eV/atom."""
    gap = (second - first)[np.isfinite(second)]
    return {
        "n": len(gap),
        "mean_absolute": round(float(np.abs(gap).mean()), 3),
        "mean": round(float(gap.mean()), 3),
        "within_90_percent": round(float(np.quantile(np.abs(gap), 0.9)), 3),
    }


def confirmed_hits(judge: SevenNetJudge, network: CgcnnOracle) -> dict[str, dict[str, Any]]:
    """Hits by CHGNet under two wishes, a random `HITS` of each, before the second judges."""
    bench = Bench()
    results = {}
    for name, side in ((ENERGY, "lowest"), ("bulk_modulus", "highest")):
        scale = next(s for s in bench.module.scales if s.name == name)
        edge = float(scale.quantile(torch.tensor([0.01 if side == "lowest" else 0.99], dtype=torch.float64)))
        wish = Wish({name: Interval(None, edge) if side == "lowest" else Interval(edge, None)})
        settings = GenerateSettings(judge_calls=CALLS, pool=10 * CALLS, workers=1)
        with tempfile.TemporaryDirectory() as folder:
            answer = Generation(bench.module, bench.surrogate, bench.training, wish, settings, Path(folder)).run()
        hits = answer.candidates[answer.candidates["hit"]]
        picked = hits.sample(min(HITS, len(hits)), random_state=0)
        found = second_opinion(picked, wish, judge, network)
        confirmed, refuted = (sum(x is told for x in found["confirmed"]) for told in (True, False))
        low, high = wilson(confirmed, confirmed + refuted)
        results[f"{side} 1 % of {name.replace('_', ' ')}"] = {
            "judged": CALLS, "hits": len(hits), "asked": len(picked), "confirmed": confirmed, "refuted": refuted,
            "low": low, "high": high, "disagreement": float(found["disagreement"].mean()),
            "disagreement_cgcnn": float(found[f"disagreement_{network.name}"].mean()),
        }  # fmt: skip
    return results


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
    figures["confirmed_hits"] = confirmed_hits(SevenNetJudge(), network)
    return {"markdown": markdown(figures), **figures}


def markdown(figures: dict[str, Any]) -> str:
    """This part of the page."""
    lines = []
    for title, gap in figures["against_chgnet"].items():
        cells = [f"{gap[k]['mean_absolute']:.3f} ({gap[k]['mean']:+.3f})" for k in ("all", "anions", "no_anions")]
        lines.append(f"| {title} | {' | '.join(cells)} | {gap['all']['within_90_percent']:.2f} |")
    table = "\n".join(lines)
    hits = "\n".join(
        f"| {wish} | {x['hits']} of {x['judged']} | {x['asked']} | {x['confirmed']} | {x['refuted']} | {x['asked'] - x['confirmed'] - x['refuted']} | "
        f"{x['confirmed'] / max(x['confirmed'] + x['refuted'], 1):.0%} ({x['low']:.0%}–{x['high']:.0%}) | {x['disagreement']:.3f} | {x['disagreement_cgcnn']:.3f} |"
        for wish, x in figures["confirmed_hits"].items()
    )
    failed = ", ".join(f"{reason} {n}" for reason, n in figures["failed"].items()) or "none"
    return f"""## Second opinions on formation energies

`python scripts/benchmark.py agreement`: {figures["crystals"]} random crystals of the embedded set, relaxed by CHGNet, relaxed on by SevenNet within
symmetry ({figures["evaluations_per_crystal"]:.1f} evaluations, {figures["seconds_per_crystal"]:.2f} s each, one thread; failed: {failed}) and read by CGCNN. Differences to CHGNet's
formation energies in eV/atom, mean absolute (mean); {figures["with_corrected_anions"]} crystals hold anions that the Materials Project corrects.

| | all | with such anions | without | 90 % within |
|---|---|---|---|---|
{table}

CHGNet was trained on corrected energies, SevenNet-0 on raw ones; most of the difference between them for compounds
of anions is this correction.

Confirmed hits: raremat's candidates under two wishes, judged by CHGNet, which the surrogate was trained on; a random {HITS} of the hits before SevenNet
with these corrections (the wish has to hold by its values too), and CGCNN's disagreement beside it.

| wish | hits by CHGNet | asked | confirmed | refuted | cannot tell | rate of those told (95 %) | SevenNet disagrees by, eV/atom | CGCNN by |
|---|---|---|---|---|---|---|---|---|
{hits}"""
