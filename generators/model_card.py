"""The card beside a model file: what it is, what it learned from, how well it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from data.cells import element
from data.properties import known_property

_KIND = {
    "composition": "Conditional masked diffusion over the elements of structure prototypes "
    "(`raremat-train model=composition`).",
    "crystal": "Joint diffusion over whole crystals: Wyckoff positions, elements, coordinates, lattice "
    "(`raremat-train model=crystal`).",
    "surrogate": "Ensemble of graph networks over orbits, prototype and elements in, properties out "
    "(`raremat-train model=surrogate`).",
    "structure": "Equivariant ensemble over whole structures (`raremat-train model=structure`).",
}
_SPLIT = {
    "structure": " (split by formula)",
    "crystal": " (known ones split by protostructure and formula, exchanged ones with their parents)",
}


def write_card(
    path: Path,
    kind: str,
    command: str,
    data: str,
    rows: Mapping[str, int],
    prototypes: Sequence[str],
    elements: Sequence[int],
    properties: Sequence[str],
    parameters: int,
    metrics: Mapping[str, float],
) -> None:
    """Write the card as Markdown.

    Args:
        path: where to.
        kind: of the model, as in ``model.kind``.
        command: what makes the model again.
        data: the training table.
        rows: crystals per part.
        metrics: of the test part.
    """
    lines = [
        f"# Card of {path.with_suffix('.pt').name}",
        "",
        _KIND[kind],
        "",
        f"- Made by: `{command}`",
        f"- Data: {data}, "
        + ", ".join(f"{n:,} {part}" for part, n in rows.items())
        + _SPLIT.get(kind, " (split by crystal key)"),
        "- Labels of the embedded data are CHGNet's (0.3.0), not DFT's.",
        f"- Parameters: {parameters:,}",
        "- Properties: " + ", ".join(known_property(name).title() for name in properties),
        *([f"- Prototypes ({len(prototypes)}): " + ", ".join(prototypes)] if prototypes else []),
        f"- Elements ({len(elements)}): " + " ".join(element(z).symbol for z in elements),
        "- Meant for: proposing and screening crystals like the training data. Not for: values to rely on, or other "
        "prototypes or elements without a new judge.",
        "",
        "| test figure | value |",
        "|---|---|",
        *(f"| {name} | {value:.4g} |" for name, value in sorted(metrics.items())),
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
