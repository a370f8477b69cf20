"""``report.html`` of a run of whole crystals: one file, no network."""

from __future__ import annotations

import html
import os
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from data.properties import known_property
from generators.export import file_stem
from generators.oracles.hull_tables import reference_compounds
from generators.outcome import Answer
from generators.report import figures
from generators.report.html import N_ROWS, N_VIEWS, figure_html, page, views
from generators.wish import Interval, Wish

ABOVE = "e_above_hull"


def write_crystal_report(folder: Path, answer: Answer, wish: Wish) -> Path:
    """Write the report and return its path.

    Args:
        wish: the part of it that the judge measures.
    """
    path = folder / "report.html"
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.write_text(render_crystals(answer, wish), encoding="utf-8")
    temporary.replace(path)
    return path


def crystal_figures(answer: Answer, wish: Wish) -> dict[str, go.Figure]:
    """Every figure but the 3D views, by title."""
    table, judged = answer.candidates, answer.judged["raremat"]
    result: dict[str, go.Figure] = {"The funnel": figures.funnel(answer.summary["funnel"])}
    if ABOVE in judged:
        compounds = reference_compounds()
        for name, interval in {ABOVE: Interval(None, 0.1), **wish.intervals}.items():
            values = judged[name].to_numpy(dtype=float)
            if np.isfinite(values).any():
                known = compounds[name].to_numpy(dtype=float) if name in compounds else np.zeros(0)
                title = f"Where the candidates lie: {name.replace('_', ' ')}"
                result[title] = figures.hit_histogram(name, interval, known, {"raremat": values})
    shown = table[table["hit"]] if "hit" in table and table["hit"].any() else table
    if len(shown):
        which = "hits" if "hit" in table and table["hit"].any() else "candidates"
        result[f"Elements of the {which}"] = figures.element_map(shown["atomic_numbers"].tolist())
        common = shown["protostructure"].value_counts().head(20).index
        names = [p for p in shown["protostructure"] if p in common]
        result[f"Prototypes of the {which}"] = figures.prototype_bars(names)
    return result


def render_crystals(answer: Answer, wish: Wish) -> str:
    """The page as text."""
    summary, table = answer.summary, answer.candidates
    judge = (
        "relaxed within its symmetry and judged by <b>CHGNet 0.3.0, not by DFT</b>. Confirm what matters with your own "
        "calculation."
        if summary["judge"]
        else "drawn by the model and <b>not judged</b>."
    )
    parts = [
        "<h1>raremat: whole crystals</h1>",
        f"<p class='wish'>Task: {html.escape(summary['task'])}</p>",
        f"<p class='wish'>Wish: {html.escape(summary['wish_text'])}</p>",
        f"<p class='note'>Every candidate was {judge}</p>",
    ]
    if summary["not_judged"]:
        names = html.escape(", ".join(summary["not_judged"]))
        parts.append(
            f"<p class='note'>The judge cannot measure {names}: the model was asked for it, nobody checked.</p>"
        )
    parts.append(_figures_of_the_run(answer))
    for title, figure in crystal_figures(answer, wish).items():
        parts.append(f"<h2>{html.escape(title)}</h2>{figure_html(figure)}")
    parts.append("<h2>Best candidates</h2>" + _rows(table, wish))
    kinds = table["prototype"].where(table["prototype"] != "", table["protostructure"]).head(N_VIEWS)
    first = zip(table["formula"], kinds, table["space_group"], strict=False)
    return page([*parts, views(answer, [f"{f}, {kind}, space group {group}" for f, kind, group in first])])


def _figures_of_the_run(answer: Answer) -> str:
    summary = answer.summary
    rows = [
        ("drawn", f"{summary['samples']:,}"),
        ("distinct and new", f"{summary['distinct_new']:,}"),
        ("of them with a new prototype", f"{summary['distinct_new_with_new_prototype']:,}"),
    ]
    if "raremat" in summary:
        one = summary["raremat"]
        low, high = figures.wilson(one["hits"], one["judge_calls"])
        rows += [
            ("judge calls", f"{one['judge_calls']:,}"),
            (f"hits ({summary['hit_means']})", f"{one['hits']:,}"),
            ("of them distinct and new when relaxed", f"{one['new_hits']:,}"),
            ("hits per call, 95 %", f"{one['hits_per_call']:.3f} ({low:.3f}–{high:.3f})"),
            ("at most 0.1 eV/atom above the hull", f"{one['metastable']:,}"),
            ("on or below the hull", f"{one['stable']:,}"),
            ("on or below the hull of known compounds alone", f"{one['on_or_below_the_known_hull']:,}"),
        ]
    cells = "".join(f"<tr><td>{html.escape(name)}</td><td>{value}</td></tr>" for name, value in rows)
    return f"<h2>The run</h2><table>{cells}</table>"


def _rows(table: pd.DataFrame, wish: Wish) -> str:
    columns = [n for n in dict.fromkeys([*wish.intervals, ABOVE, "e_above_known_hull"]) if n in table]
    head = "".join(f"<th>{html.escape(_title(n))}</th>" for n in columns)
    rows = []
    for row in table.head(N_ROWS).to_dict("records"):
        link = f"structures/{file_stem(str(row['id']), str(row['formula']))}.cif"
        values = "".join(f"<td>{row[n]:.3f}</td>" for n in columns)
        rows.append(
            f"<tr class='{'hit' if row.get('hit') else ''}'><td>{row['rank']}</td>"
            f"<td class='l'><a href='{html.escape(link)}'>{html.escape(str(row['formula']))}</a></td>"
            f"<td class='l'>{html.escape(str(row['prototype'] or row['protostructure']))}</td>"
            f"<td>{row['space_group']}</td>"
            f"{values}<td>{'yes' if row['novel'] else 'no'}</td>"
            f"<td>{'yes' if row['charge_balanced'] else 'no'}</td></tr>"
        )
    return (
        "<table><tr><th>rank</th><th class='l'>formula</th><th class='l'>prototype</th><th>space group</th>"
        f"{head}<th>new</th><th>charge-balanced</th></tr>{''.join(rows)}</table>"
        f"<p class='small'>The first {len(rows)} of {len(table)}; a green edge marks a hit. The hull holds what is "
        "embedded, not all that is known: an energy above it is a lower bound.</p>"
    )


def _title(name: str) -> str:
    return (
        "above the hull of known compounds, eV/atom" if name == "e_above_known_hull" else known_property(name).title()
    )
