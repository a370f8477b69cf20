"""Piezoelectric and elastic tensors from tables of published ones: frames, training, and what symmetry buys."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.tensors import component_by_component, predict, train
from generators.structures.dataset import StructureRows, read_structure_rows
from generators.structures.network import StructureConfig
from generators.structures.tensors import from_cartesian, model_tensor

PIEZO, ELASTIC = "piezoelectric_tensor", "elastic_tensor_voigt"
EPOCHS = {PIEZO: 15, ELASTIC: 60}
LARGEST = 8
CONFIG = StructureConfig(width=8, depth=2, members=1)
"""One small network: tensors of third rank need both parities up to l = 3, which costs thirty times a dielectric one."""


def _largest(tensor: Tensor) -> Tensor:
    """[B] largest component of a piezoelectric tensor, C/m^2."""
    return from_cartesian(tensor).abs().amax(-1)


def _bulk(tensor: Tensor) -> Tensor:
    """[B] Voigt average of the bulk modulus, GPa."""
    return from_cartesian(tensor).reshape(-1, 6, 6)[:, :3, :3].mean((1, 2))


SUMMARY = {PIEZO: _largest, ELASTIC: _bulk}


def _errors(name: str, tensor: Tensor, truth: Tensor) -> dict[str, float]:
    apart = (tensor - truth).flatten(1).norm(dim=1)
    summary = (SUMMARY[name](tensor) - SUMMARY[name](truth)).abs()
    return {
        "frobenius": float(apart.mean()),
        "frobenius_median": float(apart.median()),
        "summary": float(summary.mean()),
    }


def _learn(rows: StructureRows, name: str) -> dict[str, Any]:
    (spec,) = rows.specs
    module, data, seconds = train(rows, epochs=EPOCHS[name], config=CONFIG)
    (mean,), std, (truth,) = predict(module, data)
    exact = model_tensor(truth.double(), spec)
    apart, apart_data, _ = train(component_by_component(rows), epochs=EPOCHS[name], config=CONFIG)
    components = torch.cat(predict(apart, apart_data)[0], 1)
    labels = torch.cat([graph.target_0 for graph in data.parts["train"]])
    constant = model_tensor((labels.mean(0, keepdim=True) if name == ELASTIC else 0 * labels[:1]).double(), spec)
    inside = (mean - truth).pow(2).mean(-1).sqrt() < 1.645 * std[:, 0]
    return {
        "sizes": {part: len(index) for part, index in data.rows.items()},
        "seconds": round(seconds),
        "coverage_90": float(inside.float().mean()),
        "equivariant network": _errors(name, model_tensor(mean.double(), spec), exact),
        "same network, component by component": _errors(name, model_tensor(components.double(), spec), exact),
        "mean of the training data" if name == ELASTIC else "zero": _errors(name, constant.expand_as(exact), exact),
    }


def _small(rows: StructureRows) -> StructureRows:
    few = [i for i, graph in enumerate(rows.graphs) if graph.num_nodes <= LARGEST]
    return StructureRows([rows.graphs[i] for i in few], [rows.formulas[i] for i in few], rows.specs, [])


def _lines(result: dict[str, Any], name: str, unit: str) -> str:
    return "\n".join(
        f"| {name}, {unit} | {model} | {x['frobenius']:.3g} ({x['frobenius_median']:.3g}) | {x['summary']:.3g} |"
        for model, x in result.items()
        if isinstance(x, dict) and "frobenius" in x
    )


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Needs ``--data FOLDER`` with tensors/piezoelectric.parquet and tensors/elastic_100.parquet."""
    if arguments.data is None:
        raise SystemExit("benchmark: mechanics needs --data FOLDER")
    folder: Path = arguments.data / "tensors"
    as_given = read_structure_rows(folder / "piezoelectric.parquet", [PIEZO], CONFIG.cutoff)
    turned = read_structure_rows(folder / "piezoelectric.parquet", [PIEZO], CONFIG.cutoff, frame="ieee")
    elastic = read_structure_rows(folder / "elastic_100.parquet", [ELASTIC], CONFIG.cutoff)
    results = {PIEZO: _learn(_small(turned), PIEZO), ELASTIC: _learn(elastic, ELASTIC)}
    n = len(turned.graphs) + len(turned.rejected)
    sizes = {name: ", ".join(f"{count} {part}" for part, count in x["sizes"].items()) for name, x in results.items()}
    text = f"""## Piezoelectric and elastic tensors

`python scripts/benchmark.py mechanics --data FOLDER`: {n} piezoelectric tensors (de Jong et al., Sci. Data 2, 150053 (2015)) and {len(elastic.graphs)} elastic
ones (Materials Project, cubic crystals only). The crystals' point groups forbid the piezoelectric tensors of {len(as_given.rejected)} rows in the frame of the given
lattice: they are in IEEE axes. Turned back (`data.tensor_frame=ieee`) {len(turned.rejected)} rows still contradict their symmetry and are rejected; signs of axes that the
standard leaves open remain unknown, which limits what can be learnt. One network, split by formula ({sizes[PIEZO]} with at most {LARGEST} atoms; {sizes[ELASTIC]}), {EPOCHS[PIEZO]} and {EPOCHS[ELASTIC]} epochs.
Frobenius norms of the errors on the test part, mean (median); last column: largest component, and Voigt's bulk modulus, mean absolute error.

| tensor | | Frobenius norm | largest component, bulk modulus |
|---|---|---|---|
{_lines(results[PIEZO], "piezoelectric", "C/m²")}
{_lines(results[ELASTIC], "elastic", "GPa")}

90 % intervals cover {results[PIEZO]["coverage_90"]:.0%} and {results[ELASTIC]["coverage_90"]:.0%} (scaled on the validation part). Neither kind is learnt
here: with so few labels the errors are those of the trivial answer within their noise, whatever the network. What holds by construction, that the
tensors turn with the crystal and obey its point group, is tested (`tests/generators/structures/`)."""
    return {
        "markdown": text,
        "seed": 0,
        "rejected_as_given": len(as_given.rejected),
        "rejected_from_ieee": len(turned.rejected),
        **results,
    }
