"""Von Neumann entropy: against the eigenvalues of the documents' own N × N matrix."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.linalg import eigvalsh

from bimix_tracking.entropy.von_neumann import DensityMatrix
from bimix_tracking.errors import CorpusError

vectors = arrays(float, st.tuples(st.integers(1, 12), st.just(5)), elements=st.floats(0.1, 3) | st.floats(-3, -0.1))


def added(rows: npt.ArrayLike) -> DensityMatrix:
    matrix = DensityMatrix(np.shape(rows)[1])
    matrix.add(rows)
    return matrix


@given(vectors)
def test_entropy_is_that_of_the_matrix_of_similarities(rows: npt.NDArray[np.float64]) -> None:
    # Eqs. 17 and 18 as they are printed: K_jk the cosine of documents j and k, ρ = K / N, −Σ λ log λ.
    unit = rows / np.linalg.norm(rows, axis=1)[:, None]
    eigenvalues = eigvalsh(unit @ unit.T / len(rows))
    eigenvalues = eigenvalues[eigenvalues > 1e-12]
    expected = -(eigenvalues * np.log(eigenvalues)).sum()

    assert added(rows).entropy == pytest.approx(expected, abs=1e-6)


def test_more_documents_than_dimensions() -> None:
    rows = np.random.default_rng(0).normal(size=(300, 20))
    unit = rows / np.linalg.norm(rows, axis=1)[:, None]
    eigenvalues = eigvalsh(unit @ unit.T / 300)
    eigenvalues = eigenvalues[eigenvalues > 1e-12]

    assert added(rows).entropy == pytest.approx(-(eigenvalues * np.log(eigenvalues)).sum(), abs=1e-8)


@given(vectors, vectors, vectors)
def test_parts_add_in_any_order_to_the_last_bit(
    a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], c: npt.NDArray[np.float64]
) -> None:
    one, other = added(a), added(c)
    one += added(b)
    one += added(c)
    other += added(a)
    other += added(b)

    assert one.to_bytes() == other.to_bytes()
    again = DensityMatrix.from_bytes(one.to_bytes())
    assert (again.count, again.entropy) == (one.count, one.entropy)
    rest = added(a)
    rest += added(c)
    assert one.without(added(b)).to_bytes() == rest.to_bytes()


def test_norms_dont_matter_and_bounds_hold() -> None:
    rows = np.random.default_rng(1).normal(size=(64, 8))

    assert added(rows * np.arange(1, 65)[:, None]).entropy == pytest.approx(added(rows).entropy, abs=1e-8)
    assert added(np.eye(8)).entropy == pytest.approx(np.log(8), abs=1e-8)
    assert added(np.ones((9, 8))).entropy == pytest.approx(0, abs=1e-8)
    assert DensityMatrix(3).entropy == 0


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([[1.0, np.nan]], "embedding 0 of 1 has NaN or infinity"),
        ([[1.0, 1.0], [np.inf, 0.0]], "embedding 1 of 2 has NaN or infinity"),
        ([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]], r"embedding 1 of 3 has norm 0 \(2 such rows\)"),
        ([1.0, 2.0], r"shape \(documents, dimensions\), got \(2,\)"),
        ([[1.0, 2.0, 3.0]], "embeddings have 3 dimensions, where there were 2"),
    ],
)
def test_what_has_no_direction_is_refused(rows: npt.ArrayLike, text: str) -> None:
    matrix = DensityMatrix(2)

    with pytest.raises(CorpusError, match=text):
        matrix.add(rows)
    assert matrix.count == 0


def test_matrices_of_other_dimensions_dont_add() -> None:
    matrix = DensityMatrix(2)

    with pytest.raises(CorpusError, match="embeddings have 3 dimensions, where there were 2"):
        matrix += DensityMatrix(3)


@pytest.mark.parametrize("bad", [b"", b"nothing at all, but long enough", DensityMatrix(2).to_bytes()[:-2]])
def test_what_are_no_sums_is_refused(bad: bytes) -> None:
    with pytest.raises(CorpusError, match="these are not sums of embeddings"):
        DensityMatrix.from_bytes(bad)
