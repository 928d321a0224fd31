"""The one-layer softmax attention classifier f(X) = Softmax(p^T E_X^T) E_X v, its loss and its exact derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from attnembed._deprecation import moved
from attnembed._files import Member, PathLike, read_checked, write_npz
from attnembed._frozen import KeepsFrozen
from attnembed._sparse import with_values
from attnembed._typing import Floats
from attnembed._validation import (
    RNGLike,
    as_real_array,
    as_rng,
    check_integer,
    check_names,
    check_positive,
    check_shape,
    freeze,
)
from attnembed.attention.data import TokenDataset, check_data
from attnembed.attention.dense_passes import SMALLEST_SQUARE, dense_gradients, dense_sums, is_small
from attnembed.attention.parameters import check_scores, scores_and_values
from attnembed.attention.passes import AnchoredPass, TokenSums, token_sums
from attnembed.attention.products import embedding_product, embedding_transpose_product, rank_two
from attnembed.errors import DataFileError, InputError
from attnembed.gibbs import probabilities
from attnembed.gradients import Gradients
from attnembed.losses import Loss, check_loss, logistic
from attnembed.results import Shown

__all__ = ["AttentionGradients", "AttentionModel"]


FLOATS = (np.float32, np.float64)
# The members of a model's file.
MEMBERS = {"E": Member(FLOATS, ("V", "d")), "p": Member(FLOATS, ("d",)), "v": Member(FLOATS, ("d",))}

Model = TypeVar("Model")
# Number of entries of E up to which setting up its gradient takes longer than forming it.
_FEW = 4096


@dataclass(frozen=True, eq=False, repr=False)
class AttentionGradients(Gradients):
    """Gradients of the loss in E, p and v; that in E is kept as a matrix of rank two.

    ``E_factors`` = (A, B), each (V,), with grad_E L = -(A v^T + B p^T); ``E`` (V, d) is formed on first access.
    Where B underflows, ``scaled_p`` * exp(``log_scale``) still holds the gradient in p.
    """

    p: Floats
    v: Floats
    E_factors: tuple[Floats, Floats]
    scaled_p: Floats
    log_scale: float
    _directions: tuple[Floats, Floats]
    _rows: Floats | None = None

    @classmethod
    def _of_rows(cls, factors: Floats, gradients: Floats, directions: tuple[Floats, Floats]) -> AttentionGradients:
        """From A and B as the rows of one array, and the gradients in v and p as those of another, both read-only."""
        new = object.__new__(cls)  # in half the time that `__init__` of a frozen class takes
        grad_p, pair = gradients[1], (factors[0], factors[1])
        vars(new).update(p=grad_p, v=gradients[0], E_factors=pair, scaled_p=grad_p, log_scale=0.0)
        vars(new).update(_directions=directions, _rows=factors)
        return new

    def _names(self) -> tuple[str, ...]:
        return "E", "p", "v"

    @cached_property
    def E(self) -> Floats:
        """grad_E L = -(A v^T + B p^T), (V, d)."""
        if self.E_factors[0].size * self.p.size <= _FEW:
            return self._small_E()
        return self.write_E(np.empty((self.E_factors[0].size, self.p.size), dtype=self.p.dtype))

    def write_E(self, out: Floats) -> Floats:
        """Write grad_E L into ``out`` (V, d) and return it; a loop that reuses an array saves the allocation."""
        check_shape("out", out, (self.E_factors[0].size, self.p.size))
        if out.size <= _FEW:
            out[...] = self._small_E()
            return out
        return rank_two(self._stacked(), -np.array(self._directions), out)

    def _small_E(self) -> Floats:
        out: Floats = self._stacked().T.dot(np.array(self._directions))
        return np.negative(out, out)

    def _stacked(self) -> Floats:
        """A and B as the rows of one array."""
        return np.array(self.E_factors) if self._rows is None else self._rows


@dataclass(frozen=True, eq=False, repr=False)
class AttentionModel(KeepsFrozen, Shown):
    """Parameters of the classifier; the arrays are copied and read-only.

    f(X_i) = sum_s a_is g_s,  a_is = n_is e^{u_s} / sum_r n_ir e^{u_r},  u = E p,  g = E v.

    Parameters
    ----------
    E : (V, d) token embeddings; all three have its dtype (float32 or float64)
    p : (d,) embedding of the <cls> token
    v : (d,) output vector

    Raises
    ------
    InputError
        for NaN, inf or shapes that do not match.

    Source: [WSOM25], Section 2.

    >>> model = AttentionModel(np.eye(2), np.zeros(2), [1.0, -1.0])
    >>> data = TokenDataset.from_tokens([[0, 0, 1], [1, 1]], [1, -1])
    >>> model.output(data).round(6), model.accuracy(data)
    (array([ 0.333333, -1.      ]), 1.0)
    """

    E: Floats
    p: Floats
    v: Floats

    def __init__(self, E: ArrayLike, p: ArrayLike, v: ArrayLike) -> None:
        arrays = {"E": as_real_array("E", E, ndim=2)}
        if arrays["E"].size == 0:
            raise InputError("E", "must have at least one token and one coordinate", got=f"shape {arrays['E'].shape}")
        for name, value in (("p", p), ("v", v)):
            arrays[name] = as_real_array(name, value, ndim=1, dtype=arrays["E"].dtype)
            check_shape(name, arrays[name], arrays["E"].shape[1:], "E has shape (V, d); p and v have shape (d,)")
        for name, array in arrays.items():
            object.__setattr__(self, name, freeze(np.array(array, order="C")))

    @classmethod
    def random(
        cls,
        vocab_size: int,
        dim: int,
        *,
        embedding_scale: float | None = None,
        cls_scale: float | None = None,
        rng: RNGLike = None,
    ) -> AttentionModel:
        """E and p Gaussian with the given standard deviations per coordinate (1/sqrt(dim)), v in {+-1/sqrt(dim)}^d.

        >>> AttentionModel.random(5, 4, rng=0).v
        array([-0.5,  0.5,  0.5, -0.5])
        """
        V, d = check_integer("vocab_size", vocab_size, minimum=1), check_integer("dim", dim, minimum=1)
        default = 1 / np.sqrt(d)
        sE = default if embedding_scale is None else check_positive("embedding_scale", embedding_scale, zero_ok=True)
        sp_ = default if cls_scale is None else check_positive("cls_scale", cls_scale, zero_ok=True)
        rng = as_rng(rng)
        E, p = sE * rng.standard_normal((V, d)), sp_ * rng.standard_normal(d)
        return cls(E, p, default * rng.choice([-1.0, 1.0], size=d))

    @property
    def vocab_size(self) -> int:
        """Number of tokens V."""
        return int(self.E.shape[0])

    @property
    def dim(self) -> int:
        """Width d."""
        return int(self.E.shape[1])

    @property
    def token_scores(self) -> Floats:
        """u_s = p . E_s, (V,)."""
        return scores_and_values(self)[0]

    @property
    def token_values(self) -> Floats:
        """g_s = E_s . v, (V,)."""
        return scores_and_values(self)[1]

    def replace(
        self, *, E: ArrayLike | None = None, p: ArrayLike | None = None, v: ArrayLike | None = None, **others: Any
    ) -> AttentionModel:
        """A copy of the model with some of E, p and v replaced."""
        check_names(others, "E, p and v")
        if p is None and v is None and type(E) is np.ndarray and E.dtype == self.E.dtype and E.shape == self.E.shape:
            return self._with_embeddings(np.array(as_real_array("E", E, ndim=2), order="C"))
        return AttentionModel(self.E if E is None else E, self.p if p is None else p, self.v if v is None else v)

    def _with_embeddings(self, E: Floats) -> AttentionModel:
        """The model with another E, finite, of the same shape and type; it is made read-only instead of copied."""
        model = AttentionModel.__new__(AttentionModel)  # p and v have been checked and are read-only
        vars(model).update(E=freeze(E), p=self.p, v=self.v)
        return model

    def output(self, data: TokenDataset) -> Floats:
        """f_i, (n,), between the smallest and the largest value g_s in the sequence."""
        return self._sums(data).output

    def attention(self, data: TokenDataset) -> sp.csr_array:
        """a_is, (n, V) CSR with the sparsity of the counts; each row sums to one."""
        self._check(data)
        weights = probabilities(scores_and_values(self)[0][data.counts.indices], data.segments, data.counts.data)
        return with_values(data.counts, weights)

    def loss(self, data: TokenDataset, *, loss: Loss | str = logistic) -> float:
        """L = mean_i l(y_i f_i), l(z) = log(1 + e^{-z}) or another ``loss``: a `losses.Loss` or the name of one."""
        return self._sums(data, loss).loss

    def loss_and_grads(self, data: TokenDataset, *, loss: Loss | str = logistic) -> tuple[float, AttentionGradients]:
        """The loss and its exact gradients in E (as two factors), p and v; see `passes` for the formulas.

        ``loss`` is a `losses.Loss`, or the name of one; logistic by default.

        The gradient in p is accurate to 1e-10 of its norm for scores up to 1e5, even where attention is saturated.

        >>> model = AttentionModel.random(4, 3, rng=0)
        >>> loss, grads = model.loss_and_grads(TokenDataset.from_tokens([[0, 2], [1, 2, 3]], [1, -1]))
        >>> grads.E.shape, abs(float(grads.E_factors[1].sum())) < 1e-16
        ((4, 3), True)
        """
        self._check(data)
        if (loss is logistic or check_loss(loss) is logistic) and self._is_small(data):
            found = dense_gradients(data, self.E, self.p, self.v)
            if found is not None:
                value, factors, gradients = found
                return value, AttentionGradients._of_rows(factors, gradients, (self.v, self.p))
        sums = self._sums(data, loss)
        if self.E.dtype == np.float64 and sums.log_scale == 0.0:
            rows = freeze(np.array((sums.A, sums.scaled_B)))
            if (usual := _usual_gradients(self.E, rows)) is not None:
                return sums.loss, AttentionGradients._of_rows(rows, usual, (self.v, self.p))
        A, B = (freeze(factor.astype(self.E.dtype, copy=False)) for factor in (sums.A, sums.B))
        peak = float(np.abs(sums.scaled_B).max()) or 1.0  # float32 would lose a small B
        factors = np.array((sums.scaled_B / -peak, -sums.A), dtype=self.E.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            scaled, grad_v = freeze(embedding_transpose_product(self.E, factors))
            grad_p = freeze(scaled * (peak * np.exp(sums.log_scale)).astype(self.E.dtype))
            suspect = not math.isfinite(grad_p @ grad_v)  # one product instead of two scans
        if suspect:
            self._finite("gradients", grad_p, grad_v)
        log_scale = sums.log_scale + np.log(peak)
        return sums.loss, AttentionGradients(grad_p, grad_v, (A, B), scaled, log_scale, (self.v, self.p))

    def hessian_p(self, data: TokenDataset, *, loss: Loss | str = logistic) -> Floats:
        """Second derivative of the loss in p, (d, d), symmetric."""
        anchored = self._anchored(data, loss)
        with np.errstate(over="ignore", invalid="ignore"):
            return self._finite("a Hessian", anchored.scaled_hessian(self.E) * np.exp(anchored.log_scale))

    def hessian_vector_p(self, data: TokenDataset, x: ArrayLike, *, loss: Loss | str = logistic) -> Floats:
        """Hess_p L times x, (d,), without forming the Hessian."""
        x = as_real_array("x", x, ndim=1, dtype=self.E.dtype)
        check_shape("x", x, (self.dim,))
        anchored = self._anchored(data, loss)
        with np.errstate(over="ignore", invalid="ignore"):
            product = anchored.scaled_hessian_vector(self.E, x) * np.exp(anchored.log_scale)
        return self._finite("a product of Hessian and x", product)

    def smoothness_p(self, data: TokenDataset) -> float:
        """beta = G^2 R^2 / 64 + G R^2 / 4 >= ||Hess_p L|| at every p.

        G = max_i range of g over X_i, R = max_i diameter of {E_s : s in X_i}. Gradient descent on p with a step below
        2/beta never increases the loss. Derived here (docs/derivations/smoothness.md).
        """
        self._check(data)
        from attnembed.attention.theory.smoothness import smoothness_bound

        return smoothness_bound(self, data).beta

    def accuracy(self, data: TokenDataset) -> float:
        """Share of sequences with y_i f_i > 0, in [0, 1]; an output of exactly 0 counts as wrong."""
        return float(np.mean(self.output(data) * data.labels > 0))

    def save(self, path: PathLike) -> None:
        """Write E, p and v to an npz archive (no pickle), atomically."""
        write_npz(path, E=self.E, p=self.p, v=self.v)

    @classmethod
    def load(cls, path: PathLike) -> AttentionModel:
        """Read a model written by `save`; anything malformed raises DataFileError."""
        return read_parameters(path, MEMBERS, cls)

    def _check(self, data: TokenDataset) -> None:
        check_data(data, self.vocab_size)

    def _is_small(self, data: TokenDataset) -> bool:
        return self.E.dtype == np.float64 and is_small(data)

    def _sums(self, data: TokenDataset, loss: Loss | str = logistic) -> TokenSums:
        self._check(data)
        kind = loss if loss is logistic else check_loss(loss)
        if kind is logistic and self._is_small(data):
            found = dense_sums(data, *scores_and_values(self))
            if found is not None:
                value, output, factors = found
                return TokenSums(value, output, factors[0], factors[1])
        u, g, suspect = _scores(self.E, self.p, self.v)
        if suspect:
            check_scores(u, g, self.E.dtype)
        return token_sums(data, u, g, kind)

    def _anchored(self, data: TokenDataset, loss: Loss | str) -> AnchoredPass:
        self._check(data)
        return AnchoredPass(data, *scores_and_values(self), check_loss(loss))

    def _finite(self, what: str, *arrays: Floats) -> Floats:
        """The first of the arrays; InputError if any of them contains NaN or inf."""
        if not all(np.isfinite(array).all() for array in arrays):
            wider = "" if self.E.dtype == np.float64 else ", or use float64"
            expected = f"must have {what} finite in {self.E.dtype}"
            raise InputError("model", expected, got="an overflow", hint=f"scale E, p and v down{wider}")
        return arrays[0]

    def __repr__(self) -> str:
        return f"AttentionModel(vocab_size={self.vocab_size}, dim={self.dim}, dtype={self.E.dtype})"


@np.errstate(over="ignore", invalid="ignore")
def _scores(E: Floats, p: Floats, v: Floats) -> tuple[Floats, Floats, bool]:
    """u = E p and g = E v, (V,) each, in float64, and whether one may not be finite."""
    both = embedding_product(E, np.array((p, v))).astype(np.float64, copy=False)
    u, g = both[0], both[1]
    return u, g, not math.isfinite(u.dot(g))  # NaN and inf show in the product, and huge finite ones may


@np.errstate(over="ignore", invalid="ignore")
def _usual_gradients(E: Floats, factors: Floats) -> Floats | None:
    """The gradients in v and p (2, d), read-only, from the rows A and B; None where they overflow or may underflow."""
    gradients = embedding_transpose_product(E, factors)
    size = abs(gradients[0].dot(gradients[1])) + factors[1].dot(factors[1])
    return freeze(np.negative(gradients, gradients)) if SMALLEST_SQUARE < size < math.inf else None


def read_parameters(path: PathLike, members: Mapping[str, Member], build: Callable[..., Model]) -> Model:
    """The model built from the arrays in a file, all of one type; anything malformed raises DataFileError."""
    arrays = read_checked(path, members)
    if len({array.dtype for array in arrays.values()}) > 1:
        *names, last = members
        raise DataFileError(path, f"must hold {', '.join(names)} and {last} of one type")
    try:
        return build(**arrays)
    except InputError as error:
        raise DataFileError(path, f"does not hold a model: {error}") from error


# The former name.
__getattr__ = moved(__name__, {"Gradients": f"{__name__}:AttentionGradients"})
