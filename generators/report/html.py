"""``report.html``: one file, no network."""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from data.dataset import CrystalDataset
from data.properties import known_property
from generators.export import conventional, file_stem, structures_of
from generators.outcome import Answer
from generators.report import figures
from generators.screening.baselines import SOURCES
from generators.wish import Wish

N_VIEWS = 6
N_ROWS = 40
STYLE = """
body{font:16px/1.5 system-ui,sans-serif;color:#1c2321;max-width:1080px;margin:2rem auto;padding:0 1.2rem}
h1{font-size:1.7rem;margin:0}h2{font-size:1.2rem;margin:2.2rem 0 .4rem;border-bottom:2px solid #0b6e4f22}
.wish{font-size:1.15rem;color:#0b6e4f;margin:.3rem 0}.note{background:#fff6e5;padding:.6rem .9rem;border-left:4px solid #c77d2e}
table{border-collapse:collapse;width:100%;font-size:.92rem}th,td{padding:.35rem .6rem;text-align:right;border-bottom:1px solid #e6e9e8}
th{font-weight:600;color:#54605c}td:first-child,th:first-child,td.l,th.l{text-align:left}tr.hit td:first-child{border-left:4px solid #0b6e4f}
tr.main{font-weight:600}.views{display:grid;grid-template-columns:repeat(auto-fit,minmax(310px,1fr));gap:1rem}
.views figure{margin:0;border:1px solid #e6e9e8;border-radius:6px;overflow:hidden}figcaption{padding:.4rem .7rem;background:#f5f8f7;font-size:.9rem}
p.small{color:#54605c;font-size:.88rem}
"""


def write_report(folder: Path, answer: Answer, training: CrystalDataset, wish: Wish) -> Path:
    """Write the report and return its path."""
    path = folder / "report.html"
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.write_text(render(answer, training, wish), encoding="utf-8")
    temporary.replace(path)
    return path


def report_figures(answer: Answer, training: CrystalDataset, wish: Wish) -> dict[str, go.Figure]:
    """Every figure but the 3D views, by title."""
    table = answer.candidates
    hits = table[table["hit"]]
    result: dict[str, go.Figure] = {"Hits per judge call": figures.hits_per_call(answer.summary)}
    for name, interval in wish.intervals.items():
        label = training.properties.get(name)
        known = np.zeros(0) if label is None else label.numpy()
        judged = {source: frame[name].to_numpy(dtype=float) for source, frame in answer.judged.items()}
        title = f"Where the candidates lie: {name.replace('_', ' ')}"
        result[title] = figures.hit_histogram(name, interval, known, judged)
    result["The funnel"] = figures.funnel(answer.summary["funnel"])
    if len(hits):
        result["Elements of the hits"] = figures.element_map(hits["atomic_numbers"].tolist())
        result["Prototypes of the hits"] = figures.prototype_bars(hits["prototype"].tolist())
    for name in wish.intervals:
        if f"{name}_surrogate" in table and len(table):
            result[f"Surrogate against judge: {name.replace('_', ' ')}"] = figures.parity(name, table)
    return result


def render(answer: Answer, training: CrystalDataset, wish: Wish) -> str:
    """The page as text."""
    summary, table = answer.summary, answer.candidates
    parts = [
        "<h1>raremat: candidates for a rare property</h1>",
        f"<p class='wish'>Wish: {html.escape(wish.describe())}</p>",
        "<p class='note'>Labels, surrogate and judge rest on <b>CHGNet 0.3.0, not on DFT</b>: every candidate was "
        "relaxed within its symmetry and judged by CHGNet. Confirm what matters with your own calculation.</p>",
        _comparison(summary),
    ]
    for title, figure in report_figures(answer, training, wish).items():
        parts.append(f"<h2>{html.escape(title)}</h2>" + figure_html(figure))
    parts.append("<h2>Best candidates</h2>" + _candidates(answer, wish))
    captions = [f"{row['formula']}, {row['prototype']}, space group {row['space_group']}" for row in _first(table)]
    return page([*parts, views(answer, captions)])


def _first(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(k): v for k, v in row.items()} for row in table.head(N_VIEWS).to_dict("records")]


def views(answer: Answer, captions: Sequence[str]) -> str:
    """3D views of the first candidates, one for each caption."""
    shown = [
        f"<figure>{figure_html(figures.structure_view(conventional(structure)))}"
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for caption, structure in zip(captions, structures_of(answer.batch, list(range(len(captions)))), strict=True)
    ]
    return "<h2>The first of them</h2><div class='views'>" + "".join(shown) + "</div>" if shown else ""


def page(parts: Sequence[str]) -> str:
    """The whole page; plotly's code is inside."""
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>raremat report</title>"
        f"<style>{STYLE}</style><script>{get_plotlyjs()}</script></head><body>{''.join(parts)}</body></html>"
    )


def figure_html(figure: go.Figure) -> str:
    """A figure as a part of a page that holds plotly already."""
    return str(figure.to_html(full_html=False, include_plotlyjs=False, config={"displayModeBar": False}))


def _comparison(summary: Mapping[str, Any]) -> str:
    rate = summary.get("random_hit_rate_in_training_data")
    rows = []
    for name, label in SOURCES.items():
        if name not in summary:
            continue
        one = summary[name]
        low, high = figures.wilson(one["hits"], one["judge_calls"])
        ratio = f"{one['hits_per_call'] / rate:.0f}" if rate else "–"
        rows.append(
            f"<tr class='{'main' if name == 'raremat' else ''}'><td>{label}</td><td>{one['proposals']:,}</td>"
            f"<td>{one['judge_calls']:,}</td><td>{one['hits']:,}</td><td>{one['hits_per_call']:.3f}</td>"
            f"<td>{low:.3f}–{high:.3f}</td><td>{ratio}</td><td>{one['distinct_prototypes_in_hits']}</td></tr>"
        )
    note = ""
    if rate is not None:
        note = (
            f"<p class='small'>The last ratio is against {rate:.4f}, the share of hits among the training data, which "
            "are random decorations too; interval: Wilson, 95 %.</p>"
        )
    second = summary.get("second_opinion")
    if second:
        note += _second_opinion(second)
    return (
        "<h2>Hits for the same number of judge calls</h2><table><tr><th>proposals by</th><th>drawn</th>"
        "<th>judge calls</th><th>hits</th><th>hits per call</th><th>95 %</th><th>× random</th>"
        f"<th>prototypes</th></tr>{''.join(rows)}</table>{note}"
    )


def _second_opinion(second: Mapping[str, Any]) -> str:
    """The rate of confirmed hits, and how far the judges are from each other."""
    decided = second["hits_confirmed"] + second["hits_refuted"]
    low, high = figures.wilson(second["hits_confirmed"], decided)
    rate = f"{second['hits_confirmed'] / decided:.0%} ({low:.0%}–{high:.0%})" if decided else "none could be told"
    return (
        f"<p>Second opinion on the {second['judged']} best candidates, from judges that saw none of this "
        f"({html.escape(second['judges'])}). Of the {second['hits']} hits among them <b>{second['hits_confirmed']} are "
        f"confirmed</b>, {second['hits_refuted']} refuted, {second['hits'] - decided} cannot be told: confirmed hits "
        f"<b>{rate}</b> of those that can. Formation energies differ from CHGNet's by {second['mean_disagreement']:.3f} "
        f"(SevenNet) and {second['mean_disagreement_cgcnn']:.3f} eV/atom (CGCNN, which does not decide) on average.</p>"
    )


def _candidates(answer: Answer, wish: Wish) -> str:
    names = list(wish.intervals)
    head = "".join(f"<th>{html.escape(known_property(n).title())}</th><th>surrogate</th>" for n in names)
    rows = []
    for row in answer.candidates.head(N_ROWS).to_dict("records"):
        link = f"structures/{file_stem(str(row['id']), str(row['formula']))}.cif"
        values = "".join(
            f"<td>{row[n]:.3f}</td><td>{row[f'{n}_surrogate']:.3f} ± {row[f'{n}_surrogate_std']:.3f}</td>"
            for n in names
        )
        rows.append(
            f"<tr class='{'hit' if row['hit'] else ''}'><td>{row['rank']}</td>"
            f"<td class='l'><a href='{html.escape(link)}'>{html.escape(str(row['formula']))}</a></td>"
            f"<td class='l'>{html.escape(str(row['prototype']))}</td><td>{row['space_group']}</td>{values}"
            f"<td>{row['e_above_hull']:.3f}</td>{_confirmed(row)}"
            f"<td>{'yes' if row['charge_balanced'] else 'no'}</td></tr>"
        )
    second = "".join(f"<th>{title}</th>" for title in _second_titles(answer.candidates.columns))
    return (
        "<table><tr><th>rank</th><th class='l'>formula</th><th class='l'>prototype</th><th>space group</th>"
        f"{head}<th>above hull, eV/atom</th>{second}<th>charge-balanced</th></tr>{''.join(rows)}</table>"
        f"<p class='small'>The first {len(rows)} of {len(answer.candidates)}; a green edge marks a hit. "
        "All of them: candidates.parquet and candidates.extxyz. The hull holds what is embedded, not all that is known: "
        "an energy above it is a lower bound.</p>"
    )


_DISAGREEMENTS = {
    "disagreement": "SevenNet differs by, eV/atom",
    "disagreement_cgcnn": "CGCNN differs by, eV/atom",
}


def _second_titles(columns: Iterable[str]) -> list[str]:
    present = set(columns)
    if "confirmed" not in present:
        return []
    return ["second judge", *(title for name, title in _DISAGREEMENTS.items() if name in present)]


def _confirmed(row: Mapping[Any, Any]) -> str:
    if "confirmed" not in row:
        return ""
    value = row["confirmed"]
    cells = f"<td>{'cannot tell' if pd.isna(value) else 'confirms' if value else 'refutes'}</td>"
    for name in _DISAGREEMENTS:
        if name in row:
            cells += f"<td>{'–' if pd.isna(row[name]) else format(row[name], '.3f')}</td>"
    return cells
