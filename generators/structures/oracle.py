"""A trained structure ensemble as an oracle."""

from __future__ import annotations

from pathlib import Path

import torch
from pymatgen.core import Structure
from torch import Tensor
from torch_geometric.data import Batch, Data

from data.cells import decode
from data.orbit_batch import OrbitBatch
from generators.checkpoints import load_checkpoint
from generators.oracles.base import OracleResult
from generators.structures.graph import structure_graph
from generators.structures.module import StructureModule
from generators.structures.tensors import model_tensor

CHUNK = 64


class StructureOracle:
    """Means and calibrated standard deviations for the structures as they are; nothing is relaxed.

    Values of tensors are [B, 3, 3 (, 3 (, 3))], Cartesian, in the frame of the given cell; their standard deviation
    is that of a component (of the logarithm, where one is taken). Crystals with an element that the training data
    lack are valid and flagged (`out_of_domain`).
    """

    name = "structure"
    scale = ""

    def __init__(self, module: StructureModule) -> None:
        self.module = module.eval()
        self.properties = tuple(spec.name for spec in module.specs)

    @classmethod
    def load(cls, path: Path) -> StructureOracle:
        """From a checkpoint file. Raises ValueError in one line for anything that is not one."""
        config, state = load_checkpoint(path, "structure")
        return cls(StructureModule.from_export(config, state))

    def evaluate(self, batch: OrbitBatch) -> OracleResult:
        """Predictions for crystals, in the frame of their primitive cells (`data.cells.decode`)."""
        return self.predict(list(decode(batch).structures()))

    @torch.no_grad()
    def predict(self, structures: list[Structure]) -> OracleResult:
        """Predictions for pymatgen structures, in their own frame."""
        graphs: list[tuple[int, Data]] = []
        reasons = [""] * len(structures)
        for i, structure in enumerate(structures):
            try:
                graphs.append((i, structure_graph(structure, self.module.structure_config.cutoff)))
            except ValueError:
                reasons[i] = "isolated atom"
        values: dict[str, Tensor] = {}
        stds = {name: torch.full((len(structures),), torch.nan, dtype=torch.float64) for name in self.properties}
        for start in range(0, len(graphs), CHUNK):
            part = graphs[start : start + CHUNK]
            means, std = self.module(Batch.from_data_list([graph for _, graph in part]))
            rows = torch.tensor([i for i, _ in part])
            for p, spec in enumerate(self.module.specs):
                value, spread = self._property(p, means[p].double(), std[:, p].double())
                if spec.name not in values:
                    values[spec.name] = torch.full((len(structures), *value.shape[1:]), torch.nan, dtype=torch.float64)
                values[spec.name][rows], stds[spec.name][rows] = value, spread
        for name in self.properties:
            values.setdefault(name, torch.full((len(structures),), torch.nan, dtype=torch.float64))
        return OracleResult(values, stds, torch.tensor([not r for r in reasons], dtype=torch.bool), tuple(reasons))

    def _property(self, p: int, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        spec = self.module.specs[p]
        if spec.readout == "tensor":
            return model_tensor(mean, spec), std
        value = spec.from_model(mean[:, 0])
        # For a logarithm the standard deviation is carried over to first order.
        return value, std * value if spec.transform == "log" else std

    def out_of_domain(self, structures: list[Structure]) -> Tensor:
        """[B] bool: an element that was not in the training data."""
        known = set(self.module.known_elements)
        return torch.tensor([not {site.specie.Z for site in s} <= known for s in structures], dtype=torch.bool)
