"""Dielectric tensors: an equivariant network, the same network component by component, and the mean."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import fit
from data.properties import PropertySpec
from generators.structures.dataset import StructureDataModule, StructureRows, read_structure_rows
from generators.structures.module import StructureModule, StructureOptimizer, mean_neighbours, parameters
from generators.structures.network import StructureConfig
from generators.structures.tensors import model_tensor

NAME, EPOCHS = "e_electronic", 40
CONFIG = StructureConfig(width=24, depth=2, members=2)


def train(
    rows: StructureRows, seed: int = 0, epochs: int = EPOCHS, config: StructureConfig = CONFIG
) -> tuple[StructureModule, StructureDataModule, float]:
    """An ensemble, its data, and the seconds that it took."""
    torch.manual_seed(seed)
    data = StructureDataModule(rows, 32, (0.8, 0.1, 0.1), seed)
    train = data.parts["train"]
    elements = sorted({int(z) for graph in rows.graphs for z in graph.atomic_number})
    module = StructureModule(rows.specs, elements, mean_neighbours(train), config, StructureOptimizer(seed=seed))
    module.fit_scales(train)
    seconds = fit(module, data, epochs)
    return module.eval(), data, seconds


def predict(module: StructureModule, data: StructureDataModule) -> tuple[list[Tensor], Tensor, list[Tensor]]:
    """Means per property, standard deviations and labels of the test part, in model space."""
    with torch.no_grad():
        for batch in data.test_dataloader():
            module._collect(batch)
    return module._gather()


def component_by_component(rows: StructureRows) -> StructureRows:
    """The same rows with one scalar per irreducible component in the frame of the cell: the components know nothing of
    each other or of rotations."""
    parts = [graph.clone() for graph in rows.graphs]
    for graph in parts:
        whole = graph.target_0
        for i in range(whole.shape[1]):
            graph[f"target_{i}"] = whole[:, i : i + 1]
    names = tuple(PropertySpec(f"component_{i}") for i in range(rows.graphs[0].target_0.shape[1]))
    return StructureRows(parts, rows.formulas, names, [])


def _errors(tensor: Tensor, truth: Tensor) -> dict[str, float]:
    a, b = torch.linalg.eigvalsh(tensor), torch.linalg.eigvalsh(truth)
    return {
        "frobenius": float((tensor - truth).flatten(1).norm(dim=1).mean()),
        "frobenius_median": float((tensor - truth).flatten(1).norm(dim=1).median()),
        "mean_eigenvalue": float((a.mean(1) - b.mean(1)).abs().mean()),
        "mean_eigenvalue_median": float((a.mean(1) - b.mean(1)).abs().median()),
        "anisotropy_median": float(((a[:, 2] - a[:, 0]) - (b[:, 2] - b[:, 0])).abs().median()),
    }


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Needs ``--structures``: a Parquet table with structures and the list column ``e_electronic``."""
    if arguments.structures is None:
        raise SystemExit("benchmark: tensors needs --structures TABLE")
    path: Path = arguments.structures
    rows = read_structure_rows(path, [NAME], CONFIG.cutoff)
    (spec,) = rows.specs
    module, data, seconds = train(rows)
    (mean,), std, (truth,) = predict(module, data)
    exact = model_tensor(truth.double(), spec)
    results = {"equivariant ensemble": _errors(model_tensor(mean.double(), spec), exact)}

    apart, apart_data, _ = train(component_by_component(rows))
    components = torch.cat(predict(apart, apart_data)[0], 1)
    results["same network, component by component"] = _errors(model_tensor(components.double(), spec), exact)
    labels = torch.cat([graph.target_0 for graph in data.parts["train"]]).mean(0, keepdim=True)
    constant = model_tensor(labels.double(), spec).diagonal(dim1=1, dim2=2).mean() * torch.eye(3, dtype=torch.float64)
    results["isotropic mean of the training data"] = _errors(constant.expand_as(exact), exact)

    inside = (mean - truth).pow(2).mean(-1).sqrt() < 1.645 * std[:, 0]
    lines = "\n".join(
        f"| {name} | {x['frobenius']:.2f} ({x['frobenius_median']:.2f}) | {x['mean_eigenvalue']:.2f} "
        f"({x['mean_eigenvalue_median']:.2f}) | {x['anisotropy_median']:.2f} |"
        for name, x in results.items()
    )
    sizes = ", ".join(f"{len(index)} {part}" for part, index in data.rows.items())
    text = f"""## Dielectric tensors

`python scripts/benchmark.py tensors --structures dielectric.parquet`: electronic dielectric tensors (Petousis et al., Sci. Data 4, 160134
(2017)), {len(rows.graphs)} structures ({sizes}, split by formula), matrix logarithm, {EPOCHS} epochs, {CONFIG.members} members of
{parameters(module) // CONFIG.members:,} weights. Errors on the test part, mean (median); values run from 1.6 to 381.

| | Frobenius norm | mean eigenvalue | largest minus smallest eigenvalue, median |
|---|---|---|---|
{lines}

Its 90 % intervals cover {float(inside.float().mean()):.0%} (scaled on the validation part). Trained in {seconds:.0f} s."""
    return {"markdown": text, "seed": 0, "results": results, "coverage_90": float(inside.float().mean())}
