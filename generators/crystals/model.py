"""A trained model of whole crystals, as drawing needs it: without Lightning, whose import takes seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.strain_scale import StrainScale
from generators.checkpoints import REMEDY, load_checkpoint
from generators.conditioning import PropertyScale
from generators.denoiser.crystal_denoiser import N_SOURCES, CrystalDenoiser, CrystalDenoiserConfig
from generators.denoiser.low_rank import changed
from generators.precision import fast_bfloat16
from generators.sampling.crystal_geometry import CrystalSamplerSettings
from generators.sampling.crystals import CrystalSampler
from generators.sampling.templates import Templates


@dataclass(frozen=True, eq=False)
class CrystalModel:
    """What `generators.crystals.module.CrystalDiffusion.export` keeps.

    Attributes:
        denoiser: in evaluation mode.
        geometry: the same, or one that differs from it for coordinates and lattice.
        scales: one per property, in the network's order.
        strain_scale: of the lattice.
        known_elements: that the model was trained on.
        seed: of the training, by which crystals were held out.
    """

    denoiser: CrystalDenoiser
    geometry: CrystalDenoiser
    scales: tuple[PropertyScale, ...]
    strain_scale: StrainScale
    known_elements: tuple[int, ...]
    seed: int

    @classmethod
    def from_export(cls, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> CrystalModel:
        """From the configuration and tensors of the file."""
        scales = exported_scales(config, state)
        denoiser = CrystalDenoiser(len(scales), CrystalDenoiserConfig(**config["denoiser"]))
        denoiser.load_state_dict(denoiser_weights(state))
        changes = {k.removeprefix("geometry."): v for k, v in state.items() if k.startswith("geometry.")}
        geometry = changed(denoiser, changes).eval() if changes else denoiser
        strain_scale = StrainScale(*(state[f"strain.{name}"] for name in ("atomic_volume", "mean", "std")))
        elements = tuple(config["known_elements"])
        return cls(denoiser.eval(), geometry, tuple(scales.values()), strain_scale, elements, int(config["seed"]))

    def sampler(
        self, settings: CrystalSamplerSettings | None = None, templates: Templates | None = None, device: str = "cpu"
    ) -> CrystalSampler:
        """That draws from this model on ``device``; the network moves there."""
        return CrystalSampler(
            self.denoiser.to(device), self.scales, self.strain_scale, self.known_elements, settings, templates,
            self.geometry.to(device),
        )  # fmt: skip


def load_crystal_model(path: Path) -> CrystalModel:
    """The model of whole crystals from its file; it draws in bfloat16 where that is fast.

    Raises:
        ValueError: no such file, not a model of whole crystals, or one of another network.
    """
    config, state = load_checkpoint(path, "crystal")
    try:
        model = CrystalModel.from_export(config, state)
    except (RuntimeError, KeyError, TypeError):  # torch's message lists every weight
        raise ValueError(f"checkpoint={path}: was made for another version of the network: {REMEDY}") from None
    model.denoiser.draws_in_bfloat16 = model.geometry.draws_in_bfloat16 = fast_bfloat16()
    return model


def exported_scales(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, PropertyScale]:
    """Scales by the name of the property, in the model's order."""
    return {s["name"]: PropertyScale.from_state({**s, "knots": state[f"scales.{s['name']}"]}) for s in config["scales"]}


def denoiser_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """In single precision; a part of the data that the model never saw counts as any."""
    weights = {k.removeprefix("denoiser."): v.float() for k, v in state.items() if k.startswith("denoiser.")}
    seen = weights["source.weight"]
    weights["source.weight"] = torch.cat([seen, seen[:1].expand(max(N_SOURCES + 1 - len(seen), 0), -1)])
    return weights
