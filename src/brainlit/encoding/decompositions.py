"""Eigendecompositions that are checked: no NaN and no wrong vectors reach a ridge.

torch's eigh of float32 matrices may fail, or give NaN without a word, where a matrix has scattered rows and columns of
zeros, as the Gram matrix of features does when some are constant. So these leave first, small matrices are decomposed
in float64, and what comes out has to be finite and has to give the matrix back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from brainlit.encoding.arrays import NotFiniteError

if TYPE_CHECKING:
    import torch

DOUBLE_UP_TO = 512
"""Matrices of at most this size are decomposed in float64: a tenth of a second at most."""
RECONSTRUCTION = 1e-4
"""Largest error of V diag(lam) V'x over the largest eigenvalue and the length of x; float32 reaches 1e-6."""


def checked_eigh(gram: torch.Tensor, what: str = "a matrix of products") -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues and eigenvectors of a symmetric matrix without negative eigenvalues, such as X'X.

    Parameters
    ----------
    gram : tensor of shape (size, size)
    what : str
        Named in errors.

    Returns
    -------
    eigenvalues : tensor of shape (n_live,)
        Increasing, of the rows that are not all 0; the others have the eigenvalue 0 and are left out.
    vectors : tensor of shape (size, n_live)
        Orthonormal columns, 0 in rows that are all 0; in the precision of the matrix, as eigenvalues are.

    Raises
    ------
    NotFiniteError
        If the matrix holds NaN or infinity, or cannot be decomposed in float64 either.
    """
    import torch

    if not bool(torch.isfinite(gram).all()):
        raise NotFiniteError(
            f"{what} ({_shape(gram)}) holds NaN or infinity; look for values that are not finite, or too large for"
            " float32, in the columns that it is made of."
        )
    # without negative eigenvalues a row whose diagonal is 0 is 0 altogether: a constant feature
    live = torch.nonzero(gram.diagonal() != 0).flatten()
    whole = len(live) == len(gram)
    matrix = gram if whole else gram[live][:, live]
    found = None
    if len(live) > DOUBLE_UP_TO or matrix.dtype == torch.float64:
        found = _decomposed(matrix)
    if found is None and matrix.dtype != torch.float64:
        found = _decomposed(matrix.double())
    if found is None:
        raise NotFiniteError(
            f"{what} ({_shape(gram)}) cannot be decomposed, in float64 either: the eigenvectors are not finite or do"
            " not give it back. Look for columns that differ by many powers of ten, and scale or leave them out."
        )
    eigenvalues, vectors = (part.to(gram.dtype) for part in found)
    if whole:
        return eigenvalues, vectors
    placed = vectors.new_zeros((len(gram), len(live)))
    placed[live] = vectors
    return eigenvalues, placed


def _decomposed(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """None where torch fails, or what it gives is not finite, not orthonormal, or does not give the matrix back."""
    import torch

    try:
        eigenvalues, vectors = torch.linalg.eigh(matrix)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        return None
    if not len(eigenvalues):
        return eigenvalues, vectors
    # two vectors stand for all: what differs from the matrix anywhere differs, almost surely, in its product with them
    probes = torch.ones((len(matrix), 2), dtype=matrix.dtype, device=matrix.device)
    probes[:, 1] = torch.linspace(-1.0, 1.0, len(matrix), dtype=matrix.dtype, device=matrix.device).sin_()
    along = vectors.T @ probes
    length = probes.square().sum(dim=0).sqrt()
    largest = eigenvalues.abs().max()
    error = (vectors @ (eigenvalues[:, None] * along) - matrix @ probes).abs().amax(dim=0)
    turned = (along.square().sum(dim=0).sqrt() - length).abs()
    # comparisons with NaN are False: asked is what must hold
    holds = (error <= RECONSTRUCTION * largest * length) & (turned <= RECONSTRUCTION * length)
    return (eigenvalues, vectors) if bool(holds.all()) and bool(torch.isfinite(vectors).all()) else None


def _shape(matrix: torch.Tensor) -> str:
    return " x ".join(map(str, matrix.shape))
