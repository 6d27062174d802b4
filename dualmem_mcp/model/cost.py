"""What object storage asks for requests, so that an operation can name its cost."""

from __future__ import annotations

# Source: list prices of Amazon S3 Standard, us-east-1, as published in 2026: $0.005 per 1,000 PUT, COPY,
# POST and LIST requests, $0.0004 per 1,000 GET requests. A folder costs nothing.
USD_PER_WRITE_REQUEST = 0.005 / 1_000
USD_PER_READ_REQUEST = 0.0004 / 1_000


def request_cost_usd(location: str, *, writes: int = 0, reads: int = 0) -> float:
    """The list price of that many requests to the store at `location`, in US dollars; 0 for a folder."""
    if not location.startswith("s3://"):
        return 0.0
    return writes * USD_PER_WRITE_REQUEST + reads * USD_PER_READ_REQUEST
