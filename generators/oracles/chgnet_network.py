"""CHGNet's network on a `CrystalGraph`: the same numbers from fewer operations.

CHGNet joins the features of center, bond and neighbour for every directed bond and multiplies the long row
by one matrix. Multiplying first, per atom and per bond, and adding afterwards is the same sum. Core and gate
of a gated layer share one product. The last angle update is left out: nothing reads it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.oracles.crystal_graph import CrystalGraph

_WIDTH = 64


class _Gate(nn.Module):
    """A gated MLP whose input is a sum of blocks: ``silu(norm(core)) * sigmoid(norm(gate))``."""

    def __init__(self, gated: Any) -> None:
        super().__init__()
        core = [m for m in gated.mlp_core.layers if isinstance(m, nn.Linear)]
        gate = [m for m in gated.mlp_gate.layers if isinstance(m, nn.Linear)]
        self.weight = nn.Parameter(torch.cat([core[0].weight, gate[0].weight]))
        self.bias = nn.Parameter(torch.cat([core[0].bias, gate[0].bias]))
        self.second_core = core[1] if len(core) > 1 else nn.Identity()
        self.second_gate = gate[1] if len(gate) > 1 else nn.Identity()
        self.deep = len(core) > 1
        self.norm_core, self.norm_gate = gated.bn1, gated.bn2

    def block(self, index: int, features: Tensor, bias: bool = False) -> Tensor:
        """[n, 128] part of the first layer that block ``index`` of the joined row contributes."""
        weight = self.weight[:, _WIDTH * index : _WIDTH * (index + 1)]
        return F.linear(features, weight, self.bias if bias else None)

    def forward(self, hidden: Tensor) -> Tensor:
        """[n, 64] from the first layer's sum [n, 128]."""
        if self.deep:
            hidden = F.silu(hidden)
        core, gate = hidden[:, :_WIDTH], hidden[:, _WIDTH:]
        return F.silu(self.norm_core(self.second_core(core))) * torch.sigmoid(self.norm_gate(self.second_gate(gate)))


class CHGNetNetwork(nn.Module):
    """The layers of a loaded CHGNet, frozen.

    Raises:
        ValueError: a CHGNet of another architecture than 0.3.0.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        wanted = {"n_conv": 4, "atom_fea_dim": _WIDTH, "bond_fea_dim": _WIDTH, "angle_fea_dim": _WIDTH,
                  "mlp_first": True, "is_intensive": True, "gMLP_norm": "layer"}  # fmt: skip
        for name, value in wanted.items():
            if model.model_args[name] != value:
                raise ValueError(f"{name}={model.model_args[name]!r}: CHGNet 0.3.0 has {value!r}, load that version")
        self.model = model
        self.atom = nn.ModuleList(_Gate(layer.twoBody_atom) for layer in model.atom_conv_layers)
        self.bond = nn.ModuleList(_Gate(layer.twoBody_bond) for layer in model.bond_conv_layers)
        self.angle = nn.ModuleList(_Gate(layer.twoBody_bond) for layer in model.angle_layers[:-1])
        self.eval().requires_grad_(False)

    def forward(self, graph: CrystalGraph, number: Tensor, distance: Tensor, cosine: Tensor) -> tuple[Tensor, Tensor]:
        """Energies (eV, without elemental references) and absolute moments (µB) of the nodes.

        Args:
            graph: the topology.
            number: [nodes] atomic numbers.
            distance: [U] Å, of the bonds.
            cosine: [A] of the angles.
        """
        model: Any = self.model
        device = distance.device

        def index(array: Any) -> Tensor:
            return torch.from_numpy(array).to(device)

        center, neighbour, edge_bond = index(graph.edge_center), index(graph.edge_neighbour), index(graph.edge_bond)
        angle_center, angle_bond = index(graph.angle_center), index(graph.angle_bond)
        n_short, with_angles = graph.n_short, len(graph.angle_center) > 0
        basis = model.bond_basis_expansion
        radial = basis.rbf_expansion_ag(distance)
        atom = model.atom_embedding(number - 1)
        bond = model.bond_embedding(radial)
        edge_weight = model.bond_weights_ag(radial)[edge_bond] * index(graph.edge_weight)[:, None]
        if with_angles:
            bond_i, bond_j = angle_bond[:, 0], angle_bond[:, 1]
            weight = model.bond_weights_bg(basis.rbf_expansion_bg(distance[:n_short]))
            angle_weight = weight[bond_i] * weight[bond_j] * index(graph.angle_weight)[:, None]
            turn = torch.acos(cosine * (1 - 1e-6))
            angle = model.angle_embedding(model.angle_basis_expansion.fourier_expansion(turn))
        moment = torch.zeros_like(atom[:, 0])
        gates: list[Any] = list(self.atom)
        for layer, gate in enumerate(gates):
            if layer == len(self.atom) - 1:  # CHGNet reads moments before its last layer
                moment = model.site_wise(atom)[:, 0].abs()
            hidden = gate.block(0, atom, bias=True)[center] + gate.block(1, bond)[edge_bond]
            message = gate(hidden + gate.block(2, atom)[neighbour]) * edge_weight
            total = torch.zeros_like(atom).index_add(0, center, message)
            atom = atom + model.atom_conv_layers[layer].mlp_out(total)
            if not with_angles or layer == len(self.bond):
                continue
            short = bond[:n_short]
            message = self._around(self.bond[layer], short, angle, atom, bond_i, bond_j, angle_center) * angle_weight
            total = torch.zeros_like(short).index_add(0, bond_i, message)
            short = short + model.bond_conv_layers[layer].mlp_out(total)
            bond = torch.cat([short, bond[n_short:]])
            if layer < len(self.angle):
                angle = angle + self._around(self.angle[layer], short, angle, atom, bond_i, bond_j, angle_center)
        return model.mlp(model.readout_norm(atom))[:, 0], moment

    @staticmethod
    def _around(
        gate: Any, short: Tensor, angle: Tensor, atom: Tensor, bond_i: Tensor, bond_j: Tensor, center: Tensor
    ) -> Tensor:
        """[A, 64] messages of the angles."""
        hidden = gate.block(0, short)[bond_i] + gate.block(1, short)[bond_j] + gate.block(2, angle, bias=True)
        message: Tensor = gate(hidden + gate.block(3, atom)[center])
        return message
