"""A key of what a field reads from outside, since a compiled solve holds such values as constants."""

import dis
import functools
import weakref
from collections.abc import Iterator
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np

_FEW = 64  # longest tuple that is compared by value
_BY_VALUE = {int, bool, str, complex, bytes, type(None)}
_CALL = "__call__"
_INSTALLED = ("site-packages", "dist-packages")


class _Names(NamedTuple):
    """Globals and attributes that code reads and never stores, and indices of the closure cells that it only reads."""

    globals: tuple[str, ...]
    attributes: tuple[str, ...]
    cells: tuple[int, ...]


class _Same:
    """An object compared by identity, held by a weak reference if it supports one."""

    def __init__(self, x: Any):
        try:
            self.held = weakref.ref(x)
        except TypeError:  # no weak references, as for a list
            self.held = functools.partial(_itself, x)
        self.number = id(x)

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.held() is not None and self.held() is other.held()


def _itself(x: Any) -> Any:
    return x


def reads(*functions: Any) -> tuple:
    """Return a hashable key of the values that functions read from outside.

    The key covers the globals that their code names, the variables they close over, and the attributes that the code
    names of plain objects, classes and modules among these, `self` included. Numbers, strings and tuples of them count
    by value. Everything else counts by identity, so a change inside an array, list or dictionary goes unnoticed.
    Functions of the same module are followed. Names that the code itself stores to (counters) and code of installed
    packages are left out.

    Args:
        *functions: functions, methods, `functools.partial`s, callable objects; a class stands for calls of its
            instances, whatever these hold.

    Example:
        >>> rate = 1.0
        >>> def decay(z, t, theta):
        ...     return -rate * z
        >>> before, rate = reads(decay), 2.0
        >>> before == reads(decay)
        False
    """
    found: list = []
    seen: set = set()
    for f in functions:
        _of_callable(f, found, seen)
    return tuple(found)


def _of_callable(f: Any, found: list, seen: set) -> None:
    if id(f) in seen:
        return
    seen.add(id(f))
    if isinstance(f, functools.partial):
        found.extend(_token(x, (), None, seen) for x in (*f.args, *f.keywords.values()))
        _of_callable(f.func, found, seen)
        return
    own, kind = None, None
    if isinstance(f, MethodType):
        function, own, kind = f.__func__, f.__self__, type(f.__self__)
    elif isinstance(f, type):
        function, kind = getattr(f, _CALL, None), f
    elif isinstance(f, FunctionType):
        function = f
    else:
        function, own, kind = getattr(type(f), _CALL, None), f, type(f)
    if isinstance(function, FunctionType):
        _of_function(function, own, kind, found, seen)


def _of_function(f: FunctionType, own: Any, kind: type | None, found: list, seen: set) -> None:
    """Collect what a function reads, and the methods of the same object that it names."""
    names, world = _names(f.__code__), f.__globals__
    for name in names.globals:
        if name in world:
            found.append(_token(world[name], names.attributes, world, seen))
    for i in names.cells:
        try:
            found.append(_token((f.__closure__ or ())[i].cell_contents, names.attributes, world, seen))
        except ValueError:  # not assigned yet
            found.append(None)
    if own is not None:
        found.extend(_attributes(own, names.attributes, world, seen))
    for method in _methods(kind, names.attributes):
        if id(method) not in seen:
            seen.add(id(method))
            _of_function(method, own, kind, found, seen)


def _methods(kind: type | None, names: tuple[str, ...]) -> Iterator[FunctionType]:
    """Yield the functions of a class, properties included, that some code names."""
    for name in () if kind is None else (*names, _CALL):
        x = getattr(kind, name, None)
        x = x.fget if isinstance(x, property) else x
        if isinstance(x, FunctionType):
            yield x


def _token(x: Any, names: tuple[str, ...], world: dict | None, seen: set) -> Any:
    """Return the entry of the key for one value."""
    kind = type(x)
    if kind is float:
        return x.hex()  # distinguishes -0.0 from 0.0, and NaN equals itself
    if kind in _BY_VALUE:
        return kind, x
    if kind is tuple and len(x) <= _FEW:
        return tuple(_token(each, (), world, seen) for each in x)
    if isinstance(x, np.generic):
        return kind, x.tobytes()
    if isinstance(x, ModuleType):
        return None if _is_installed(x) else _attributes(x, names, world, seen)
    if kind is FunctionType and x.__globals__ is world and id(x) not in seen:
        found: list = [_Same(x)]
        _of_callable(x, found, seen)
        return tuple(found)
    return _Same(x), _attributes(x, names, world, seen)


def _attributes(x: Any, names: tuple[str, ...], world: dict | None, seen: set) -> tuple:
    """Return the entries for those attributes of an object, class or module that some code names."""
    own = getattr(x, "__dict__", None)
    if not own or not names or isinstance(x, FunctionType) or (id(x), id(names)) in seen:
        return ()
    seen.add((id(x), id(names)))
    return tuple(_token(own[name], names, world, seen) for name in names if name in own)


def _is_installed(module: ModuleType) -> bool:
    path = getattr(module, "__file__", None)
    return path is None or any(folder in path for folder in _INSTALLED)


@functools.lru_cache(maxsize=4096)
def _names(code: CodeType) -> _Names:
    if any(folder in code.co_filename for folder in _INSTALLED):
        return _Names((), (), ())
    codes = list(_with_inner(code))
    steps = [x for each in codes for x in dis.get_instructions(each)]

    def read(loads: tuple[str, ...], store: str) -> tuple[str, ...]:
        stored = {x.argval for x in steps if x.opname == store}
        return tuple(dict.fromkeys(x.argval for x in steps if x.opname in loads and x.argval not in stored))

    cells = read(("LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_CLOSURE"), "STORE_DEREF")
    return _Names(
        read(("LOAD_GLOBAL", "LOAD_NAME"), "STORE_GLOBAL"),
        read(("LOAD_ATTR", "LOAD_METHOD"), "STORE_ATTR"),
        tuple(i for i, name in enumerate(code.co_freevars) if name in cells),
    )


def _with_inner(code: CodeType) -> Iterator[CodeType]:
    yield code
    for x in code.co_consts:
        if isinstance(x, CodeType):
            yield from _with_inner(x)
