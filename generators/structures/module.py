"""Training of an ensemble of structure networks, calibrated on held-out structures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from data.properties import PropertySpec
from generators.schedule import one_cycle
from generators.structures.network import StructureConfig, StructureNetwork, output_irreps
from generators.structures.tensors import model_tensor


@dataclass(frozen=True)
class StructureOptimizer:
    """AdamW on a one-cycle schedule."""

    learning_rate: float = 5e-3
    weight_decay: float = 1e-3
    seed: int = 0


class StructureModule(pl.LightningModule):
    """A deep ensemble of `StructureNetwork`; every member sees its own bootstrap sample of each batch.

    Targets are standardised: scalars by mean and spread (sums by spread per atom only), tensors by the mean of their
    isotropic part and the spread of all, which keeps them equivariant. The standard deviation of a tensor is that of a
    component. It is scaled so that the held-out errors it predicts are as large as those found (68 % inside).
    """

    scale: Tensor
    temperature: Tensor

    def __init__(
        self,
        specs: Sequence[PropertySpec],
        known_elements: Sequence[int],
        neighbours: float,
        config: StructureConfig | None = None,
        optimizer: StructureOptimizer | None = None,
    ) -> None:
        super().__init__()
        self.specs, self.known_elements = tuple(specs), tuple(sorted(known_elements))
        self.neighbours = float(neighbours)
        self.structure_config, self.optimizer_config = config or StructureConfig(), optimizer or StructureOptimizer()
        self.register_buffer("scale", torch.ones(len(self.specs)))
        self.register_buffer("temperature", torch.ones(len(self.specs)))
        self.centers = nn.ParameterList(
            nn.Parameter(torch.zeros(output_irreps(spec).dim), requires_grad=False) for spec in self.specs
        )
        self.members = nn.ModuleList(
            StructureNetwork(self.specs, self.structure_config, self.neighbours)
            for _ in range(self.structure_config.members)
        )
        self._held_out: list[tuple[list[Tensor], Tensor, list[Tensor]]] = []

    def fit_scales(self, graphs: Sequence[Data]) -> None:
        """Centre and spread of every property from training graphs. Raises ValueError for too few labels."""
        for p, spec in enumerate(self.specs):
            y = torch.cat([graph[f"target_{p}"] for graph in graphs])
            if spec.readout == "sum":
                y = y / torch.tensor([graph.num_nodes for graph in graphs])[:, None]
            y = y[torch.isfinite(y).all(1)]
            if len(y) < 10:
                raise ValueError(f"{spec.name}: has {len(y)} usable labels, at least 10 are needed")
            center = y.mean(0)
            isotropic = torch.cat(
                [torch.full((irrep.dim * n,), float(irrep.l == 0)) for n, irrep in output_irreps(spec)]
            )
            center = center * isotropic if spec.readout != "sum" else center * 0
            self.centers[p].data.copy_(center)
            self.scale[p] = ((y - center) ** 2).mean().sqrt().clamp(min=1e-6)

    def targets(self, graph: Data) -> list[Tensor]:
        """Standardised targets [B, components] per property, NaN where unknown."""
        return [(graph[f"target_{p}"] - self.centers[p]) / self.scale[p] for p in range(len(self.specs))]

    def forward(self, graph: Data) -> tuple[list[Tensor], Tensor]:
        """Ensemble means [B, components] in model space, and calibrated standard deviations [B, P] in its unit."""
        outputs = [member(graph) for member in self.members]
        within = torch.stack([log_variance.exp() for _, log_variance in outputs]).mean(0)
        means, stds = [], []
        for p in range(len(self.specs)):
            stacked = torch.stack([mean[p] for mean, _ in outputs])
            between = stacked.var(0, unbiased=False).mean(-1)
            means.append(stacked.mean(0) * self.scale[p] + self.centers[p])
            stds.append((within[:, p] + between).sqrt() * self.scale[p] * self.temperature[p])
        return means, torch.stack(stds, 1)

    def training_step(self, batch: Data, batch_idx: int) -> Tensor:
        """Gaussian likelihood of all components, weighted by half the variance (Seitzer et al., ICLR 2022)."""
        targets = self.targets(batch)
        total = batch.edge_vector.new_zeros(())
        for member in self.members:
            means, log_variance = member(batch)
            keep = (torch.rand(len(log_variance), device=total.device) < 0.85).float()
            for p, (mean, y) in enumerate(zip(means, targets, strict=True)):
                known = torch.isfinite(y).all(1).float() * keep
                variance = log_variance[:, p].exp()
                square = ((torch.nan_to_num(y) - mean) ** 2).mean(-1)
                nll = 0.5 * (square / variance + log_variance[:, p]) * variance.detach().sqrt()
                total = total + (nll * known).sum() / known.sum().clamp(min=1)
        self.log("train/loss", total / len(self.members), prog_bar=True, batch_size=batch.num_graphs)
        return total

    def _collect(self, batch: Data) -> None:
        means, std = self(batch)
        truth = [batch[f"target_{p}"].cpu() for p in range(len(self.specs))]
        self._held_out.append(([mean.cpu() for mean in means], std.cpu(), truth))

    def validation_step(self, batch: Data, batch_idx: int) -> None:
        """Collect predictions; figures come at the end of the epoch."""
        self._collect(batch)

    def test_step(self, batch: Data, batch_idx: int) -> None:
        """As in validation."""
        self._collect(batch)

    def on_validation_epoch_end(self) -> None:
        """Fit the temperatures on the validation part, then report."""
        means, std, truth = self._gather()
        for p in range(len(self.specs)):
            known = torch.isfinite(truth[p]).all(1)
            if known.sum() >= 10:
                error = (means[p] - truth[p])[known].pow(2).mean(-1).sqrt() / std[known, p]
                factor = torch.quantile(error, 0.6827).clamp(0.1, 10)
                self.temperature[p] *= factor.to(self.temperature)
                std[:, p] *= factor
        self._report("val", means, std, truth)

    def on_test_epoch_end(self) -> None:
        """Report on the test part with the temperatures of the validation part."""
        self._report("test", *self._gather())

    def _gather(self) -> tuple[list[Tensor], Tensor, list[Tensor]]:
        means, stds, truths = zip(*self._held_out, strict=True)
        self._held_out.clear()
        count = range(len(self.specs))
        return (
            [torch.cat([part[p] for part in means]) for p in count],
            torch.cat(stds),
            [torch.cat([part[p] for part in truths]) for p in count],
        )

    def _report(self, stage: str, means: list[Tensor], std: Tensor, truth: list[Tensor]) -> None:
        total = 0.0
        for p, spec in enumerate(self.specs):
            known = torch.isfinite(truth[p]).all(1)
            if not bool(known.any()):
                continue
            a, b = means[p][known], truth[p][known]
            error = (a - b).pow(2).mean(-1).sqrt()
            if spec.readout == "tensor":
                apart = model_tensor(a.double(), spec) - model_tensor(b.double(), spec)
                self.log(f"{stage}/frobenius/{spec.name}", apart.flatten(1).norm(dim=1).mean())
            else:
                self.log(f"{stage}/mae/{spec.name}", (spec.from_model(a) - spec.from_model(b)).abs().mean())
            for share, width in ((68, 1.0), (90, 1.645), (95, 1.96)):
                self.log(f"{stage}/coverage_{share}/{spec.name}", (error < width * std[known, p]).float().mean())
            total += float((error / self.scale[p].cpu()).mean())
        self.log(f"{stage}/loss", total / len(self.specs), prog_bar=True)

    def configure_optimizers(self) -> Any:
        """AdamW, one cycle."""
        config = self.optimizer_config
        return one_cycle(self.trainer, self.members.parameters(), config.learning_rate, config.weight_decay)

    def export(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """(plain config, tensors) for `generators.checkpoints`."""
        config = {
            "specs": [asdict(spec) for spec in self.specs],
            "properties": [spec.name for spec in self.specs],
            "prototypes": [],
            "known_elements": list(self.known_elements),
            "neighbours": self.neighbours,
            "structure": asdict(self.structure_config),
            "optimizer": asdict(self.optimizer_config),
        }
        return config, {k: v.detach().cpu().clone() for k, v in self.state_dict().items()}

    @classmethod
    def from_export(cls, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> StructureModule:
        """Inverse of `export`."""
        module = cls(
            [PropertySpec(**spec) for spec in config["specs"]],
            config["known_elements"],
            config["neighbours"],
            StructureConfig(**config["structure"]),
            StructureOptimizer(**config["optimizer"]),
        )
        module.load_state_dict(dict(state))
        return module.eval()


def mean_neighbours(graphs: Sequence[Data]) -> float:
    """Edges per atom, by which messages are normalised."""
    return max(1.0, sum(g.edge_index.shape[1] for g in graphs) / sum(int(g.num_nodes) for g in graphs))


def parameters(module: StructureModule) -> int:
    """Number of weights of all members."""
    return sum(math.prod(p.shape) for p in module.members.parameters())
