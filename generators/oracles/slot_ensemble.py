"""A fast ensemble for one prototype: every member is a small network over the elements of the orbits.

It is refitted in every round of a campaign and asked about tens of thousands of crystals, so it is built for speed: the
first layer is a look-up (element and orbit), all members are one batched matrix product, and equivalent element
orders are averaged inside the network, which makes them equal by construction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.properties import known_property
from data.prototype_table import PrototypeTable
from generators.element_features import N_STATES, element_features
from generators.oracles.hit_probability import log_hit_probability
from generators.oracles.surrogate_module import SurrogateModule
from generators.wish import Wish

CHUNK = 8192


@dataclass(frozen=True)
class SlotConfig:
    """Size of a member, and their number."""

    embedding: int = 24
    width: int = 160
    depth: int = 2
    members: int = 4

    def __post_init__(self) -> None:
        for name in ("embedding", "width", "depth", "members"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")


class SlotEnsemble(nn.Module):
    """M members, P properties, one prototype of K orbits.

    Attributes:
        properties: names; values are predicted in their units.
        center, scale: [P] of the labels in model space; temperature: [P] factor of the standard deviation.
        doubt: [P] standard deviation that stands for all crystals, on the scale that models see.
    """

    features: Tensor
    orders: Tensor
    center: Tensor
    scale: Tensor
    temperature: Tensor
    doubt: Tensor

    def __init__(
        self, table: PrototypeTable, properties: Sequence[str], center: Tensor, scale: Tensor, config: SlotConfig
    ) -> None:
        super().__init__()
        if len(table) != 1:
            raise ValueError(f"prototypes: {len(table)} given, a slot ensemble has one")
        prototype = table.prototypes[0]
        m, e, w, k = config.members, config.embedding, config.width, len(prototype.letters)
        self.config, self.properties = config, tuple(properties)
        self.register_buffer("features", element_features(), persistent=False)
        self.register_buffer("orders", torch.tensor(prototype.equivalent_orders), persistent=False)
        self.register_buffer("center", center.float())
        self.register_buffer("scale", scale.float())
        self.register_buffer("temperature", torch.ones(len(self.properties)))
        self.register_buffer("doubt", torch.ones(len(self.properties), dtype=torch.float64))
        self.element = nn.Parameter(0.3 * torch.randn(m, N_STATES, e))
        self.from_features = nn.Parameter(0.3 * torch.randn(m, self.features.shape[1], e))
        self.slot = nn.Parameter(torch.randn(m, k, e, w) / (e * k) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(m, 1, w))
        self.hidden = nn.ParameterList(nn.Parameter(torch.randn(m, w, w) / w**0.5) for _ in range(config.depth))
        self.hidden_bias = nn.ParameterList(nn.Parameter(torch.zeros(m, 1, w)) for _ in range(config.depth))
        self.readout = nn.Parameter(torch.zeros(m, w, 2 * len(self.properties)))

    def forward(self, elements: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log variances [M, B, P] of crystals with ``elements`` [B, K], standardised model space."""
        look_up = self._look_up()
        columns = range(elements.shape[1])
        return self._read_out(
            [look_up[:, k].index_select(1, elements[:, order[k]]) for k in columns] for order in self.orders
        )

    def relaxed(self, distributions: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, of crystals whose orbits carry ``distributions`` [B, K, 119] over the elements."""
        look_up = self._look_up()
        columns = range(distributions.shape[1])
        return self._read_out(
            [torch.matmul(distributions[:, order[k]], look_up[:, k]) for k in columns] for order in self.orders
        )

    def _look_up(self) -> Tensor:
        """[M, K, 119, H]: the first layer's input of every element on every orbit."""
        embedded = self.element + self.features @ self.from_features
        return torch.einsum("mze,mkeh->mkzh", embedded, self.slot)

    def _read_out(self, orders: Iterable[Sequence[Tensor]]) -> tuple[Tensor, Tensor]:
        h = torch.zeros((), device=self.bias.device)
        for parts in orders:
            h = h + F.silu(torch.stack(list(parts)).sum(0) + self.bias)
        h = h * (2 / len(self.orders))
        for weight, bias in zip(self.hidden, self.hidden_bias, strict=True):
            h = h + F.silu(torch.baddbmm(bias, F.layer_norm(h, h.shape[-1:]), weight))
        mean, log_variance = torch.bmm(F.layer_norm(h, h.shape[-1:]), self.readout).chunk(2, -1)
        return mean, log_variance.clamp(-8, 4)

    @torch.no_grad()
    def predict(self, elements: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [B, P], in the properties' units (first order for logarithms)."""
        parts = [self._combined(*self(part)) for part in elements.split(CHUNK)]
        means, stds = zip(*parts, strict=True)
        return self._in_units(torch.cat(means), torch.cat(stds))

    def predict_relaxed(self, distributions: Tensor) -> tuple[Tensor, Tensor]:
        """As `predict`, of `relaxed` crystals, with gradients."""
        return self._in_units(*self._combined(*self.relaxed(distributions)))

    def _combined(self, mean: Tensor, log_variance: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [B, P] of the members' [M, B, P]."""
        std = (log_variance.exp().mean(0) + mean.var(0, unbiased=False)).sqrt() * self.temperature
        return mean.mean(0), std

    @torch.no_grad()
    def member(self, elements: Tensor, which: int) -> tuple[Tensor, Tensor]:
        """As `predict`, by one member alone."""
        outputs = [self(part) for part in elements.split(CHUNK)] or [self(elements)]
        mean = torch.cat([m[which] for m, _ in outputs])
        std = torch.cat([(0.5 * v[which]).exp() for _, v in outputs])
        return self._in_units(mean, std * self.temperature)

    def _in_units(self, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        middle, width = (mean * self.scale + self.center).double(), (std * self.scale).double()
        columns = []
        for p, name in enumerate(self.properties):
            spec = known_property(name)
            value = spec.from_model(middle[:, p])
            columns.append((value, width[:, p] * value if spec.transform == "log" else width[:, p]))
        values, widths = zip(*columns, strict=True)
        return torch.stack(values, 1), torch.stack(widths, 1)

    def measure_doubt(self, mean: Tensor, std: Tensor) -> None:
        """Set `doubt` to the median deviation of many crystals, of which `predict` says ``mean`` and ``std`` [n, P]."""
        self.doubt = torch.where(self._logarithms(), std / mean, std).median(0).values

    def doubted(self, mean: Tensor) -> Tensor:
        """[B, P] standard deviations of crystals with ``mean``, by `doubt`, in the properties' units.

        Learnt from few labels, the deviation of a single crystal says little but how far it is from them: ranked by it,
        the most doubtful crystals would come first.
        """
        return torch.where(self._logarithms(), mean, torch.ones_like(mean)) * self.doubt

    def log_probability(self, elements: Tensor, wish: Wish) -> Tensor:
        """[B] logarithm of the probability that a crystal fulfils ``wish``, by its expected values and `doubt`."""
        mean, _ = self.predict(elements)
        return log_hit_probability(mean, self.doubted(mean), self.properties, wish)

    def _logarithms(self) -> Tensor:
        return torch.tensor([known_property(name).transform == "log" for name in self.properties])

    def values(self, elements: Tensor) -> Mapping[str, Tensor]:
        """Means [B] by property."""
        return dict(zip(self.properties, self.predict(elements)[0].T, strict=True))


@dataclass(frozen=True)
class SlotFit:
    """How an ensemble is fitted: AdamW on a one-cycle schedule, each member on its own part of the rows."""

    epochs: int = 60
    least_steps: int = 500
    most_steps: int = 2500
    batch_size: int = 256
    learning_rate: float = 3e-3
    weight_decay: float = 0.3
    share: float = 0.9
    seed: int = 0


def fit_slot_ensemble(
    table: PrototypeTable,
    properties: Sequence[str],
    elements: Tensor,
    labels: Tensor,
    config: SlotConfig | None = None,
    settings: SlotFit | None = None,
) -> SlotEnsemble:
    """Fit on elements [n, K] and labels [n, P] (NaN where unknown).

    Every member sees ``share`` of the rows; what it does not see calibrates the standard deviation (68 % of the
    errors inside one); `doubt` is that of these crystals. The loss is a Gaussian likelihood weighted by its deviation
    (Seitzer et al., ICLR 2022).
    """
    settings = settings or SlotFit()
    center, scale = SurrogateModule.standardisation(labels, properties)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        ensemble = SlotEnsemble(table, properties, center, scale, config or SlotConfig())
    generator = torch.Generator().manual_seed(settings.seed)
    target = torch.stack(
        [known_property(name).to_model(labels[:, p]) for p, name in enumerate(properties)], 1
    ).float()  # fmt: skip
    target = (target - ensemble.center) / ensemble.scale
    known = torch.isfinite(target)
    inside = torch.rand(ensemble.config.members, len(labels), 1, generator=generator) < settings.share
    _descend(ensemble, elements, target.nan_to_num(), (inside & known).float(), settings, generator)
    _calibrate(ensemble, elements, target, ~inside & known)
    ensemble.measure_doubt(*ensemble.predict(elements))
    return ensemble.eval()


def _descend(
    ensemble: SlotEnsemble,
    elements: Tensor,
    target: Tensor,
    weight: Tensor,
    settings: SlotFit,
    generator: torch.Generator,
) -> None:
    n = len(elements)
    size = min(settings.batch_size, max(n // 4, 1))
    steps = min(max(settings.epochs * n // size, settings.least_steps), settings.most_steps)
    optimizer = torch.optim.AdamW(
        ensemble.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, foreach=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, steps, pct_start=0.1)
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(order) < size:
            order = torch.cat([order, torch.randperm(n, generator=generator)])
        rows, order = order[:size], order[size:]
        mean, log_variance = ensemble(elements[rows])
        nll = 0.5 * ((target[rows] - mean) ** 2 / log_variance.exp() + log_variance)
        nll = nll * (0.5 * log_variance).exp().detach() * weight[:, rows]
        loss = nll.sum() / weight[:, rows].sum().clamp(min=1) * ensemble.config.members
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def _calibrate(ensemble: SlotEnsemble, elements: Tensor, target: Tensor, outside: Tensor) -> None:
    outputs = [ensemble(part) for part in elements.split(CHUNK)]
    mean, log_variance = (torch.cat(parts, 1) for parts in zip(*outputs, strict=True))
    std = (log_variance.exp().mean(0) + mean.var(0, unbiased=False)).sqrt()
    for p in range(len(ensemble.properties)):
        held = outside[:, :, p]
        if int(held.sum()) >= 20:
            error = ((mean - target)[:, :, p] / std[None, :, p])[held].abs()
            ensemble.temperature[p] = torch.quantile(error, 0.6827).clamp(0.3, 5)
