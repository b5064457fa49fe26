"""Many jobs at once: how they are cut into calls and watches that the server takes."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from hodei._gen.hodei.v1.job_service_pb import SubmitJobRequest

_T = TypeVar("_T")

MOST_REQUESTS = 10_000
# The server takes messages of up to 4 MiB.
MOST_BYTES = 2 << 20
# A filter takes so many ids.
MOST_IDS = 1_000
# So many watches are open at the same time; HTTP/2 allows about a hundred streams on a connection.
MOST_WATCHES = 16


def batches(
    requests: Iterable[SubmitJobRequest], most_requests: int = MOST_REQUESTS, most_bytes: int = MOST_BYTES
) -> Iterator[list[SubmitJobRequest]]:
    """Cut requests into calls. One that is too large by itself is a call by itself, which the server refuses."""
    batch: list[SubmitJobRequest] = []
    size = 0
    for request in requests:
        length = len(request.to_binary()) + 8  # tag and length of the field
        if batch and (len(batch) == most_requests or size + length > most_bytes):
            yield batch
            batch, size = [], 0
        batch.append(request)
        size += length
    if batch:
        yield batch


def groups(items: Sequence[_T], size: int = MOST_IDS) -> Iterator[list[_T]]:
    """Cut a list into lists of at most so many."""
    rest = iter(items)
    while group := list(islice(rest, size)):
        yield group
