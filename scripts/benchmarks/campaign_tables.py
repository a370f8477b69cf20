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


def by_calls(campaigns: Sequence[Rows], name: str) -> dict[int, NDArray[np.float64]]:
    """Calls -> [campaigns that got so far] one figure of the round that ended there; rounds without it are left out."""
    found: dict[int, list[float]] = {}
    for rows in campaigns:
        for row in rows:
            if row[name] is not None:
                found.setdefault(int(row["calls"]), []).append(float(row[name]))
    return {calls: np.array(values) for calls, values in sorted(found.items())}


def spread(values: NDArray[np.float64]) -> str:
    """Mean, and deviation where there are several."""
    return f"{values.mean():.0f}" + (f" ± {values.std(ddof=1):.0f}" if len(values) > 1 else "")


def hits_table(done: Campaigns, genetic: Mapping[str, NDArray[np.int64]], existing: int, share: float) -> str:
    """Hits found over calls, every start beside the genetic algorithm from the same start."""
    names = list(done)
    head = [f"from {n} | of all | genetic algorithm from {n}" for n in names]
    lines = [f"| calls | {' | '.join(head)} | random |", "|---" * (2 + 3 * len(names)) + "|"]
    hits = {n: by_calls(campaigns, "hits_so_far") for n, campaigns in done.items()}
    for calls in sorted({c for found in hits.values() for c in found}):
        cells = []
        for n in names:
            step = list(hits[n]).index(calls) if calls in hits[n] else -1
            if step < 0 or step >= genetic[n].shape[1]:
                cells.append("- | - | -")
            else:
                found = hits[n][calls]
                others = spread(genetic[n][:, step].astype(float))
                cells.append(f"{spread(found)} | {found.mean() / existing:.1%} | {others}")
        lines.append(f"| {calls:,} | {' | '.join(cells)} | {calls * share:.1f} |")
    return "\n".join(lines)


def calls_until(rows: Rows, hits: float) -> float:
    """Judge calls until so many hits were found, linear between the rounds; infinite if they were not."""
    calls, found = 0.0, 0.0
    for row in rows:
        if row["hits_so_far"] >= hits:
            return float(calls + (row["calls"] - calls) * (hits - found) / max(row["hits_so_far"] - found, 1e-9))
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
        expected, confirmed, seconds = (by_calls(campaigns, k) for k in ("predicted_hits", "hits", "seconds"))
        for calls, guess in expected.items():
            hits = confirmed[calls]
            lines.append(
                f"| {name} | {calls:,} | {guess.mean():.0f} | {hits.mean():.0f} | "
                f"{hits.mean() / max(guess.mean(), 1e-9):.2f} | {seconds[calls].mean():.0f} |"
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
        hits = by_calls(campaigns, "hits_so_far")
        calls = list(hits)
        deviation = [x.std(ddof=1) if len(x) > 1 else 0.0 for x in hits.values()]
        axis.errorbar(
            calls, [x.mean() for x in hits.values()], yerr=deviation, fmt="o-", color=color, capsize=2,
            label=f"raremat from {name}",
        )  # fmt: skip
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
