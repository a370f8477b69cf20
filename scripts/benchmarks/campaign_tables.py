"""Tables and the figure of the campaign benchmark; a campaign is the rows of its rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = Sequence[Mapping[str, Any]]
Campaigns = Mapping[str, Sequence[Rows]]
"""Start -> one campaign per seed."""


def column(campaigns: Sequence[Rows], name: str) -> NDArray[np.float64]:
    """[seeds, rounds] one figure of every round, as many rounds as all campaigns have; None becomes NaN."""
    rounds = min(map(len, campaigns))
    return np.array([[row[name] for row in rows[:rounds]] for rows in campaigns], dtype=np.float64)


def spread(values: NDArray[np.float64]) -> str:
    """Mean, and deviation where there are several."""
    return f"{values.mean():.0f}" + (f" ± {values.std(ddof=1):.0f}" if len(values) > 1 else "")


def hits_table(done: Campaigns, genetic: Mapping[str, NDArray[np.int64]], existing: int, share: float) -> str:
    """Hits found over calls, every start beside the genetic algorithm from the same start."""
    names = list(done)
    head = [f"from {n} | of all | genetic algorithm from {n}" for n in names]
    lines = [f"| calls | {' | '.join(head)} | random |", "|---" * (2 + 3 * len(names)) + "|"]
    hits = {n: dict(zip(column(c, "calls")[0], column(c, "hits_so_far").T, strict=True)) for n, c in done.items()}
    for calls in sorted({c for by_calls in hits.values() for c in by_calls}):
        cells = []
        for n in names:
            found, step = hits[n].get(calls), list(hits[n]).index(calls) if calls in hits[n] else -1
            if found is None or step >= genetic[n].shape[1]:
                cells.append("- | - | -")
            else:
                cells.append(
                    f"{spread(found)} | {found.mean() / existing:.1%} | {spread(genetic[n][:, step].astype(float))}"
                )
        lines.append(f"| {calls:,.0f} | {' | '.join(cells)} | {calls * share:.1f} |")
    return "\n".join(lines)


def calls_until(rows: Rows, hits: float) -> float:
    """Judge calls until so many hits were found, linear between the rounds; infinite if they were not."""
    calls, found = 0.0, 0.0
    for row in rows:
        if row["hits_so_far"] >= hits:
            return calls + (row["calls"] - calls) * (hits - found) / max(row["hits_so_far"] - found, 1e-9)
        calls, found = float(row["calls"]), float(row["hits_so_far"])
    return float("inf")


def half_line(done: Campaigns, existing: int) -> str:
    """Calls until half of all, and until 97 %, were found."""
    parts = []
    for name, campaigns in done.items():
        for share in (0.5, 0.97):
            needed = [calls_until(rows, share * existing) for rows in campaigns]
            said = ", ".join("not reached" if x == float("inf") else f"{x:,.0f}" for x in needed)
            parts.append(f"from {name} {share:.0%} after {said}")
    return f"Judge calls until so many of all hits were found (every seed): {'; '.join(parts)}."


def goodhart_table(done: Campaigns) -> str:
    """Expected and confirmed hits of every round, mean over seeds."""
    lines = [
        "| start | calls | surrogate expected | judge confirmed | confirmed / expected | s |",
        "|---|---|---|---|---|---|",
    ]
    for name, campaigns in done.items():
        figures = (column(campaigns, k).mean(0) for k in ("calls", "predicted_hits", "hits", "seconds"))
        for calls, expected, confirmed, seconds in zip(*figures, strict=True):
            if np.isnan(expected):
                continue
            lines.append(
                f"| {name} | {calls:,.0f} | {expected:.0f} | {confirmed:.0f} | {confirmed / max(expected, 1e-9):.2f} | {seconds:.0f} |"
            )
    return "\n".join(lines)


def picture(
    path: Path, done: Campaigns, genetic: Mapping[str, NDArray[np.int64]], existing: int, share: float, high: float
) -> None:
    """Hits over calls."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6.8, 4.4), constrained_layout=True)
    last = 0.0
    for (name, campaigns), color in zip(done.items(), ("#0b6e4f", "#2d6cdf", "#6b4fa0"), strict=False):
        calls, hits = column(campaigns, "calls")[0], column(campaigns, "hits_so_far")
        deviation = hits.std(0, ddof=1) if len(hits) > 1 else None
        axis.errorbar(
            calls, hits.mean(0), yerr=deviation, fmt="o-", color=color, capsize=2, label=f"raremat from {name}"
        )
        n = min(len(calls), genetic[name].shape[1])
        found = genetic[name][:, :n]
        axis.errorbar(
            calls[:n], found.mean(0), yerr=found.std(0, ddof=1), fmt="s--", color=color, alpha=0.5, markersize=3, capsize=2,
            label=f"genetic algorithm from {name}",
        )  # fmt: skip
        last = max(last, float(calls[-1]))
    axis.plot([0, last], [0, last * share], ":", color="#777", label="random")
    axis.axhline(existing, color="#bbb", lw=1)
    axis.set(xlabel="judge calls", ylabel="hits found", title=f"all {existing} elpasolites below {high} eV/atom")
    axis.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
