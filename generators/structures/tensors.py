"""Tensor properties: Voigt notation, Cartesian components, and the irreducible parts that a network predicts."""

from __future__ import annotations

import math
from functools import cache

import torch
from e3nn.io import CartesianTensor
from torch import Tensor

from data.properties import PropertySpec

VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
FORMULAS = {9: "ij=ji", 18: "ijk=ikj", 36: "ijkl=jikl=klij"}
"""Symmetry of a tensor by the length of its column: 3 x 3, 3 x 6 (piezoelectric) and 6 x 6 (elastic)."""


@cache
def irreducible(formula: str) -> CartesianTensor:
    """Irreducible representation of a Cartesian tensor with the index symmetry ``formula`` (e3nn)."""
    return CartesianTensor(formula)


@cache
def _change_of_basis(formula: str) -> Tensor:
    """[irreducible components, 3, 3, ...], orthonormal: norms are those of the Cartesian tensor."""
    return irreducible(formula).reduced_tensor_products().change_of_basis.double()


def to_cartesian(values: Tensor) -> Tensor:
    """[B, 9 | 18 | 36] columns of a table -> [B, 3, 3 (, 3 (, 3))] tensors.

    3 x 3 is symmetrised; 3 x 6 and 6 x 6 are in Voigt notation (stresses, so that no factors of two occur).

    Raises:
        ValueError: another length.
    """
    b, length = values.shape
    if length == 9:
        full = values.reshape(b, 3, 3)
        return (full + full.mT) / 2
    if length == 18:
        result = values.new_zeros(b, 3, 3, 3)
        for v, (j, k) in enumerate(VOIGT):
            result[:, :, j, k] = result[:, :, k, j] = values.reshape(b, 3, 6)[:, :, v]
        return result
    if length == 36:
        matrix = values.reshape(b, 6, 6)
        matrix = (matrix + matrix.mT) / 2
        result = values.new_zeros(b, 3, 3, 3, 3)
        for v, (i, j) in enumerate(VOIGT):
            for w, (k, m) in enumerate(VOIGT):
                for a, c in {(i, j), (j, i)}:
                    for d, e in {(k, m), (m, k)}:
                        result[:, a, c, d, e] = matrix[:, v, w]
        return result
    raise ValueError(f"tensor of {length} numbers: give 9 (3 x 3), 18 (3 x 6) or 36 (6 x 6)")


def from_cartesian(tensor: Tensor) -> Tensor:
    """Inverse of `to_cartesian`: [B, 9 | 18 | 36]."""
    b, rank = len(tensor), tensor.dim() - 1
    if rank == 2:
        return tensor.reshape(b, 9)
    first = torch.tensor([v[0] for v in VOIGT]), torch.tensor([v[1] for v in VOIGT])
    if rank == 3:
        return tensor[:, :, first[0], first[1]].reshape(b, 18)
    rows = tensor[:, first[0], first[1]]
    return rows[:, :, first[0], first[1]].reshape(b, 36)


def to_irreducible(tensor: Tensor, formula: str) -> Tensor:
    """[B, components] of Cartesian tensors; the Euclidean norm is the Frobenius norm."""
    basis = _change_of_basis(formula).to(tensor)
    return torch.einsum("bn,cn->bc", tensor.reshape(len(tensor), -1), basis.reshape(len(basis), -1))


def from_irreducible(components: Tensor, formula: str) -> Tensor:
    """Inverse of `to_irreducible`."""
    basis = _change_of_basis(formula).to(components)
    flat = torch.einsum("bc,cn->bn", components, basis.reshape(len(basis), -1))
    rank = round(math.log(basis[0].numel(), 3))
    return flat.reshape(len(components), *(3,) * rank)


def matrix_log(tensor: Tensor) -> Tensor:
    """Logarithm of symmetric positive-definite tensors [B, 3, 3]; NaN where they are not. It turns with them."""
    values, vectors = torch.linalg.eigh(torch.nan_to_num(tensor))
    positive = torch.isfinite(tensor).flatten(1).all(1) & (values > 0).all(1)
    result = vectors @ torch.diag_embed(values.clamp(min=1e-12).log()) @ vectors.mT
    return torch.where(positive[:, None, None], result, torch.nan)


def model_tensor(components: Tensor, spec: PropertySpec) -> Tensor:
    """Irreducible parts in model space [B, components] -> Cartesian tensors in the unit of the property."""
    tensor = from_irreducible(components, spec.symmetry)
    return torch.linalg.matrix_exp(tensor) if spec.transform == "log" else tensor


def tensor_target(values: Tensor, spec: PropertySpec) -> Tensor:
    """Columns of a table [B, 9 | 18 | 36] -> irreducible parts in model space; inverse of `model_tensor`.

    A logarithm of a tensor is its matrix logarithm, so that predictions are positive definite.
    """
    tensor = to_cartesian(values)
    return to_irreducible(matrix_log(tensor) if spec.transform == "log" else tensor, spec.symmetry)


def rotate(tensor: Tensor, rotation: Tensor) -> Tensor:
    """Cartesian tensors [B, 3, ...] under a rotation [3, 3] that takes r to R r."""
    for axis in range(1, tensor.dim()):
        tensor = torch.movedim(torch.tensordot(tensor, rotation, dims=([axis], [1])), -1, axis)
    return tensor
