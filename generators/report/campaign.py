"""``report.html`` of a campaign: hits over judge calls, the Goodhart check, and what was found."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from pymatgen.core import Element

from data.properties import known_property
from generators.report.figures import _LAYOUT, COLORS
from generators.report.html import figure_html, page

N_ROWS = 40


def hits_over_calls(rounds: Sequence[Mapping[str, Any]], existing: int, share: float) -> go.Figure:
    """Hits found after every round beside random calls and all that exist.

    Args:
        rounds: of the campaign, with ``calls`` and ``hits_so_far``.
        existing: hits in the whole space; share: the same as a share of the space.
    """
    calls = [0, *(row["calls"] for row in rounds)]
    figure = go.Figure()
    hits = [0, *(row["hits_so_far"] for row in rounds)]
    figure.add_scatter(x=calls, y=hits, name="raremat", line={"color": COLORS["raremat"]}, mode="lines+markers")
    random = [share * n for n in calls]
    figure.add_scatter(x=calls, y=random, name="random (expected)", line={"color": COLORS["random"], "dash": "dot"})
    figure.add_hline(y=existing, line={"color": COLORS["training"]}, annotation_text=f"all {existing:,} that exist")
    return figure.update_layout(**_LAYOUT, xaxis_title="judge calls", yaxis_title="hits found")


def goodhart(rounds: Sequence[Mapping[str, Any]]) -> go.Figure:
    """Hits that the surrogate expected beside hits that the judge confirmed, per round."""
    known = [row for row in rounds if row["predicted_hits"] is not None]
    calls = [row["calls"] for row in known]
    figure = go.Figure()
    for column, name, color in (
        ("predicted_hits", "surrogate expected", COLORS["surrogate_screening"]),
        ("hits", "judge confirmed", COLORS["raremat"]),
    ):
        figure.add_bar(x=calls, y=[row[column] for row in known], name=name, marker_color=color)
    return figure.update_layout(**_LAYOUT, xaxis_title="judge calls so far", yaxis_title="hits in the round")


def write_campaign_report(folder: Path, summary: Mapping[str, Any], judged: pd.DataFrame) -> Path:
    """Write the page and return its path.

    Args:
        folder: of the run.
        summary: what ``summary.json`` holds.
        judged: what ``judged.parquet`` holds.
    """
    hits = judged[judged["hit"] & (judged["round"] >= 0)]  # labels given at the start were not found
    names = [name for name in judged.columns if name not in ("round", "elements", "hit", "pareto")]
    parts = [
        "<h1>raremat: a campaign</h1>",
        f"<p class='wish'>Wish: {html.escape(summary['wish'])}</p>",
        f"<p class='note'>Judge: {html.escape(summary['judge'])}. {summary['hits']:,} of {summary['existing_hits']:,} "
        f"existing hits were found in {summary['calls']:,} judge calls.</p>",
        "<h2>Hits over judge calls</h2>",
        figure_html(hits_over_calls(summary["rounds"], summary["existing_hits"], summary["share_of_hits"])),
        "<h2>Goodhart check: expected and confirmed</h2>",
        figure_html(goodhart(summary["rounds"])),
        f"<h2>Hits</h2>{_table(hits, names)}",
    ]
    path = folder / "report.html"
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.write_text(page(parts), encoding="utf-8")
    temporary.replace(path)
    return path


def _table(hits: pd.DataFrame, names: Sequence[str]) -> str:
    front = "pareto" in hits
    if front:
        hits = hits.sort_values("pareto", ascending=False, kind="stable")
    rows = []
    for row in hits.head(N_ROWS).to_dict("records"):
        symbols = " ".join(Element.from_Z(int(z)).symbol for z in np.asarray(row["elements"]))
        values = "".join(f"<td>{row[name]:.3f}</td>" for name in names)
        mark = f"<td>{'yes' if row['pareto'] else ''}</td>" if front else ""
        rows.append(f"<tr><td class='l'>{symbols}</td><td>{row['round']}</td>{values}{mark}</tr>")
    head = "".join(f"<th>{html.escape(known_property(name).title())}</th>" for name in names)
    head += "<th>on the Pareto front</th>" if front else ""
    note = "the front of several wishes first" if front else "in the order of judging"
    return (
        f"<table><tr><th class='l'>elements by orbit</th><th>round</th>{head}</tr>{''.join(rows)}</table>"
        f"<p class='small'>The first {len(rows)} of {len(hits):,}, {note}. All: judged.parquet.</p>"
    )
