"""What a failed request to Qdrant means, as one of our errors; nothing that the service said is quoted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

import httpx
from pydantic import ValidationError
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from dualmem_mcp.errors import DualmemError, StoreRefusedError, StoreUnreachableError

_NOT_FOUND: Final = 404
_NO_RIGHTS: Final = frozenset({401, 403})
_BUSY: Final = frozenset({408, 429})

# The client trusts what it is answered: what is no JSON, or JSON of another shape, comes as any of these.
_GARBAGE: Final = (ValidationError, ValueError, AssertionError, AttributeError, TypeError, KeyError, IndexError)


@contextlib.contextmanager
def qdrant_faults(operation: str, collection: str, *, local: bool) -> Iterator[None]:
    """Turn what the client raises into StoreUnreachableError and StoreRefusedError."""
    try:
        yield
    except DualmemError:
        raise
    except UnexpectedResponse as error:
        raise _answered(error.status_code or 0, operation, collection) from None
    except ResponseHandlingException as error:
        raise _unanswered(error.source, operation, collection) from None
    except (ApiException, QdrantException):  # asks to wait: too many requests
        raise _answered(429, operation, collection) from None
    except (httpx.HTTPError, OSError) as error:
        raise _unanswered(error, operation, collection) from None
    except RuntimeError:
        if not local:
            raise
        raise StoreUnreachableError(
            "the folder of the local Qdrant is closed, or another program uses it",
            operation=operation,
            subject=collection,
            hint="End the other program, or set DUALMEM_QDRANT_URL to a server that several can use.",
        ) from None
    except _GARBAGE as error:
        if local and isinstance(error, ValueError):  # the local mode's way to say that there is none
            raise no_collection(operation, collection) from None
        raise _garbage(operation, collection) from None


def no_collection(operation: str, collection: str) -> StoreRefusedError:
    """The error for a tier that has not been set up."""
    return StoreRefusedError(
        f"Qdrant has no collection {collection}",
        operation=operation,
        subject=collection,
        hint="Run `dualmem tiers init`, and check DUALMEM_QDRANT_URL.",
    )


def _answered(status: int, operation: str, collection: str) -> DualmemError:
    if status == _NOT_FOUND:
        return no_collection(operation, collection)
    if status in _NO_RIGHTS:
        return StoreRefusedError(
            f"Qdrant refuses this key ({status})",
            operation=operation,
            subject=collection,
            hint="Check DUALMEM_QDRANT_API_KEY, and that this key may read and write.",
        )
    if status in _BUSY or status >= 500:
        return StoreUnreachableError(
            f"Qdrant is busy, full or broken ({status})",
            operation=operation,
            subject=collection,
            hint="Try again later; on a server of yours, see that there is space and memory left.",
        )
    return StoreRefusedError(
        f"Qdrant refuses the request ({status})",
        operation=operation,
        subject=collection,
        hint="Check that DUALMEM_QDRANT_URL names a Qdrant server of version 1.16 or later.",
    )


def _unanswered(error: Exception, operation: str, collection: str) -> DualmemError:
    if isinstance(error, (*_GARBAGE, httpx.DecodingError)):
        return _garbage(operation, collection)
    late = isinstance(error, httpx.TimeoutException)
    return StoreUnreachableError(
        f"Qdrant {'is late' if late else 'cannot be reached'} ({type(error).__name__})",
        operation=operation,
        subject=collection,
        hint="Check the network connection and DUALMEM_QDRANT_URL, and try again.",
    )


def _garbage(operation: str, collection: str) -> StoreUnreachableError:
    return StoreUnreachableError(
        "what answers is not Qdrant, or something between changes its answers",
        operation=operation,
        subject=collection,
        hint="Check DUALMEM_QDRANT_URL, and that no proxy stands between.",
    )
