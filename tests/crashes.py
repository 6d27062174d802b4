"""A process that ends at one point after the other, as by kill -9, until it comes through."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from dualmem_mcp.failpoints import crash_at

MOST = 500


def each_crash(act: Callable[[], object]) -> Iterator[int]:
    """Do it in a child process that ends at its first failpoint, its second, … and give the number of each after
    the child has ended; no more once one came through. Only for a process of its own: it forks."""
    for number in range(1, MOST):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                crash_at(number)
                act()
                status = 0
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, "the child failed before its end"
            return
        yield number
    raise AssertionError(f"more than {MOST} points")
