"""Training of the surrogate ensemble, with calibration on held-out data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from data.properties import known_property
from data.prototype_table import PrototypeTable
from data.prototypes import Prototype
from generators.oracles.surrogate_network import SurrogateConfig, SurrogateMember, orbit_graph
from generators.schedule import one_cycle


@dataclass(frozen=True)
class SurrogateOptimizer:
    """AdamW on a one-cycle schedule."""

    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    seed: int = 0


class SurrogateModule(pl.LightningModule):
    """A deep ensemble (Lakshminarayanan et al., NeurIPS 2017) of `SurrogateMember`.

    Every member minimises a Gaussian likelihood weighted by half its variance (beta-NLL, Seitzer et al., ICLR
    2022) on its own bootstrap sample. The total standard deviation is scaled per property so that held-out
    labels have unit normalised error.
    """

    center: Tensor
    scale: Tensor
    temperature: Tensor

    def __init__(
        self,
        table: PrototypeTable,
        properties: Sequence[str],
        center: Tensor,
        scale: Tensor,
        known_elements: Sequence[int],
        config: SurrogateConfig | None = None,
        optimizer: SurrogateOptimizer | None = None,
    ) -> None:
        super().__init__()
        self.table = table
        self.properties = tuple(properties)
        self.known_elements = tuple(sorted(known_elements))
        self.surrogate_config = config or SurrogateConfig()
        self.optimizer_config = optimizer or SurrogateOptimizer()
        self.register_buffer("center", center.float())
        self.register_buffer("scale", scale.float())
        self.register_buffer("temperature", torch.ones(len(self.properties)))
        self.members = nn.ModuleList(
            SurrogateMember(len(self.properties), self.surrogate_config) for _ in range(self.surrogate_config.members)
        )
        self._held_out: list[tuple[Tensor, Tensor, Tensor]] = []

    @staticmethod
    def standardisation(labels: Tensor, properties: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Median and spread [P] of labels [B, P] in model space."""
        centers, scales = [], []
        for p, name in enumerate(properties):
            known = labels[:, p][known_property(name).plausible(labels[:, p])]
            if len(known) < 10:
                raise ValueError(f"{name}: has {len(known)} usable labels, at least 10 are needed")
            model = known_property(name).to_model(known)
            centers.append(model.mean())
            scales.append(model.std().clamp(min=1e-6))
        return torch.stack(centers), torch.stack(scales)

    def standardise(self, labels: Tensor) -> Tensor:
        """[B, P] model space, standardised; NaN where unknown or implausible."""
        columns = []
        for p, name in enumerate(self.properties):
            spec = known_property(name)
            y = torch.where(spec.plausible(labels[:, p]), labels[:, p], torch.full_like(labels[:, p], torch.nan))
            columns.append(spec.to_model(y))
        return (torch.stack(columns, 1).float() - self.center) / self.scale

    def forward(self, row: Tensor, elements: Tensor, table: PrototypeTable | None = None) -> tuple[Tensor, Tensor]:
        """Ensemble mean and standard deviation [B, P] in standardised model space, calibrated."""
        table = (table or self.table).to(row.device)
        graph = orbit_graph(table, row, elements)
        outputs = [member(table, graph) for member in self.members]
        means = torch.stack([mean for mean, _ in outputs])
        within = torch.stack([log_variance.exp() for _, log_variance in outputs]).mean(0)
        between = means.var(0, unbiased=False)
        return means.mean(0), (within + between).sqrt() * self.temperature

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """Sum of the members' losses on their bootstrap samples."""
        row, elements = batch["prototype"], batch["elements"]
        table = self.table.to(row.device)
        graph = orbit_graph(table, row, elements)
        target = self.standardise(batch["labels"])
        known = ~torch.isnan(target)
        target = torch.nan_to_num(target)
        total = row.new_zeros((), dtype=torch.float32)
        for m, member in enumerate(self.members):
            mean, log_variance = member(table, graph)
            generator = torch.Generator().manual_seed(self.optimizer_config.seed + m)
            # A crystal is in or out of a member's sample for good: decided by its identity, not by the step.
            salt = torch.randint(1, 2**31 - 1, (elements.shape[1] + 1,), generator=generator).to(row.device)
            identity = ((torch.cat([row[:, None], elements], 1) * salt).sum(1) % 1000).float() / 1000
            inside = (identity < 0.85).float()[:, None] * known
            nll = 0.5 * ((target - mean) ** 2 / log_variance.exp() + log_variance)
            nll = nll * log_variance.exp().sqrt().detach()
            total = total + (nll * inside).sum() / inside.sum().clamp(min=1)
        self.log("train/loss", total / len(self.members), prog_bar=True)
        return total

    def _collect(self, batch: Mapping[str, Tensor]) -> None:
        mean, std = self(batch["prototype"], batch["elements"])
        self._held_out.append((mean.detach().cpu(), std.detach().cpu(), self.standardise(batch["labels"]).cpu()))

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Collect predictions; figures come at the end of the epoch."""
        self._collect(batch)

    def test_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """As in validation."""
        self._collect(batch)

    def on_validation_epoch_end(self) -> None:
        """Fit the temperature on the validation part, then report."""
        mean, std, target = self._gather()
        with torch.no_grad():
            for p in range(len(self.properties)):
                known = ~torch.isnan(target[:, p])
                if known.sum() < 10:
                    continue
                # 68 % of the normalised errors inside one standard deviation: robust against outliers.
                error = ((target - mean)[known, p] / std[known, p]).abs()
                self.temperature[p] *= torch.quantile(error, 0.6827).clamp(0.1, 10).to(self.temperature)
        _, std, _ = mean, std, target
        self._report("val", mean, std, target)

    def on_test_epoch_end(self) -> None:
        """Report on the test part with the temperature of the validation part."""
        self._report("test", *self._gather())

    def _gather(self) -> tuple[Tensor, Tensor, Tensor]:
        mean, std, target = (torch.cat(parts) for parts in zip(*self._held_out, strict=True))
        self._held_out.clear()
        return mean, std, target

    def _report(self, stage: str, mean: Tensor, std: Tensor, target: Tensor) -> None:
        total = torch.zeros(())
        for p, name in enumerate(self.properties):
            known = ~torch.isnan(target[:, p])
            if not bool(known.any()):
                continue
            spec = known_property(name)
            center, scale = self.center[p].cpu(), self.scale[p].cpu()
            truth = spec.from_model(target[known, p] * scale + center)
            guess = spec.from_model(mean[known, p] * scale + center)
            error = (target - mean)[known, p].abs()
            self.log(f"{stage}/mae/{name}", (truth - guess).abs().mean())
            self.log(f"{stage}/coverage_68/{name}", (error < std[known, p]).float().mean())
            self.log(f"{stage}/coverage_90/{name}", (error < 1.645 * std[known, p]).float().mean())
            self.log(f"{stage}/coverage_95/{name}", (error < 1.96 * std[known, p]).float().mean())
            total = total + error.mean()
        self.log(f"{stage}/loss", total / len(self.properties), prog_bar=True)

    def configure_optimizers(self) -> Any:
        """AdamW, one cycle."""
        config = self.optimizer_config
        return one_cycle(self.trainer, self.members.parameters(), config.learning_rate, config.weight_decay)

    def export(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """(plain config, tensors) for `generators.checkpoints`; weights in half precision."""
        config = {
            "prototypes": [p.as_row() for p in self.table.prototypes],
            "properties": list(self.properties),
            "known_elements": list(self.known_elements),
            "surrogate": asdict(self.surrogate_config),
            "optimizer": asdict(self.optimizer_config),
        }
        weights = {name for name, _ in self.named_parameters()}
        state = {k: v.detach().cpu().clone() for k, v in self.state_dict().items()}
        return config, {k: v.half() if k in weights else v for k, v in state.items()}

    @classmethod
    def from_export(cls, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> SurrogateModule:
        """Inverse of `export`."""
        n = len(config["properties"])
        module = cls(
            PrototypeTable.build([Prototype.from_row(row) for row in config["prototypes"]]),
            config["properties"],
            torch.zeros(n),
            torch.ones(n),
            config["known_elements"],
            SurrogateConfig(**config["surrogate"]),
            SurrogateOptimizer(**config["optimizer"]),
        )
        module.load_state_dict(dict(state))
        return module.eval()
