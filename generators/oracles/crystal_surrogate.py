"""A surrogate of the judge for whole crystals: an ensemble on what is known, corrected by what was judged since.

The ensemble of small networks is fitted once, on thousands of labels. Every judged crystal then corrects it: the
residuals are a Gaussian process over the same features, whose mean is added and whose variance shrinks where the judge
has been. That is exact, takes no training, and follows the judge from the first answer on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.properties import PropertySpec, known_property

CHUNK = 8192
_LIMIT = 5.0
"""Standardised features are cut here: a rare element shall not be a hundred standard deviations away."""


@dataclass(frozen=True)
class EnsembleFit:
    """Size of the networks and how they are fitted: AdamW, one cycle.

    Attributes:
        members, width: networks and their width.
        steps, batch_size, learning_rate: of AdamW.
        held_out: share of the rows that a member does not see; the standard deviation is calibrated on them.
    """

    members: int = 4
    width: int = 128
    steps: int = 1500
    batch_size: int = 512
    learning_rate: float = 3e-3
    held_out: float = 0.1


class _Networks(nn.Module):
    """M networks of two hidden layers, evaluated together: [B, F] -> means and log variances [M, B, P]."""

    def __init__(self, n_in: int, n_out: int, members: int, width: int) -> None:
        super().__init__()
        m, w = members, width
        sizes = [(n_in, w), (w, w), (w, w)]
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(m, a, b) / a**0.5) for a, b in sizes)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(m, 1, b)) for _, b in sizes)
        self.readout = nn.Parameter(torch.zeros(m, w, 2 * n_out))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = x.expand(len(self.readout), -1, -1)
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            step = F.silu(torch.baddbmm(bias, h, weight))
            h = F.layer_norm(step if layer == 0 else h + step, step.shape[-1:])
        mean, log_variance = torch.bmm(h, self.readout).chunk(2, -1)
        return mean, log_variance.clamp(-8, 4)


class CrystalSurrogate:
    """Means and standard deviations of properties from features [B, F].

    Args:
        properties: P names.
        networks: fitted, on standardised values.
        shift, width: [F] of the features.
        center, scale: [P] of the labels, on the model's scale.
        temperature: [P] that the networks' standard deviations are multiplied with.
        alike: columns of the features that say how much a judged crystal tells of another one.
    """

    def __init__(
        self,
        properties: Sequence[str],
        networks: _Networks,
        shift: Tensor,
        width: Tensor,
        center: Tensor,
        scale: Tensor,
        temperature: Tensor,
        alike: slice = slice(None),
    ) -> None:
        self.properties, self.alike = tuple(properties), alike
        self.specs = [known_property(name) for name in properties]
        self.networks, self.shift, self.width = networks, shift, width
        self.center, self.scale, self.temperature = center, scale, temperature
        self._judged: list[tuple[Tensor, Tensor, Tensor]] | None = None

    @classmethod
    def fit(
        cls,
        features: Tensor,
        labels: Tensor,
        properties: Sequence[str],
        seed: int = 0,
        settings: EnsembleFit | None = None,
        alike: slice = slice(None),
    ) -> CrystalSurrogate:
        """A new one.

        Args:
            features: [N, F] of the crystals with labels.
            labels: [N, P] in the properties' units; NaN where unknown.
            properties: P names.
            seed: of weights and order.
            settings: of the fit.
            alike: see the class.

        Raises:
            ValueError: a property without any label.
        """
        settings = settings or EnsembleFit()
        target = _to_model(labels, [known_property(name) for name in properties])
        known = torch.isfinite(target)
        for name, any_label in zip(properties, known.any(0).tolist(), strict=True):
            if not any_label:
                raise ValueError(f"property={name!r}: no crystal has a label of it, the surrogate cannot learn it")
        counts = known.sum(0)
        center = torch.where(known, target, 0.0).sum(0) / counts
        variance = torch.where(known, target - center, 0.0).square().sum(0) / counts
        scale = variance.sqrt().clamp(min=1e-6)
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            networks = _Networks(features.shape[1], len(properties), settings.members, settings.width)
        surrogate = cls(
            properties, networks, features.mean(0), features.std(0).clamp(min=1e-6), center, scale,
            torch.ones(len(properties)), alike,
        )  # fmt: skip
        y = ((target - center) / scale).float()
        inside = torch.rand(settings.members, len(y), 1, generator=generator) >= settings.held_out
        x = surrogate._standard(features)
        _descend(networks, x, y.nan_to_num(), (inside & known).float(), settings, generator)
        surrogate._calibrate(x, y, ~inside & known)
        return surrogate

    def export(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """(plain config, tensors) for `generators.checkpoints`; weights in half precision, without what was judged."""
        members, width, _ = self.networks.readout.shape
        state = {f"networks.{name}": value.half() for name, value in self.networks.state_dict().items()}
        state |= {name: getattr(self, name) for name in _BUFFERS}
        return {"properties": list(self.properties), "members": members, "width": width}, state

    @classmethod
    def from_export(
        cls, config: Mapping[str, Any], state: Mapping[str, Tensor], alike: slice = slice(None)
    ) -> CrystalSurrogate:
        """Inverse of `export`."""
        networks = _Networks(len(state["shift"]), len(config["properties"]), config["members"], config["width"])
        weights = {name.removeprefix("networks."): value.float() for name, value in state.items() if "." in name}
        networks.load_state_dict(weights)
        buffers = {name: state[name] for name in _BUFFERS}
        return cls(config["properties"], networks, alike=alike, **buffers)

    def observe(self, features: Tensor, labels: Tensor) -> None:
        """Let [N, P] ``labels`` of judged crystals correct the means; replaces what was observed before."""
        x, y = self._standard(features), (_to_model(labels, self.specs) - self.center) / self.scale
        mean, std = self._prior(x)
        self._judged = []
        for p in range(len(self.properties)):
            rows = torch.isfinite(y[:, p]).nonzero().squeeze(-1)
            residual = (y[rows, p] - mean[rows, p]).double()
            noise = _NOISE * std[rows, p].double().square()
            size = std[rows, p].double()
            kernel = _kernel(x[rows, self.alike], x[rows, self.alike]) * size[:, None] * size[None] + torch.diag(noise)
            factor = torch.linalg.cholesky(kernel + 1e-9 * torch.eye(len(rows), dtype=torch.float64))
            weight = torch.cholesky_solve(residual[:, None], factor).squeeze(-1)
            self._judged.append((rows, factor, weight * size))
        self._seen, self._seen_std = x, std.double()

    @torch.no_grad()
    def predict(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [B, P] in the properties' units (first order for logarithms)."""
        x = self._standard(features)
        mean, std = (tensor.double() for tensor in self._prior(x))
        if self._judged is not None:
            for p, (rows, factor, weight) in enumerate(self._judged):
                if not len(rows):
                    continue
                cross = _kernel(x[:, self.alike], self._seen[rows, self.alike])  # [B, n]
                mean[:, p] += std[:, p] * (cross @ weight)
                scaled = cross * self._seen_std[rows, p]
                explained = torch.linalg.solve_triangular(factor, scaled.T, upper=False).square().sum(0)
                std[:, p] *= (1 + _NOISE - explained).clamp(min=_NOISE).div(1 + _NOISE).sqrt()
        middle, width = mean * self.scale + self.center, std * self.scale
        for p, spec in enumerate(self.specs):
            middle[:, p] = spec.from_model(middle[:, p])
            if spec.transform == "log":
                width[:, p] *= middle[:, p]
        return middle, width

    # -- inside -----------------------------------------------------------------------------------------------

    def _standard(self, features: Tensor) -> Tensor:
        return ((features - self.shift) / self.width).clamp(-_LIMIT, _LIMIT).float()

    @torch.no_grad()
    def _prior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of the ensemble, standardised."""
        means, stds = [], []
        for part in x.split(CHUNK):
            mean, log_variance = self.networks(part)
            means.append(mean.mean(0))
            stds.append((log_variance.exp().mean(0) + mean.var(0, unbiased=False)).sqrt() * self.temperature)
        return torch.cat(means), torch.cat(stds)

    @torch.no_grad()
    def _calibrate(self, x: Tensor, y: Tensor, held: Tensor) -> None:
        """Standard deviations such that 68 % of what a member has not seen lie inside."""
        mean, log_variance = (torch.cat(part, 1) for part in zip(*map(self.networks, x.split(CHUNK)), strict=True))
        std = (log_variance.exp().mean(0) + mean.var(0, unbiased=False)).sqrt()
        for p in range(len(self.properties)):
            if int(held[..., p].sum()) >= 20:
                error = ((mean - y)[..., p] / std[None, :, p])[held[..., p]].abs()
                self.temperature[p] = torch.quantile(error[:100_000], 0.6827).clamp(0.3, 5)


_BUFFERS = ("shift", "width", "center", "scale", "temperature")


def _to_model(labels: Tensor, specs: Sequence[PropertySpec]) -> Tensor:
    return torch.stack([spec.to_model(labels[:, p].double()) for p, spec in enumerate(specs)], 1)


_NOISE = 0.1
"""Share of the ensemble's variance that a neighbour's answer cannot explain."""
_REACH = 0.5
"""Length of the kernel, as a share of the mean distance of two independent crystals."""


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    """[A, B] float64, 1 for equal features; exponential in the distance."""
    distance = torch.cdist(a.double(), b.double())
    return torch.exp(-distance / (_REACH * math.sqrt(2 * a.shape[1])))


def _descend(
    networks: _Networks, x: Tensor, y: Tensor, weight: Tensor, settings: EnsembleFit, generator: torch.Generator
) -> None:
    """Gaussian likelihood, weighted by the standard deviation (beta-NLL, Seitzer et al., ICLR 2022, beta = 1/2)."""
    size = min(settings.batch_size, len(x))
    optimizer = torch.optim.AdamW(networks.parameters(), lr=settings.learning_rate, weight_decay=0.02, foreach=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, settings.steps, pct_start=0.1)
    for _ in range(settings.steps):
        rows = torch.randint(len(x), (size,), generator=generator)
        mean, log_variance = networks(x[rows])
        loss = 0.5 * ((y[rows] - mean) ** 2 / log_variance.exp() + log_variance)
        loss = loss * (0.5 * log_variance).exp().detach() * weight[:, rows]
        # Per property: a rare label shall count as much as one that every crystal has.
        (loss.sum((0, 1)) / weight[:, rows].sum((0, 1)).clamp(min=1)).sum().mul(len(weight)).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
