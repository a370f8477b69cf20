"""The report's figures, each a plotly figure from plain arguments."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray
from pymatgen.core import Structure

from data.cells import element
from data.properties import known_property
from generators.screening.baselines import SOURCES
from generators.wish import Interval

COLORS = {
    "raremat": "#0b6e4f",
    "surrogate_screening": "#3a6ea5",
    "ion_exchange": "#8e4f9e",
    "ion_exchange_group": "#c46fb3",
    "random_charge_balanced": "#c77d2e",
    "random": "#8a8a8a",
    "training": "#c9c9c9",
}
_LAYOUT: dict[str, Any] = {
    "template": "plotly_white",
    "margin": {"l": 70, "r": 20, "t": 30, "b": 55},
    "font": {"family": "system-ui, sans-serif", "size": 14},
    "legend": {"orientation": "h", "y": 1.12, "x": 0},
    "height": 400,
}


def wilson(hits: int, calls: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson, J. Am. Stat. Assoc. 22, 209 (1927)); (0, 1) without calls."""
    if calls == 0:
        return 0.0, 1.0
    z = 1.959964
    share = hits / calls
    center = (share + z * z / (2 * calls)) / (1 + z * z / calls)
    half = z / (1 + z * z / calls) * math.sqrt(share * (1 - share) / calls + z * z / (4 * calls * calls))
    return max(0.0, center - half), min(1.0, center + half)


def hit_histogram(
    name: str, interval: Interval, training: NDArray[np.float64], judged: Mapping[str, NDArray[np.float64]]
) -> go.Figure:
    """Judged values per source against the training labels, shares per bin; the wish is shaded."""
    known = training[np.isfinite(training)]
    values = [known, *(v[np.isfinite(v)] for v in judged.values())]
    everything = np.concatenate([v for v in values if len(v)])
    low, high = np.quantile(everything, 0.0), np.quantile(everything, 0.999)
    edges = np.linspace(low, high, 61)
    middles = (edges[1:] + edges[:-1]) / 2
    figure = go.Figure()
    if len(known):
        share = np.histogram(known, edges)[0] / len(known)
        figure.add_bar(x=middles, y=share, width=np.diff(edges), name="training data", marker_color=COLORS["training"])
    for source, value in judged.items():
        finite = value[np.isfinite(value)]
        if len(finite):
            share = np.histogram(finite, edges)[0] / len(finite)
            figure.add_scatter(
                x=middles, y=share, mode="lines", line_shape="hvh", name=SOURCES.get(source, source),
                line={"color": COLORS.get(source, "#555"), "width": 2.5},
            )  # fmt: skip
    figure.add_vrect(
        x0=interval.low if interval.low is not None else low - (high - low) * 0.03,
        x1=interval.high if interval.high is not None else high + (high - low) * 0.03,
        fillcolor="#0b6e4f", opacity=0.09, line_width=0, layer="below",
        annotation_text="the wish", annotation_position="top left",
    )  # fmt: skip
    layout = {**_LAYOUT, "height": 460, "margin": {**_LAYOUT["margin"], "t": 90}}  # six sources take two lines
    layout["legend"] = {**_LAYOUT["legend"], "y": 1.3}
    figure.update_layout(**layout, barmode="overlay", bargap=0)
    figure.update_xaxes(title=known_property(name).title())
    figure.update_yaxes(title="share of crystals", tickformat=".0%")
    return figure


def hits_per_call(summary: Mapping[str, Any]) -> go.Figure:
    """Hits per judge call of every source with 95 % intervals."""
    sources = [name for name in SOURCES if name in summary]
    shares = [summary[s]["hits_per_call"] for s in sources]
    bounds = [wilson(summary[s]["hits"], summary[s]["judge_calls"]) for s in sources]
    figure = go.Figure(
        go.Bar(
            x=shares,
            y=[f"{SOURCES[s]}<br>{summary[s]['hits']} of {summary[s]['judge_calls']}" for s in sources],
            orientation="h",
            marker_color=[COLORS[s] for s in sources],
            error_x={
                "type": "data", "symmetric": False, "color": "#333",
                "array": [max(b[1] - x, 0.0) for b, x in zip(bounds, shares, strict=True)],
                "arrayminus": [max(x - b[0], 0.0) for b, x in zip(bounds, shares, strict=True)],
            },
        )
    )  # fmt: skip
    figure.update_layout(**{**_LAYOUT, "height": 90 + 55 * len(sources), "margin": {**_LAYOUT["margin"], "l": 230}})
    figure.update_xaxes(title="hits per judge call", tickformat=".0%", range=[0, 1.05])
    figure.update_yaxes(autorange="reversed")
    return figure


def funnel(stages: Sequence[Mapping[str, Any]]) -> go.Figure:
    """What each stage of the funnel left, with the reasons on hover."""
    names = ["proposed", *(str(s["stage"]) for s in stages)]
    counts = [stages[0]["in"], *(s["out"] for s in stages)]
    reasons = ["", *("<br>".join(f"{k}: {v:,}" for k, v in s["reasons"].items()) for s in stages)]
    figure = go.Figure(
        go.Funnel(
            y=names, x=counts, text=reasons, textinfo="value", hovertemplate="%{y}: %{x:,}<br>%{text}",
            marker={"color": ["#cfe3da", "#a3cbb9", "#6fae95", "#3a8d6d", "#0b6e4f"][: len(names)]},
        )
    )  # fmt: skip
    figure.update_layout(**{**_LAYOUT, "margin": {**_LAYOUT["margin"], "l": 150}})
    return figure


def parity(name: str, table: pd.DataFrame) -> go.Figure:
    """Surrogate against judge, with the surrogate's stated standard deviations."""
    truth, guess = table[name], table[f"{name}_surrogate"]
    figure = go.Figure(
        go.Scatter(
            x=truth, y=guess, mode="markers", text=table["formula"], hovertemplate="%{text}<br>%{x:.3f} %{y:.3f}",
            marker={"color": np.where(table["hit"], COLORS["raremat"], "#b0524a"), "size": 7},
            error_y={"type": "data", "array": table[f"{name}_surrogate_std"], "color": "rgba(0,0,0,0.18)"},
            name="candidates",
        )
    )  # fmt: skip
    ends = [float(np.nanmin([truth.min(), guess.min()])), float(np.nanmax([truth.max(), guess.max()]))]
    figure.add_scatter(x=ends, y=ends, mode="lines", line={"color": "#999", "dash": "dot"}, name="equal")
    figure.update_layout(**{**_LAYOUT, "showlegend": False})
    figure.update_xaxes(title="judge: " + known_property(name).title())
    figure.update_yaxes(title="surrogate")
    return figure


def element_map(atomic_numbers: Sequence[Sequence[int]]) -> go.Figure:
    """Periodic table: in how many of the crystals each element occurs."""
    import pymatviz

    counts = Counter(element(int(z)).symbol for row in atomic_numbers for z in set(map(int, row)))
    figure: go.Figure = pymatviz.ptable_heatmap(
        dict(counts),
        colorscale="Greens",
        fmt=".0f",
        nan_color="#d5dad8",
        colorbar={"title": "crystals with the element"},
    )
    figure.update_layout(margin={"l": 10, "r": 10, "t": 10, "b": 10}, height=460, width=None)
    return figure


def prototype_bars(names: Sequence[str]) -> go.Figure:
    """Hits per prototype."""
    counts = Counter(names).most_common()
    figure = go.Figure(
        go.Bar(x=[n for _, n in counts], y=[name for name, _ in counts], orientation="h", marker_color="#0b6e4f")
    )
    layout = {**_LAYOUT, "height": 120 + 26 * max(len(counts), 1), "margin": {**_LAYOUT["margin"], "l": 170}}
    figure.update_layout(**layout)
    figure.update_xaxes(title="hits")
    figure.update_yaxes(autorange="reversed")
    return figure


def structure_view(structure: Structure) -> go.Figure:
    """3D view of a conventional cell; works without a network."""
    import pymatviz

    grey = {"color": False}  # a bond in the colours of its atoms takes ten traces in place of one
    figure: go.Figure = pymatviz.structure_3d(structure, show_bonds=True, bond_kwargs=grey)
    figure.update_layout(height=400, width=345, margin={"l": 0, "r": 0, "t": 0, "b": 0}, title=None, showlegend=False)
    return figure
