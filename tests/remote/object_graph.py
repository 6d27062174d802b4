"""What an object holds on to, as the garbage collector sees it, without what all objects of a program share."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import types
from collections.abc import Iterator
from dataclasses import is_dataclass
from enum import Enum
from typing import Any

from anyio import CancelScope

_SHARED = (
    type,
    types.ModuleType,
    types.CodeType,
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    types.FrameType,
    logging.Logger,
    Enum,
    # Of the event loop, by which everything can be reached that runs.
    asyncio.AbstractEventLoop,
    asyncio.Task,
    asyncio.Future,
    threading.Thread,
    CancelScope,  # holds the scope around it, which is the program's own in the end
)
_UNCHANGING = (str, bytes, int, float, complex, bool, type(None), type(...), type(NotImplemented), range, frozenset)


def owned_objects(root: Any) -> dict[int, Any]:
    """The objects that can change and that can be reached from there, by identity."""
    seen: dict[int, Any] = {}
    waiting = [root]
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, _SHARED):
            continue
        seen[id(one)] = one
        waiting += _held(one)
    return {key: one for key, one in seen.items() if not _is_unchanging(one)}


def _held(one: Any) -> Iterator[Any]:
    if isinstance(one, types.FunctionType):
        # Its globals are its module's; what it closes over is its own.
        yield from (cell.cell_contents for cell in one.__closure__ or () if _is_filled(cell))
        yield from one.__defaults__ or ()
        yield from (one.__kwdefaults__ or {}).values()
        return
    yield from gc.get_referents(one)


def _is_filled(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _is_unchanging(one: Any) -> bool:
    if isinstance(one, (*_UNCHANGING, types.FunctionType, types.MappingProxyType)):
        return True
    if isinstance(one, tuple):
        return True  # what it holds has been looked at by itself
    return is_dataclass(one) and bool(type(one).__dataclass_params__.frozen)
