"""The Lightning module of the joint diffusion over whole crystals."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.orbit_batch import OrbitBatch
from data.strain_scale import StrainScale, element_fractions
from data.wyckoff import wyckoff_table
from generators.compiled import compile_for_training
from generators.conditioning import Conditions, PropertyScale, condition_features, random_conditions
from generators.crystals.model import denoiser_weights
from generators.crystals.noise import geometry_path, observe
from generators.denoiser.crystal_denoiser import (
    MOST_ELEMENTS,
    CrystalCondition,
    CrystalDenoiser,
    CrystalDenoiserConfig,
    NoisyCrystals,
)
from generators.denoiser.low_rank import adapt, changes
from generators.diffusion.interpolants import gaussian_guess
from generators.diffusion.masked import corrupt, negative_bound
from generators.diffusion.times import low_discrepancy_times, near_data
from generators.element_features import N_STATES
from generators.schedule import OptimizerConfig, move_average, warmed_cosine

WEIGHTS = {
    "n_elements": 0.5,
    "space_group": 0.5,
    "count": 0.5,
    "positions": 0.5,
    "elements": 0.5,
    "coordinates": 5.0,
    "lattice": 1.5,
}
"""Of the terms: nats per crystal; mean squares of miss / (time + `SMALL_TIME`), length units; and of the lattice's
miss in units of the spread that is left without any knowledge."""
SMALL_TIME, LEAST_SPREAD = 0.01, 0.02
RANK = 16
CHANGED, WHOLE = (
    ("blocks", "messages", "modulation", "mix", "state", "pair.", "coordinates"),
    ("center", "neighbour", "pair_weights", "free_step", "strain_head"),
)
"""What `CrystalDiffusion.learn_geometry` changes: layers by changes of this rank, and the layers that nothing but the
geometry needs altogether."""


@dataclass(frozen=True)
class TaskShares:
    """How often a crystal serves which task; the rest learns geometry.

    Attributes:
        prototype: Wyckoff positions partly hidden.
        elements: elements partly hidden, all positions given.
        with_geometry: share of the second kind in which a noisy geometry is seen.
        composition: share in which the composition is given.
        n_atoms: share in which the number of atoms is given.
        n_elements: share in which the number of elements is given.
        source: share in which the part of the training data is given.
    """

    prototype: float = 0.25
    elements: float = 0.2
    with_geometry: float = 0.6
    composition: float = 0.45
    n_atoms: float = 0.3
    n_elements: float = 0.5
    source: float = 0.5


TRAINED, TESTED = TaskShares(prototype=0.4, elements=0.4), TaskShares()
"""In training, where prototypes and elements need most of the crystals and geometry is learnt once more afterwards
(`CrystalDiffusion.learn_geometry`); and in validation and tests, whose losses stay comparable."""


class CrystalDiffusion(pl.LightningModule):
    """Masked diffusion of Wyckoff positions and elements, straight paths of coordinates and lattice, one denoiser.

    Batches are those of `generators.crystals.datamodule.CrystalDataModule`.
    """

    def __init__(
        self,
        scales: Sequence[PropertyScale],
        strain_scale: StrainScale,
        known_elements: Sequence[int],
        denoiser: CrystalDenoiserConfig | None = None,
        optimizer: OptimizerConfig | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.scales, self.strain_scale = tuple(scales), strain_scale
        self.known_elements = tuple(sorted(known_elements))
        self.optimizer_config = optimizer or OptimizerConfig()
        self.denoiser = CrystalDenoiser(len(self.scales), denoiser or CrystalDenoiserConfig())
        self.averaged = copy.deepcopy(self.denoiser).requires_grad_(False)
        self.seed = seed
        self._base: dict[str, Tensor] = {}  # what prototypes and elements are drawn with, if only geometry is learnt

    def learn_geometry(self) -> None:
        """From now on only coordinates and lattice are learnt, by low-rank changes that serve them alone.

        Prototypes and elements stay exactly as the model has them now.
        """
        self._base = {name: value.clone() for name, value in self.averaged.state_dict().items()}
        self.denoiser.load_state_dict(self._base)
        adapt(self.denoiser, CHANGED, WHOLE, RANK)
        self.averaged = copy.deepcopy(self.denoiser).requires_grad_(False)

    # -- the loss -------------------------------------------------------------------------------------------

    def losses(
        self, batch: Mapping[str, Any], generator: torch.Generator, denoiser: CrystalDenoiser,
        tasks: TaskShares = TESTED,
    ) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
        """The weighted sum, and every term: nats per crystal, mean squared velocities."""
        crystals: OrbitBatch = batch["crystals"]
        crystals = crystals.replace(coordinates=crystals.coordinates.float(), strain=crystals.strain.float())
        b, device = len(crystals), crystals.mask.device
        conditions, fair = random_conditions(
            batch["labels"].cpu(), self.scales, generator, self.optimizer_config.unconditional
        )
        weight = fair.to(device, torch.float32).clamp(max=20.0)
        condition = self._condition(crystals, batch["source"], conditions, generator, tasks)
        wish = denoiser.embed_condition(condition)

        place = torch.rand(b, generator=generator).to(device)
        on_prototype = place < tasks.prototype
        on_geometry = place >= tasks.prototype + tasks.elements
        if self._base:
            on_prototype, on_geometry = torch.zeros_like(on_prototype), torch.ones_like(on_geometry)
        position_hidden = corrupt(crystals.mask, low_discrepancy_times(b, generator, device), generator)
        position_hidden &= on_prototype[:, None]
        rest = crystals.mask & ~position_hidden
        some = corrupt(rest, low_discrepancy_times(b, generator, device), generator)
        element_hidden = torch.where(on_geometry[:, None], torch.zeros_like(some), position_hidden | some)

        time = low_discrepancy_times(b, generator, device)
        time = torch.where(on_geometry, near_data(time, generator), time)
        seen = torch.rand(b, generator=generator).to(device) < tasks.with_geometry
        has_geometry = on_geometry | (~on_prototype & seen)
        with torch.autocast(device.type, enabled=False):  # lengths need all their digits
            path = geometry_path(crystals, self.strain_scale, time, generator)
            state = observe(
                crystals, self.strain_scale, denoiser.config.n_radial, position_hidden, element_hidden,
                (path.coordinates, path.standard_strain, time), has_geometry,
            )  # fmt: skip
        tokens = denoiser(state, wish)

        terms: dict[str, Tensor] = {}
        if not self._base:
            terms = self._without_geometry(denoiser, state, tokens, wish, condition, weight, on_geometry)
        with torch.autocast(device.type, enabled=False):
            step, strain = denoiser.geometry(tokens.float(), state)
        axes = crystals.strain[:, :1].exp()[:, :, None] ** (1 / 3)  # Å, the conventional cell as a cube
        unit = (self.strain_scale.expected_volume(crystals) / crystals.n_atoms) ** (1 / 3)
        free = crystals.coordinate_mask * on_geometry[:, None, None]
        nearness = 1 / (time + SMALL_TIME) ** 2
        miss = (step + time[:, None, None] * path.velocity) * (axes / unit[:, None, None])
        terms["coordinates"] = (miss**2 * nearness[:, None, None] * free).sum() / free.sum().clamp(min=1)
        on_lattice = crystals.strain_mask * on_geometry[:, None]
        _, spread = gaussian_guess(path.standard_strain, time[:, None])
        off = ((strain + time[:, None] * path.strain_velocity) / (spread + LEAST_SPREAD)) ** 2
        terms["lattice"] = (off * on_lattice).sum() / on_lattice.sum().clamp(min=1)
        total = sum((WEIGHTS[name] * value for name, value in terms.items()), torch.zeros((), device=device))
        return total, terms

    def _without_geometry(
        self, denoiser: CrystalDenoiser, state: NoisyCrystals, tokens: Tensor, wish: Tensor,
        condition: CrystalCondition, weight: Tensor, on_geometry: Tensor,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Nats per crystal of everything that is drawn before the geometry."""
        device, crystals = tokens.device, state.batch
        on_prototype = state.position_hidden.any(-1)
        open_number = (condition.n_elements == 0) & (condition.composition.sum(-1) == 0)
        start = wyckoff_table().position_start.to(device)[crystals.space_group]
        letters = (crystals.position - start[:, None]).clamp(min=0) * crystals.mask
        position = F.log_softmax(denoiser.position_logits(tokens, crystals.space_group), -1)
        element = F.log_softmax(denoiser.element_logits(tokens, state).masked_fill(~self._known(device), -1e9), -1)
        number = crystals.n_elements.clamp(max=MOST_ELEMENTS)
        nll = {
            "n_elements": F.cross_entropy(denoiser.number_logits(wish), number, reduction="none"),
            "space_group": F.cross_entropy(denoiser.space_group_logits(wish), crystals.space_group, reduction="none"),
            "count": F.cross_entropy(
                denoiser.count_logits(wish, crystals.space_group), crystals.n_orbits, reduction="none"
            ),
            "positions": negative_bound(position, letters, state.position_hidden, crystals.mask),
            "elements": negative_bound(element, crystals.atomic_number, state.element_hidden, crystals.mask),
        }
        counted = {"n_elements": open_number, "positions": on_prototype, "elements": ~on_geometry}
        terms = {}
        for name, value in nll.items():
            used = weight * counted[name] if name in counted else weight
            terms[name] = (used * value).sum() / used.sum().clamp(min=1)
        return terms

    def _condition(
        self, crystals: OrbitBatch, source: Tensor, conditions: Conditions, generator: torch.Generator,
        tasks: TaskShares,
    ) -> CrystalCondition:  # fmt: skip
        device = crystals.mask.device

        def some(share: float) -> Tensor:
            return torch.rand(len(crystals), generator=generator).to(device) < share

        return CrystalCondition(
            condition_features(conditions, self.scales).to(device),
            conditions.given.to(device),
            element_fractions(crystals).float() * some(tasks.composition)[:, None],
            crystals.n_atoms * some(tasks.n_atoms),
            crystals.n_elements * some(tasks.n_elements),
            source * some(tasks.source),
        )

    def _known(self, device: torch.device) -> Tensor:
        known = torch.zeros(N_STATES, dtype=torch.bool, device=device)
        known[list(self.known_elements)] = True
        return known

    # -- Lightning --------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Compile what all crystals go through, for a long training on a processor."""
        parts = (*self.denoiser.blocks, *self.denoiser.messages)
        compile_for_training(parts, self.device, int(self.trainer.estimated_stepping_batches))

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """One step; noise is drawn from (seed, step, rank), so that a resumed run goes on as if never killed."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.global_step * 64 + self.global_rank)
        total, terms = self.losses(batch, generator, self.denoiser, TRAINED)
        self._log("train", total, terms, len(batch["source"]))
        return total

    def on_train_batch_end(self, *args: Any) -> None:
        """Move the averaged weights."""
        move_average(self.averaged, self.denoiser, self.global_step, self.optimizer_config.ema_decay)

    def _evaluate(self, part: str, batch: Mapping[str, Any], batch_idx: int) -> None:
        generator = torch.Generator().manual_seed(self.seed + batch_idx)
        self.averaged.eval()
        with torch.no_grad():
            total, terms = self.losses(batch, generator, self.averaged)
        self._log(part, total, terms, len(batch["source"]))

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Losses of the averaged weights, with the same noise at every epoch."""
        self._evaluate("val", batch, batch_idx)

    def test_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """As in validation, on the test part."""
        self._evaluate("test", batch, batch_idx)

    def _log(self, part: str, total: Tensor, terms: Mapping[str, Tensor], n: int) -> None:
        sync = part != "train"
        self.log(f"{part}/loss", total, prog_bar=True, batch_size=n, sync_dist=sync)
        self.log_dict({f"{part}/{name}": value for name, value in terms.items()}, batch_size=n, sync_dist=sync)

    def configure_optimizers(self) -> Any:
        """AdamW; the learning rate warms up and then follows a cosine to zero at the last step."""
        fused = self.device.type == "cpu"  # half of a processor's optimizer time
        return warmed_cosine(self.trainer, self.denoiser.parameters(), self.optimizer_config, (0.9, 0.98), fused)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Lightning clips for no fused optimizer, since these scale float16 gradients themselves; no processor does."""
        if self.device.type != "cpu":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val:
            nn.utils.clip_grad_norm_(self.denoiser.parameters(), gradient_clip_val)

    # -- use ----------------------------------------------------------------------------------------------

    def export(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """(plain config, tensors) of the averaged model for `generators.checkpoints`; weights in half precision."""
        config = {
            "scales": [{"name": s.name, "mean": s.mean, "std": s.std} for s in self.scales],
            "known_elements": list(self.known_elements),
            "denoiser": asdict(self.denoiser.config),
            "optimizer": asdict(self.optimizer_config),
            "seed": self.seed,
            "prototypes": [],
        }
        weights = self._base or self.averaged.state_dict()
        state = {f"denoiser.{k}": v.cpu().half() for k, v in weights.items()}
        if self._base:
            changed = changes(self.averaged, WHOLE)
            state.update({f"geometry.{k}": v.cpu().half() for k, v in changed.items() if k not in weights})
            # What nothing else needs takes the place of what was there.
            state.update({f"denoiser.{k}": v.cpu().half() for k, v in changed.items() if k in weights})
        state.update({f"scales.{s.name}": s.knots for s in self.scales})
        state.update({f"strain.{k}": v for k, v in self.strain_scale.state().items()})
        return config, state

    def start_from(self, state: Mapping[str, Tensor]) -> None:
        """Weights of an exported model of the same size, without what it has for geometry alone; the scale of the
        lattices stays that of this model's own data.

        Raises:
            ValueError: a model of another network.
        """
        weights = denoiser_weights(state)
        try:
            self.denoiser.load_state_dict(weights)
        except RuntimeError:
            raise ValueError("model.initial: was made for another version of the network") from None
        self.averaged.load_state_dict(weights)
