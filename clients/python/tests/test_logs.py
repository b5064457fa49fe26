"""Lines, chunks and the proof that nothing is missing."""

from __future__ import annotations

import hashlib
import random
from datetime import UTC, datetime

import pytest
from protobuf.wkt import Timestamp

import hodei
from hodei._gen.hodei.v1 import log_service_pb as pb
from hodei._logs import Splitter, Tail

OUT, ERR = pb.LogStream.STDOUT, pb.LogStream.STDERR


def chunk(data: bytes, stream: pb.LogStream = OUT, step: str = "a", attempt: int = 1, second: int = 0) -> pb.LogChunk:
    return pb.LogChunk(data=data, stream=stream, step=step, attempt=attempt, time=Timestamp(seconds=second))


def lines(*chunks: pb.LogChunk) -> list[tuple[str, str]]:
    splitter = Splitter()
    found = [line for each in chunks for line in splitter.feed([each])] + splitter.flush()
    return [(line.stream, line.text) for line in found]


@pytest.mark.parametrize(
    ("chunks", "wanted"),
    [
        ([], []),
        ([b""], []),
        ([b"\n"], [""]),
        ([b"\n\nlast"], ["", "", "last"]),
        ([b"a\r\n"], ["a\r"]),
        ([b"one\ntwo\nth", b"ree", b"\n"], ["one", "two", "three"]),
        ([b"\xe2\x82", b"\xac is the euro\n"], ["€ is the euro"]),
        ([b"\x00\xff\xfea\nb\x0b\x0c\x1c\xc2\x85c\n"], ["\x00\ufffd\ufffda", "b\x0b\x0c\x1c\x85c"]),
        ([b"\xe2\x82\nx"], ["\ufffd", "x"]),
        ([b"\x80end"], ["\ufffdend"]),
    ],
)
def test_lines(chunks: list[bytes], wanted: list[str]) -> None:
    assert lines(*map(chunk, chunks)) == [("stdout", text) for text in wanted]


def test_streams_are_put_together_by_themselves() -> None:
    chunks = [chunk(b"ou"), chunk(b"er", ERR), chunk(b"t\n"), chunk(b"r\n", ERR), chunk(b"other\n", step="b")]
    assert lines(*chunks) == [("stdout", "out"), ("stderr", "err"), ("stdout", "other")]


def test_a_new_attempt_begins_with_a_new_line() -> None:
    assert lines(chunk(b"first"), chunk(b"second\n", attempt=2)) == [("stdout", "first"), ("stdout", "second")]


def test_a_line_has_the_time_of_its_first_byte() -> None:
    splitter = Splitter()
    splitter.feed([chunk(b"be", second=1)])
    line, after = splitter.feed([chunk(b"gin\nnext\n", second=2)])
    assert (line.text, line.time) == ("begin", datetime.fromtimestamp(1, UTC))
    assert (after.text, after.time) == ("next", datetime.fromtimestamp(2, UTC))
    assert (line.step, line.stream, line.attempt, str(line)) == ("a", "stdout", 1, "begin")


def test_however_it_is_cut_it_gives_the_same_lines() -> None:
    chance = random.Random(1)
    for _ in range(300):
        text = bytes(chance.choice(b"ab\n\r\xe2\x82\xac\xff\x00") for _ in range(chance.randrange(40)))
        cuts = sorted(chance.randrange(len(text) + 1) for _ in range(chance.randrange(6)))
        pieces = [text[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        wanted = [part.decode("utf-8", "replace") for part in text.split(b"\n")]
        if wanted[-1] == "" and (not text or text.endswith(b"\n")):
            wanted.pop()
        assert [line for _, line in lines(*map(chunk, pieces))] == wanted


def total(data: bytes, stream: pb.LogStream = OUT) -> pb.LogStreamTotal:
    return pb.LogStreamTotal(step="a", stream=stream, bytes=str(len(data)), sha256=hashlib.sha256(data).digest())


def answer(chunks: list[pb.LogChunk], state: pb.LogState, *totals: pb.LogStreamTotal) -> pb.TailLogsResponse:
    return pb.TailLogsResponse(
        chunks=chunks,
        cursor=pb.LogCursor(attempt=1, offset="7"),
        completeness=pb.LogCompleteness(state=state, streams=list(totals), message="two bytes are missing"),
    )


def test_a_tail_goes_on_after_what_it_has_taken() -> None:
    tail = Tail("job_1", {"tail": 5}, follow=True)
    assert tail.request.begin is not None
    tail.take(answer([chunk(b"x")], pb.LogState.UNSPECIFIED))
    assert not tail.over
    assert tail.request.begin is None
    assert tail.request.cursor == pb.LogCursor(attempt=1, offset="7")


@pytest.mark.parametrize(
    ("written", "read", "damaged"),
    [(b"abc", [b"a", b"bc"], False), (b"abc", [b"ab"], True), (b"abc", [b"abd"], True), (b"", [], False)],
)
def test_a_complete_log_is_compared_with_what_was_written(written: bytes, read: list[bytes], damaged: bool) -> None:
    tail = Tail("job_1", {}, follow=False)
    tail.take(answer([chunk(piece) for piece in read], pb.LogState.COMPLETE, total(written), total(b"", ERR)))
    assert tail.over
    error = tail.damage()
    assert (error is not None) == damaged
    if error is not None:
        assert error.code == "data_loss"
        assert "job_1" in str(error)


def test_a_part_of_a_log_is_not_compared() -> None:
    tail = Tail("job_1", {"stream": "stdout"}, follow=False)
    tail.take(answer([], pb.LogState.COMPLETE, total(b"abc", ERR)))
    assert tail.damage() is None


def test_a_gap_is_told() -> None:
    tail = Tail("job_1", {}, follow=False)
    tail.take(answer([], pb.LogState.GAP))
    assert tail.over
    assert tail.gap == "two bytes are missing"


def test_options_that_make_no_sense() -> None:
    with pytest.raises(hodei.InvalidArgument, match="stdout"):
        Tail("job_1", {"stream": "out"}, follow=False)  # type: ignore[typeddict-item]
    with pytest.raises(hodei.InvalidArgument, match="tail and since"):
        Tail("job_1", {"tail": 1, "since": datetime.now(UTC)}, follow=False)
