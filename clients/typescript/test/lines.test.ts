import assert from "node:assert/strict";
import { test } from "node:test";

import { LineSplitter, type LogChunk, type StreamName } from "../src/lines.js";

const time = new Date(1000);

function chunk(data: Uint8Array | string, stream: StreamName = "stdout", step = "s", attempt = 1): LogChunk {
  const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
  return { data: bytes, time, step, stream, attempt, offset: 0 };
}

function linesOf(chunks: LogChunk[]): string[] {
  const splitter = new LineSplitter();
  const lines = chunks.flatMap((one) => splitter.add(one));
  return [...lines, ...splitter.flush()].map(String);
}

test("a line ends with a newline, and the last one may have none", () => {
  assert.deepEqual(linesOf([chunk("a\nb\n\nc")]), ["a", "b", "", "c"]);
  assert.deepEqual(linesOf([chunk("a\r\n"), chunk("\n")]), ["a\r", ""]);
  assert.deepEqual(linesOf([]), []);
  assert.deepEqual(linesOf([chunk("")]), []);
});

test("streams and steps are put together by themselves", () => {
  const chunks = [chunk("o1 "), chunk("e1 ", "stderr"), chunk("other ", "stdout", "t"), chunk("o2\n"), chunk("e2\n", "stderr")];
  assert.deepEqual(linesOf(chunks), ["o1 o2", "e1 e2", "other "]);
});

test("an attempt ends the lines of the one before", () => {
  assert.deepEqual(linesOf([chunk("first"), chunk("second\n", "stdout", "s", 2)]), ["first", "second"]);
});

test("a line has the time of its first byte", () => {
  const splitter = new LineSplitter();
  splitter.add({ ...chunk("a"), time: new Date(1) });
  const lines = splitter.add({ ...chunk("b\nc\n"), time: new Date(2) });
  assert.deepEqual(lines.map((line) => [line.text, line.time.getTime()]), [["ab", 1], ["c", 2]]);
});

test("what is not UTF-8 is replaced, and a byte order mark stays", () => {
  assert.deepEqual(linesOf([chunk(new Uint8Array([0xff, 0xfe, 0x61, 10, 0x80]))]), ["\ufffd\ufffda", "\ufffd"]);
  assert.deepEqual(linesOf([chunk("\ufeffa\n\ufeffb\n")]), ["\ufeffa", "\ufeffb"]);
});

test("however the bytes are cut, the lines are the same", () => {
  const bytes = new Uint8Array(600);
  for (let round = 0; round < 200; round++) {
    const text = Array.from({ length: 60 }, () => ["€", "🚀", "\n", "a", "é", "汉"][Math.floor(Math.random() * 6)]).join("");
    const encoded = new TextEncoder().encodeInto(text, bytes);
    const whole = bytes.slice(0, encoded.written);
    if (round % 2) whole[Math.floor(Math.random() * whole.length)] = 0xff;
    const chunks: LogChunk[] = [];
    for (let at = 0; at < whole.length; ) {
      const end = at + 1 + Math.floor(Math.random() * 7);
      chunks.push(chunk(whole.slice(at, end)));
      at = end;
    }
    assert.deepEqual(linesOf(chunks), linesOf([chunk(whole)]));
  }
});
