"""A container for the gradients of every model, with three ways to read it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

from attnembed.results import Record

__all__ = ["Gradients"]


class Gradients(Record, Mapping[str, Any]):
    """Gradients by parameter name: as attributes, as items, and as a dict for the optimizers of `optim`.

    >>> import attnembed as ae
    >>> data = ae.TokenDataset.from_tokens([[0, 2], [1, 2, 3]], [1, -1])
    >>> loss, grads = ae.AttentionModel.random(4, 3, rng=0).loss_and_grads(data)
    >>> list(grads), grads["p"] is grads.p, grads.to_dict()["p"] is grads.p
    (['E', 'p', 'v'], True, True)
    """

    @abstractmethod
    def _names(self) -> tuple[str, ...]:
        """The parameters, in the model's order."""

    def __getitem__(self, name: str) -> Any:
        if name not in self._names():
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def to_dict(self) -> dict[str, Any]:
        """Every gradient by the name of its parameter."""
        return {name: self[name] for name in self}

    # Arrays have no truth value for comparison: two containers are equal only if identical.
    __eq__ = object.__eq__
    __hash__ = object.__hash__
