"""Masked (absorbing) discrete diffusion.

At time t a token is hidden with probability t, independently. The continuous-time evidence bound is
``E_t [ (1/t) sum over hidden tokens of -log p(x | visible) ]`` (Sahoo et al., NeurIPS 2024, eq. 8; Shi et
al., NeurIPS 2024, for the linear schedule). Since the hidden set given its size is uniform, the bound
equals the any-order autoregressive one, and revealing one token per step in random order samples the model
without discretisation error (Ou et al., 2024).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def corrupt(mask: Tensor, t: Tensor, generator: torch.Generator) -> Tensor:
    """Which tokens are hidden at time t.

    Args:
        mask: [B, K] bool, tokens that exist.
        t: [B] times in (0, 1].
        generator: CPU generator.

    Returns:
        [B, K] bool; in each row at least one token is hidden (a row with none teaches nothing; `weights`
        takes the change of distribution into account).
    """
    k = mask.sum(-1)
    n_hidden = hidden_counts(k, t)
    score = torch.rand(mask.shape, generator=generator).to(mask.device)
    rank = score.masked_fill(~mask, 2.0).argsort(-1).argsort(-1)
    return (rank < n_hidden[:, None]) & mask


def hidden_counts(n_tokens: Tensor, t: Tensor) -> Tensor:
    """[B] number of hidden tokens: uniform on 1..n for t uniform on (0, 1].

    Integrating the bound over t leaves each count m = 1..n with weight 1/m per hidden token, that is a
    uniform count with weight n/m.
    """
    return torch.clamp((t * n_tokens).ceil().long(), min=1).minimum(n_tokens.clamp(min=1))


def negative_bound(log_probability: Tensor, target: Tensor, hidden: Tensor, mask: Tensor) -> Tensor:
    """[B] unbiased estimate of the negative evidence bound, nats.

    Args:
        log_probability: [B, K, S] predicted log-probabilities of the clean states.
        target: [B, K] clean states.
        hidden, mask: [B, K] bool.
    """
    picked = log_probability.gather(-1, target[..., None]).squeeze(-1)
    nll = torch.where(hidden, -picked, torch.zeros_like(picked)).sum(-1)
    return nll * mask.sum(-1) / hidden.sum(-1).clamp(min=1)


def reveal_order(mask: Tensor, generator: torch.Generator) -> Tensor:
    """[B, K] step at which each token is revealed: a random permutation of 0..k-1 per row; -1 where padded."""
    score = torch.rand(mask.shape, generator=generator).to(mask.device)
    rank = score.masked_fill(~mask, 2.0).argsort(-1).argsort(-1)
    return torch.where(mask, rank, torch.full_like(rank, -1))


def sample_states(logits: Tensor, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
    """[...] states drawn from ``softmax(logits / temperature)`` over the last axis (Gumbel-max).

    Raises:
        ValueError: temperature <= 0.
    """
    if temperature <= 0:
        raise ValueError(f"temperature={temperature}: must be positive")
    noise = torch.rand(logits.shape, generator=generator, dtype=torch.float64).to(logits.device)
    gumbel = -torch.log(-torch.log(noise.clamp(1e-300, 1 - 1e-16)))
    return (logits.double() / temperature + gumbel).argmax(-1)


def guided_logits(conditional: Tensor, unconditional: Tensor, strength: float) -> Tensor:
    """Classifier-free guidance in log-probabilities (Ho and Salimans, 2022; for discrete states Nisonoff et
    al., 2024): ``log p_u + strength (log p_c - log p_u)``; strength 1 is the plain conditional model."""
    log_u = F.log_softmax(unconditional, -1)
    log_c = F.log_softmax(conditional, -1)
    return log_u + strength * (log_c - log_u)
