"""The Lightning module of the conditional composition diffusion."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from data.prototype_table import PrototypeTable
from generators.conditioning import PropertyScale, condition_features, random_conditions
from generators.denoiser.orbit_denoiser import HIDDEN, DenoiserConfig, OrbitDenoiser
from generators.diffusion.masked import corrupt, negative_bound
from generators.diffusion.times import low_discrepancy_times
from generators.element_features import N_STATES
from generators.sampling.composition import CompositionSampler
from generators.schedule import OptimizerConfig, move_average, warmed_cosine


class CompositionDiffusion(pl.LightningModule):
    """Masked diffusion over the elements of a prototype's orbits, conditioned on property intervals.

    Batches are dictionaries: ``prototype`` [B] (row of the table), ``elements`` [B, K] and ``labels``
    [B, P] (NaN where unknown).
    """

    def __init__(
        self,
        table: PrototypeTable,
        scales: Sequence[PropertyScale],
        known_elements: Sequence[int],
        denoiser: DenoiserConfig | None = None,
        optimizer: OptimizerConfig | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.table = table
        self.scales = tuple(scales)
        self.known_elements = tuple(sorted(known_elements))
        self.optimizer_config = optimizer or OptimizerConfig()
        self.denoiser = OrbitDenoiser(len(self.scales), len(table), denoiser or DenoiserConfig())
        self.averaged = copy.deepcopy(self.denoiser).requires_grad_(False)
        self.seed = seed

    # -- the loss on one screen ------------------------------------------------------------------------

    def loss(self, batch: Mapping[str, Tensor], generator: torch.Generator, denoiser: OrbitDenoiser) -> Tensor:
        """Negative evidence bound of (prototype, elements) given random intervals, nats per crystal."""
        row, elements = batch["prototype"], batch["elements"]
        table = self.table.to(row.device)
        labels = batch["labels"].cpu()
        conditions, fair = random_conditions(labels, self.scales, generator, self.optimizer_config.unconditional)
        features = condition_features(conditions, self.scales).to(row.device)
        condition = denoiser.embed_conditions(features, conditions.given.to(row.device))

        slots = table.is_leader[row]
        t = low_discrepancy_times(len(row), generator, row.device)
        hidden = corrupt(slots, t, generator)
        hidden_orbits = hidden.gather(1, table.leader[row]) & table.mask[row]
        logits = denoiser(table, row, elements.masked_fill(hidden_orbits, HIDDEN), condition)
        nll = negative_bound(self._log_probability(logits), elements, hidden, slots)
        nll = nll + F.cross_entropy(denoiser.prototype_logits(condition), row, reduction="none")
        weight = fair.to(nll).clamp(max=20.0)
        return (weight * nll).sum() / weight.sum()

    def _log_probability(self, logits: Tensor) -> Tensor:
        """Log-probabilities over the elements of the training set; the others get none."""
        known = torch.zeros(N_STATES, dtype=torch.bool, device=logits.device)
        known[list(self.known_elements)] = True
        return F.log_softmax(logits.masked_fill(~known, -1e9), -1)

    # -- Lightning ------------------------------------------------------------------------------------

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """One step; noise is drawn from (seed, step, rank), so that a resumed run goes on as if never killed."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.global_step * 64 + self.global_rank)
        loss = self.loss(batch, generator, self.denoiser)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def on_train_batch_end(self, *args: Any) -> None:
        """Move the averaged weights."""
        move_average(self.averaged, self.denoiser, self.global_step, self.optimizer_config.ema_decay)

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Loss of the averaged weights, with the same noise at every epoch."""
        generator = torch.Generator().manual_seed(self.seed + batch_idx)
        loss = self.loss(batch, generator, self.averaged)
        self.log("val/loss", loss, prog_bar=True, batch_size=len(batch["prototype"]), sync_dist=True)

    def test_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """As in validation, on the test part."""
        generator = torch.Generator().manual_seed(self.seed + batch_idx)
        loss = self.loss(batch, generator, self.averaged)
        self.log("test/loss", loss, batch_size=len(batch["prototype"]), sync_dist=True)

    def configure_optimizers(self) -> Any:
        """AdamW; the learning rate warms up and then follows a cosine to zero at the last step."""
        return warmed_cosine(self.trainer, self.denoiser.parameters(), self.optimizer_config)

    # -- use ------------------------------------------------------------------------------------------

    def sampler(
        self, guidance: float = 1.0, temperature: float = 1.0, allowed: frozenset[int] | None = None
    ) -> CompositionSampler:
        """A sampler of the averaged weights. ``allowed`` restricts the elements further.

        Raises:
            ValueError: an allowed element that the model never saw.
        """
        unknown = set(allowed or ()) - set(self.known_elements)
        if unknown:
            from data.cells import element

            raise ValueError(
                f"allowed_elements={element(min(unknown)).symbol}: the model was not trained on it, it knows "
                + " ".join(element(z).symbol for z in self.known_elements)
            )
        states = torch.zeros(N_STATES, dtype=torch.bool)
        states[sorted(self.known_elements if allowed is None else allowed)] = True
        return CompositionSampler(self.averaged.eval(), self.scales, states, guidance, temperature)

    def export(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """(plain config, tensors) of the averaged model for `generators.checkpoints`; weights in half precision."""
        config = {
            "prototypes": [p.as_row() for p in self.table.prototypes],
            "scales": [{"name": s.name, "mean": s.mean, "std": s.std} for s in self.scales],
            "known_elements": list(self.known_elements),
            "denoiser": asdict(self.denoiser.config),
            "optimizer": asdict(self.optimizer_config),
            "seed": self.seed,
        }
        state = {f"denoiser.{k}": v.cpu().half() for k, v in self.averaged.state_dict().items()}
        state.update({f"scales.{s.name}": s.knots for s in self.scales})
        return config, state

    @classmethod
    def from_export(cls, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> CompositionDiffusion:
        """Inverse of `export`."""
        from data.prototypes import Prototype

        module = cls(
            table=PrototypeTable.build([Prototype.from_row(row) for row in config["prototypes"]]),
            scales=[PropertyScale.from_state({**s, "knots": state[f"scales.{s['name']}"]}) for s in config["scales"]],
            known_elements=config["known_elements"],
            denoiser=DenoiserConfig(**config["denoiser"]),
            optimizer=OptimizerConfig(**config["optimizer"]),
            seed=int(config["seed"]),
        )
        weights = {k.removeprefix("denoiser."): v for k, v in state.items() if k.startswith("denoiser.")}
        module.averaged.load_state_dict(weights)
        module.denoiser.load_state_dict(weights)
        return module.eval()
