"""A digest that two objects share if they compute the same: by content, stable between processes, never by name alone.

Numbers, text, containers and arrays count by value; objects by their class and pickled state; functions by their
instructions, defaults, closure, attributes, and the global objects that they use, recursively. Definitions in libraries
(this package, the standard library, site-packages) count by name, and the caller records the versions. Names of
functions, docstrings, comments and line numbers do not count, nor do cached properties. An import inside a function
counts by name. Instructions differ between versions of Python.
"""

from __future__ import annotations

import copyreg
import dis
import enum
import functools
import hashlib
import sys
import types
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from attnembed._sparse import is_sparse
from attnembed.errors import InputTypeError

__all__ = ["fingerprint"]

_PACKAGE = __name__.partition(".")[0]
_INSTALLED = frozenset({"site-packages", "dist-packages"})
# Entries that Python and its decorators keep in a class: they follow from the rest, or do not affect computations.
_BOOKKEEPING = frozenset({"_abc_impl", "_is_protocol", "_is_runtime_protocol"})
_BY_NAME = (
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    types.WrapperDescriptorType,
    types.MemberDescriptorType,
    types.GetSetDescriptorType,
    np.ufunc,
)


def fingerprint(value: Any, *, name: str = "value", hint: str = "") -> str:
    """SHA-256, in hexadecimal, of the content of ``value``.

    Raises
    ------
    InputTypeError
        naming ``name`` and the part without comparable content (an open file, a lock, a running generator).

    >>> scaled = lambda c: lambda x: c * x
    >>> fingerprint(scaled(1)) == fingerprint(scaled(1)) != fingerprint(scaled(100))
    True
    """
    try:
        return _Walk().digest(value).hex()
    except _UnidentifiedError as error:
        got = error.what + (f" in {name}{error.where}" if error.where else "")
        raise InputTypeError(name, "must be known by its content", got=got, hint=hint) from error
    except RecursionError as error:
        raise InputTypeError(name, "must be known by its content", got="an object that nests too deeply") from error


class _UnidentifiedError(Exception):
    def __init__(self, what: str, where: str) -> None:
        super().__init__(what)
        self.what, self.where = what, where


class _Walk:
    """One walk through an object. Digests are cached by identity; a cycle is cut at the first repeated object."""

    def __init__(self) -> None:
        self._done: dict[int, tuple[Any, bytes]] = {}  # with the object, so that its id is not reused
        self._open: dict[int, int] = {}
        self._path: list[str] = []

    def digest(self, value: Any) -> bytes:
        plain = _plain(value)
        if plain is not None:
            return _sha(plain)
        if id(value) in self._done:
            return self._done[id(value)][1]
        if id(value) in self._open:
            # Functions and classes are cut by name, so that it does not matter where a cycle was entered.
            inner = getattr(value, "__qualname__", None) or str(len(self._open) - self._open[id(value)])
            return _sha(b"circle", inner.encode())
        self._open[id(value)] = len(self._open)
        try:
            found = _sha(*self._parts(value))
        finally:
            del self._open[id(value)]
        self._done[id(value)] = value, found
        return found

    @contextmanager
    def _at(self, step: str) -> Iterator[None]:
        self._path.append(step)
        yield  # an error keeps the path to it
        self._path.pop()

    def _fail(self, what: str) -> _UnidentifiedError:
        return _UnidentifiedError(what, "".join(self._path))

    def _parts(self, value: Any) -> Iterable[bytes]:
        kind = type(value)
        if isinstance(value, np.ndarray):
            return self._array(value)
        if is_sparse(value):
            return self._sparse(value)
        if kind in (list, tuple):
            return self._items(kind.__name__, value)
        if kind in (set, frozenset):
            return [b"set", *sorted(map(self.digest, value))]
        if kind in (dict, types.MappingProxyType):
            return self._mapping(value)
        if isinstance(value, enum.Enum):
            return [b"enum", kind.__qualname__.encode(), value.name.encode(), self.digest(value.value)]
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.CodeType):
            return self._code(value)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, types.ModuleType):
            return [b"module", value.__name__.encode()]
        return self._callable(value) or self._object(value)

    # --- data ---

    def _items(self, tag: str, items: Iterable[Any]) -> list[bytes]:
        found = [tag.encode()]
        for index, item in enumerate(items):
            plain = _plain(item)
            if plain is not None:  # long lists of words are common
                found.append(b"=" + plain)
                continue
            with self._at(f"[{index}]"):
                found.append(self.digest(item))
        return found

    def _mapping(self, mapping: Any) -> list[bytes]:
        pairs = []
        for key, item in mapping.items():
            with self._at(f"[{key!r}]" if isinstance(key, (str, int)) else "[...]"):
                pairs.append(self.digest(key) + self.digest(item))
        return [b"dict", *sorted(pairs)]

    def _array(self, array: np.ndarray[Any, Any]) -> list[bytes]:
        dtype = array.dtype.newbyteorder("<")
        head = [b"array", str(dtype).encode(), str(array.shape).encode()]
        if isinstance(array, np.ma.MaskedArray):
            return [b"masked", self.digest(np.ma.getmaskarray(array)), self.digest(array.filled())]
        if type(array) not in (np.ndarray, np.memmap):
            head.append(self.digest(type(array)))
        array = array.view(np.ndarray)
        if dtype.names:
            return [*head, *(self.digest(array[field]) for field in dtype.names)]
        if dtype.hasobject or dtype.kind == "T" or dtype.char in "gG":  # references; and long doubles have unused bytes
            items = map(repr, array.ravel()) if dtype.char in "gG" else array.ravel().tolist()
            return [*head, *self._items("list", items)]
        if array.size * dtype.itemsize:
            content = np.ascontiguousarray(array, dtype=dtype).reshape(-1).view(np.uint8)
            head.append(hashlib.sha256(content.data).digest())
        return head

    def _sparse(self, matrix: Any) -> list[bytes]:
        kind = type(matrix)
        if matrix.format in ("csr", "csc", "bsr"):
            # On our own copy: checking, and testing for canonical form, set flags in the matrix.
            own = kind((matrix.data, matrix.indices, matrix.indptr), shape=matrix.shape)
            try:
                own.check_format(full_check=True)  # compiled code will use the indices
            except ValueError as error:
                raise self._fail("a sparse matrix whose indices do not fit it") from error
            if not own.has_canonical_format:
                own = own.copy()
                own.sum_duplicates()
            indices, data = (own.indptr, own.indices), own.data
        else:
            entries = matrix.tocoo()
            indices, data = entries.coords, entries.data
        # The integer width of the indices depends on the history of the matrix.
        digests = [self.digest(np.asarray(index, dtype=np.int64)) for index in indices]
        return [b"sparse", kind.__name__.encode(), str(matrix.shape).encode(), *digests, self.digest(data)]

    # --- code ---

    def _function(self, function: types.FunctionType) -> list[bytes]:
        library = _is_library(function.__module__)
        if library and _resolves(function):
            return [b"name", _full_name(function).encode()]
        found = [b"function"]
        with self._at(f" -> {function.__name__}"):
            found.append(self.digest(function.__code__))
            for what in ("__defaults__", "__kwdefaults__", "__dict__"):
                with self._at(f".{what}"):
                    found.append(self.digest(getattr(function, what) or None))
            for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
                with self._at(f", variable {name}"):
                    found.append(self._used(_content(cell), _names(function.__code__)[1]))
            if not library:
                found += self._globals(function)
        return found

    def _globals(self, function: types.FunctionType) -> Iterator[bytes]:
        names, attributes = _names(function.__code__)
        for name in sorted(names & function.__globals__.keys()):
            with self._at(f", global {name}"):
                yield name.encode()
                yield self._used(function.__globals__[name], attributes)

    def _used(self, value: Any, attributes: set[str]) -> bytes:
        """The digest; for a user's module, of the attributes that the function names."""
        if not isinstance(value, types.ModuleType) or _is_library(value.__name__) or id(value) in self._open:
            return self.digest(value)
        found = [self.digest(value)]
        self._open[id(value)] = len(self._open)
        for name in sorted(attributes & vars(value).keys()):
            with self._at(f".{name}"):
                found += [name.encode(), self._used(vars(value)[name], attributes)]
        del self._open[id(value)]
        return _sha(*found)

    def _code(self, code: types.CodeType) -> Iterator[bytes]:
        shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & 0xFF)
        yield b"code"
        yield repr((shape, code.co_varnames, code.co_cellvars, code.co_freevars)).encode()
        yield getattr(code, "co_exceptiontable", b"")
        for step in dis.get_instructions(code):
            yield step.opname.encode()
            if step.opcode in dis.hasconst:
                yield self.digest(step.argval)
            else:  # names by name: their indices depend on the rest of the code
                yield (step.argrepr or str(step.arg)).encode()

    def _class(self, kind: type) -> Iterator[bytes]:
        if _is_library(kind.__module__) and _resolves(kind):
            yield b"name"
            yield _full_name(kind).encode()
            return
        yield b"class"
        yield kind.__qualname__.encode()
        with self._at(f" -> class {kind.__name__}"):
            yield from map(self.digest, kind.__bases__)
            for name, value in sorted(vars(kind).items()):
                dunder = name.startswith("__") and name.endswith("__")
                if name in _BOOKKEEPING or isinstance(value, (types.MemberDescriptorType, types.GetSetDescriptorType)):
                    continue
                if dunder and not isinstance(value, (types.FunctionType, classmethod, staticmethod, property)):
                    continue
                with self._at(f".{name}"):
                    yield name.encode()
                    yield self.digest(value)

    def _callable(self, value: Any) -> list[bytes] | None:
        """Wrapped functions, and functions without code to inspect."""
        names: tuple[str, ...]
        if isinstance(value, (functools.partial, functools.partialmethod)):
            names = "func", "args", "keywords"
        elif isinstance(value, types.MethodType):
            names = "__func__", "__self__"
        elif isinstance(value, (staticmethod, classmethod)):
            names = ("__func__",)
        elif isinstance(value, property):
            names = "fget", "fset", "fdel"
        elif isinstance(value, functools.cached_property):
            names = ("func",)
        elif isinstance(value, functools._lru_cache_wrapper):  # cached values do not count
            names = ("__wrapped__",)
        elif isinstance(value, (types.BuiltinMethodType, types.MethodWrapperType)) and not isinstance(
            value.__self__, (types.ModuleType, type(None))
        ):
            names = "__name__", "__self__"
        elif isinstance(value, _BY_NAME):
            owner = getattr(value, "__objclass__", None)
            return [b"name", _full_name(value if owner is None else owner).encode(), value.__name__.encode()]
        else:
            return None
        found = [_full_name(type(value)).encode()]
        for name in names:
            with self._at(f".{name}"):
                found.append(self.digest(getattr(value, name)))
        return found

    def _object(self, value: Any) -> list[bytes]:
        """The class of an object and its pickled state."""
        kind = type(value)
        if isinstance(value, np.random.Generator):
            value = value.bit_generator
        if isinstance(value, np.random.BitGenerator):
            sequence = value.seed_seq
            seeds = [getattr(sequence, name, None) for name in ("entropy", "spawn_key", "n_children_spawned")]
            return [b"generator", self.digest(value.state), self.digest(seeds)]
        try:
            reduce: Callable[[Any], Any] | None = copyreg.dispatch_table.get(kind)
            reduced = reduce(value) if reduce is not None else value.__reduce_ex__(4)
        except RecursionError:
            raise
        except Exception as error:  # code of others
            raise self._fail(f"{_article(kind.__name__)} object") from error
        if isinstance(reduced, str):
            return [b"name", f"{getattr(value, '__module__', '')}.{reduced}".encode()]
        make, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
        found = [b"object", self.digest(kind), self.digest(make), self.digest(arguments)]
        with self._at(f" -> {kind.__name__}"):
            found.append(self._state(kind, state))
            if items is not None:
                found += self._items("list", items)
            if pairs is not None:
                ordered = list(pairs)
                found += self._mapping(dict(ordered))
                if isinstance(value, OrderedDict):
                    found.append(self.digest([key for key, _ in ordered]))
        return found

    def _state(self, kind: type, state: Any) -> bytes:
        if isinstance(state, tuple) and len(state) == 2 and all(isinstance(x, (dict, type(None))) for x in state):
            return _sha(b"slots", *(self._state(kind, part) for part in state))
        if not isinstance(state, dict):
            return self.digest(state)
        found = [b"state"]
        for name, item in sorted(state.items(), key=lambda pair: str(pair[0])):
            if not isinstance(getattr(kind, str(name), None), functools.cached_property):
                with self._at(f".{name}"):
                    found += [str(name).encode(), self.digest(item)]
        return _sha(*found)


def _sha(*parts: bytes) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


def _plain(value: Any) -> bytes | None:
    """The content of a plain value; None for all other values. 1, 1.0 and True differ."""
    if value is None or value is Ellipsis or value is NotImplemented:
        return repr(value).encode()
    kind = type(value)
    if kind is bool:
        return b"true" if value else b"false"
    if kind is int:
        return b"int" + hex(value).encode()
    if kind in (float, np.float64):
        return b"float" + float(value).hex().encode()
    if kind is complex:
        found: bytes | None = b"complex" + value.real.hex().encode() + b"," + value.imag.hex().encode()
        return found
    if kind in (str, np.str_):
        return b"str" + str(value).encode("utf-8", "surrogatepass")
    if kind in (bytes, bytearray):
        return b"bytes" + bytes(value)
    if isinstance(value, np.dtype):
        return b"dtype" + repr(value).encode()
    if isinstance(value, np.generic) and not value.dtype.hasobject and value.dtype.char not in "gG" and not value.shape:
        return b"scalar" + value.dtype.newbyteorder("<").str.encode() + value.tobytes()
    return None


def _names(code: types.CodeType) -> tuple[set[str], set[str]]:
    """The global names and the attributes that code reads, including the functions inside it."""
    names, attributes = set(), set()
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            names.add(step.argval)
        elif step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            attributes.add(step.argval)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner = _names(constant)
            names |= inner[0]
            attributes |= inner[1]
    return names, attributes


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a variable without a value
        return NotImplemented


# The places of classes when checkpoints were first written: a class that moves stays the same.
_MOVED = {
    f"attnembed.structured.layers.{part}": "attnembed.structured.networks" for part in ("core", "images", "sequences")
}


def _full_name(thing: Any) -> str:
    module = getattr(thing, "__module__", None) or ""
    module = "__main__" if module == "__mp_main__" else module  # a worker's name for the script of its parent
    module = _MOVED.get(module, module)
    return f"{module}.{getattr(thing, '__qualname__', None) or thing.__name__}"


def _resolves(thing: Any) -> bool:
    """Whether the object can be found by its name."""
    found: Any = sys.modules.get(thing.__module__)
    for part in thing.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is thing


@functools.cache
def _is_library(module: str | None) -> bool:
    if module is None or module in ("__main__", "__mp_main__"):
        return False
    top = module.partition(".")[0]
    if top == _PACKAGE or top in sys.stdlib_module_names:
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    return module in sys.builtin_module_names or bool(file and _INSTALLED & set(Path(file).parts))


def _article(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeio' else 'a'} {noun}"
