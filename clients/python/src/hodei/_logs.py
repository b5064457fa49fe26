"""A job's output: chunks as they were written, lines, and the proof that nothing is missing."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import TYPE_CHECKING, Literal, TypedDict

from protobuf import Oneof
from protobuf.wkt import Timestamp

from hodei._failures import error_of
from hodei._gen.hodei.v1 import log_service_pb as pb
from hodei.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable

    from connectrpc.errors import ConnectError

    from hodei.errors import HodeiError


class LogOptions(TypedDict, total=False):
    """Which part of a job's output is wanted."""

    stream: Literal["stdout", "stderr"] | None
    """Only this stream."""
    step: str | None
    """Only the step with this name."""
    attempt: int | None
    """Where to begin; the last attempt when not set."""
    tail: int | None
    """Begin so many lines before the present end."""
    since: datetime | None
    """Begin with what was written at this time, on the worker's clock, or later."""
    until: datetime | None
    """End before what was written at this time, or later."""


class LogChunk:
    """A run of bytes that one step wrote to one stream, as they were written."""

    __slots__ = ("_message", "_time")

    def __init__(self, message: pb.LogChunk) -> None:
        """Make a chunk of the server's message; only this package needs to."""
        self._message = message
        self._time: datetime | None = None

    @property
    def data(self) -> bytes:
        """The bytes."""
        return self._message.data

    @property
    def step(self) -> str:
        """The name of the step."""
        return self._message.step

    @property
    def stream(self) -> str:
        """`"stdout"` or `"stderr"`."""
        return _STREAM_NAMES.get(self._message.stream, "")

    @property
    def attempt(self) -> int:
        """The attempt, counted from 1."""
        return self._message.attempt

    @property
    def offset(self) -> int:
        """How many bytes of the attempt come before."""
        return int(self._message.offset or 0)

    @property
    def time(self) -> datetime | None:
        """When the agent read the bytes, on the worker's clock."""
        if self._time is None and self._message.time is not None:
            self._time = self._message.time.to_datetime()
        return self._time

    def __repr__(self) -> str:
        return f"LogChunk({self.stream}, step={self.step!r}, {self.data!r})"


class LogLine:
    """A line of the output. `str(line)` is its text."""

    # A long log has millions of these: what lines of one chunk share is kept once, in the chunk.
    __slots__ = ("_chunk", "text")

    text: str
    """The line without its end. Bytes that are not UTF-8 are U+FFFD."""

    def __init__(self, text: str, chunk: LogChunk) -> None:
        """Make a line that begins in a chunk; only this package needs to."""
        self.text = text
        self._chunk = chunk

    @property
    def time(self) -> datetime | None:
        """When the first byte was read, on the worker's clock."""
        return self._chunk.time

    @property
    def step(self) -> str:
        """The name of the step."""
        return self._chunk.step

    @property
    def stream(self) -> str:
        """`"stdout"` or `"stderr"`."""
        return self._chunk.stream

    @property
    def attempt(self) -> int:
        """The attempt, counted from 1."""
        return self._chunk.attempt

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"LogLine({self.stream}, step={self.step!r}, {self.text!r})"


_STREAM_NAMES = {pb.LogStream.STDOUT: "stdout", pb.LogStream.STDERR: "stderr"}
_STREAMS = {name: stream for stream, name in _STREAM_NAMES.items()}


class Splitter:
    """Puts the lines of each step's stdout and stderr together.

    Blocks are cut at line ends only, and decoded as a whole: no character is ever split.
    """

    def __init__(self) -> None:
        self._attempt = 0
        # The pieces of the last line of each stream, which has no end yet, and the chunk where it begins.
        self._open: dict[tuple[str, int], tuple[list[bytes], LogChunk]] = {}

    def feed(self, chunks: Iterable[pb.LogChunk]) -> list[LogLine]:
        """Return the lines that chunks end."""
        lines: list[LogLine] = []
        for message in chunks:
            if message.attempt != self._attempt:
                lines += self.flush()
                self._attempt = message.attempt
            self._feed(LogChunk(message), message.data, (message.step, message.stream), lines)
        return lines

    def _feed(self, chunk: LogChunk, data: bytes, key: tuple[str, int], lines: list[LogLine]) -> None:
        cut = data.rfind(b"\n")
        if cut < 0:
            if data:
                self._open.setdefault(key, ([], chunk))[0].append(data)
            return
        begin = self._open.pop(key, None)
        if cut + 1 < len(data):
            self._open[key] = ([data[cut + 1 :]], chunk)
        if begin is None:
            texts = data[:cut].decode("utf-8", "replace").split("\n")
        else:
            pieces, first = begin
            pieces.append(data[:cut])
            texts = b"".join(pieces).decode("utf-8", "replace").split("\n")
            lines.append(LogLine(texts.pop(0), first))
        lines += [LogLine(text, chunk) for text in texts]

    def flush(self) -> list[LogLine]:
        """Return what has no line end at the end of its stream."""
        rest = [LogLine(b"".join(pieces).decode("utf-8", "replace"), chunk) for pieces, chunk in self._open.values()]
        self._open.clear()
        return rest


class Proof:
    """Hashes the streams of an attempt as they are read, to compare with what the agent computed when it wrote them."""

    def __init__(self) -> None:
        self._attempt = 0
        self._sums: dict[tuple[str, int], _Sum] = {}

    def add(self, chunk: pb.LogChunk) -> None:
        """Take a chunk into account."""
        if chunk.attempt != self._attempt:
            self._attempt = chunk.attempt
            self._sums = {}
        key = (chunk.step, chunk.stream)
        total = self._sums.get(key)
        if total is None:
            total = self._sums[key] = _Sum()
        total.add(chunk.data)

    def check(self, job_id: str, completeness: pb.LogCompleteness) -> HodeiError | None:
        """Return an error when a complete log is another one than was written. One without hashes is taken as it is."""
        if completeness.state != pb.LogState.COMPLETE:
            return None
        for written in completeness.streams:
            got = self._sums.get((written.step, written.stream)) or _Sum()
            if str(got.size) != written.bytes or got.hash.digest() != written.sha256:
                return error_of(
                    "data_loss",
                    f'the log is damaged: of step "{written.step}" of job {job_id} {written.bytes} bytes were written '
                    f"with the SHA-256 {bytes(written.sha256).hex()}, and {got.size} were read with {got.hash.hexdigest()}",
                )
        return None


class _Sum:
    def __init__(self) -> None:
        self.size = 0
        self.hash = hashlib.sha256()

    def add(self, data: bytes) -> None:
        self.size += len(data)
        self.hash.update(data)


class Tail:
    """A log that is read, from any position on. It goes on after the last message that was taken."""

    def __init__(self, job_id: str, options: LogOptions, *, follow: bool) -> None:
        self.request = _tail_request(job_id, options, follow=follow)
        self.over = False
        self.gap = ""
        """What is missing of a log that has ended."""
        whole = not any(options.get(key) is not None for key in ("stream", "step", "tail", "since", "until"))
        self._proof = Proof() if whole else None
        self._completeness = pb.LogCompleteness()

    def take(self, message: pb.TailLogsResponse) -> list[pb.LogChunk]:
        """Return the chunks of a message, and go on after them."""
        chunks = list(message.chunks)
        if self._proof is not None:
            for chunk in chunks:
                self._proof.add(chunk)
        self.request.cursor, self.request.begin = message.cursor, None
        completeness = message.completeness
        if completeness is not None and completeness.state != pb.LogState.UNSPECIFIED:
            self.over = True
            if completeness.state == pb.LogState.GAP:
                self.gap = completeness.message or "some bytes are missing"
            self._completeness = completeness
        return chunks

    def starts_over(self, _error: ConnectError) -> bool:
        """Never begin anew: a cursor does not become too old."""
        return False

    def damage(self) -> HodeiError | None:
        """Return what is wrong with a log that has ended."""
        return self._proof.check(self.request.job_id, self._completeness) if self._proof else None


def _tail_request(job_id: str, options: LogOptions, *, follow: bool) -> pb.TailLogsRequest:
    stream = options.get("stream")
    if stream is not None and stream not in _STREAMS:
        raise InvalidArgument(f'"{stream}" is no stream; there are "stdout" and "stderr"')
    request = pb.TailLogsRequest(
        job_id=job_id,
        cursor=pb.LogCursor(attempt=options.get("attempt") or 0),
        follow=follow,
        step=options.get("step") or "",
        stream=_STREAMS[stream] if stream else pb.LogStream.UNSPECIFIED,
    )
    tail, since, until = options.get("tail"), options.get("since"), options.get("until")
    if tail is not None and since is not None:
        raise InvalidArgument("tail and since both say where to begin; give one of them")
    if tail is not None:
        lines: Oneof[Literal["tail_lines"], int] = Oneof("tail_lines", tail)
        request.begin = lines
    elif since is not None:
        time: Oneof[Literal["since"], Timestamp] = Oneof("since", Timestamp.from_datetime(since.astimezone()))
        request.begin = time
    if until is not None:
        request.until = Timestamp.from_datetime(until.astimezone())
    return request
