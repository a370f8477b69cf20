"""The surrogate of whole crystals, on functions that are known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from data.exchanges import load_exchanges
from generators.checkpoints import load_checkpoint, save_checkpoint
from generators.oracles.crystal_surrogate import CrystalSurrogate, EnsembleFit
from generators.screening.crystal_features import crystal_features
from generators.shipped import load_crystal_surrogate

FIT = EnsembleFit(members=3, width=32, steps=300, batch_size=128)
ENERGY, MODULUS = "formation_energy_per_atom", "bulk_modulus"


def features(n: int, seed: int) -> torch.Tensor:
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed))


def truth(x: torch.Tensor) -> torch.Tensor:
    """Formation energy and bulk modulus, both smooth."""
    return torch.stack([x[:, 0] - 0.5 * x[:, 1], (4 + 0.5 * x[:, 2]).exp()], 1).double()


@pytest.fixture(scope="module")
def surrogate() -> CrystalSurrogate:
    x = features(1500, 0)
    y = truth(x)
    y[::3, 1] = torch.nan  # rows without a modulus teach the energy
    y[:, 0] += 0.1 * torch.randn(len(x), generator=torch.Generator().manual_seed(9))
    return CrystalSurrogate.fit(x, y, (ENERGY, MODULUS), settings=FIT)


def test_it_learns_a_smooth_function_and_knows_its_error(surrogate: CrystalSurrogate) -> None:
    x = features(500, 1)
    mean, std = surrogate.predict(x)
    error = (mean - truth(x)).abs()
    assert float(error[:, 0].mean()) < 0.1
    assert float((error[:, 1] / truth(x)[:, 1]).mean()) < 0.15
    noisy = mean[:, 0] - truth(x)[:, 0] - 0.1 * torch.randn(len(x), generator=torch.Generator().manual_seed(8))
    assert 0.5 < float((noisy.abs() < std[:, 0]).double().mean()) < 0.9


def test_what_was_judged_corrects_its_neighbourhood_and_nothing_far_away(surrogate: CrystalSurrogate) -> None:
    near, far = features(5, 2), features(5, 2) + 100.0
    before, width = surrogate.predict(torch.cat([near, far]))
    shifted = torch.stack([before[:5, 0] + 1.0, torch.full((5,), torch.nan, dtype=torch.float64)], 1)
    try:
        surrogate.observe(near, shifted)
        after, narrower = surrogate.predict(torch.cat([near, far]))
        assert (after[:5, 0] - before[:5, 0] > 0.6).all()  # most of a shift of 1
        assert (narrower[:5, 0] < 0.7 * width[:5, 0]).all()
        torch.testing.assert_close(after[:, 1], before[:, 1])  # no modulus was judged
        surrogate.observe(near[:0], shifted[:0])  # replaces what was observed before
        torch.testing.assert_close(surrogate.predict(near)[0], before[:5])
    finally:
        surrogate._judged = None


def test_the_correction_is_the_posterior_of_a_gaussian_process(surrogate: CrystalSurrogate) -> None:
    from generators.oracles.crystal_surrogate import _NOISE, _kernel

    x = features(3, 4)
    before, width = surrogate.predict(x)
    labels = before.clone()
    labels[:2, 0] += torch.tensor([0.3, -0.2], dtype=torch.float64)
    try:
        surrogate.observe(x[:2], torch.stack([labels[:2, 0], torch.full((2,), torch.nan).double()], 1))
        mean, std = surrogate.predict(x)
    finally:
        surrogate._judged = None
    s = width[:, 0]
    kernel = _kernel(surrogate._standard(x), surrogate._standard(x)) * s[:, None] * s
    gain = kernel[:, :2] @ torch.linalg.inv(kernel[:2, :2] + _NOISE * torch.diag(s[:2] ** 2))
    torch.testing.assert_close(mean[:, 0], before[:, 0] + gain @ (labels - before)[:2, 0], rtol=1e-4, atol=1e-5)
    share = 1 - (gain * kernel[:, :2]).sum(1) / s**2
    expected = s * ((share + _NOISE) / (1 + _NOISE)).sqrt()
    torch.testing.assert_close(std[:, 0], expected, rtol=1e-4, atol=1e-6)


def test_the_same_seed_gives_the_same_surrogate() -> None:
    x, fit = features(200, 5), EnsembleFit(members=2, width=8, steps=5)
    one, other = (CrystalSurrogate.fit(x, truth(x), (ENERGY, MODULUS), 3, fit).predict(x)[0] for _ in range(2))
    assert torch.equal(one, other)
    assert not torch.equal(one, CrystalSurrogate.fit(x, truth(x), (ENERGY, MODULUS), 4, fit).predict(x)[0])


def test_a_property_without_labels_is_an_error() -> None:
    labels = truth(features(20, 6))
    labels[:, 1] = torch.nan
    with pytest.raises(ValueError, match="property='bulk_modulus': no crystal has a label"):
        CrystalSurrogate.fit(features(20, 6), labels, (ENERGY, MODULUS), settings=FIT)


def test_a_file_gives_the_same_predictions(surrogate: CrystalSurrogate, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "s.pt", "crystal_surrogate", *surrogate.export())
    again = CrystalSurrogate.from_export(*load_checkpoint(tmp_path / "s.pt", "crystal_surrogate"))
    x = features(50, 9)
    for one, other in zip(surrogate.predict(x), again.predict(x), strict=True):
        assert torch.allclose(one, other, rtol=0.02, atol=0.02)  # half precision
    assert again.properties == surrogate.properties


def test_the_embedded_one_knows_what_is_embedded() -> None:
    exchanges = load_exchanges().select(torch.arange(0, 30000, 30))  # of a hundred the median is uncertain by a fifth
    embedded = load_crystal_surrogate()
    mean, std = embedded.predict(crystal_features(exchanges.batch))
    column = embedded.properties.index(ENERGY)
    error = (mean[:, column] - exchanges.properties[ENERGY].double()).abs()
    assert float(error.median()) < 0.05 and float((error < 2 * std[:, column]).double().mean()) > 0.8
