package framing

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"pgregory.net/rapid"
)

// header are fields that the encoder cannot shorten to less than n bytes.
func header(n int) []hpack.HeaderField {
	return []hpack.HeaderField{
		{Name: ":status", Value: "200"}, {Name: "large", Value: strings.Repeat("\xff", n)}, {Name: "last", Value: "x"},
	}
}

// putHeader puts a header as those do who use Out.
func (w *way) putHeader(id uint32, end bool, fields []hpack.HeaderField) {
	for _, f := range fields {
		w.Field(f.Name, f.Value)
	}
	w.EndHeader(id, end)
}

// A header that is larger than a frame is continued in others, and the peer makes one of them again.
func TestLargeHeadersAreDivided(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		peer func(block int) int // the peer's largest frame
		size int                 // of the header
		want func(block int) []int
	}{
		{"small", func(int) int { return InitialFrame }, 10, func(block int) []int { return []int{block} }},
		{"as large as a frame", func(block int) int { return block }, 1000, func(block int) []int { return []int{block} }},
		{"a byte more", func(block int) int { return block - 1 }, 1000, func(block int) []int { return []int{block - 1, 1} }},
		{"two frames", func(block int) int { return (block + 1) / 2 }, 1000, func(block int) []int {
			return []int{(block + 1) / 2, block / 2}
		}},
		{"three frames", func(int) int { return InitialFrame }, 40 << 10, func(block int) []int {
			return []int{InitialFrame, InitialFrame, block - 2*InitialFrame}
		}},
		{"frames larger than any that is sent", func(int) int { return MaxFrame }, 20 << 10, func(block int) []int {
			return []int{FrameSize, block - FrameSize}
		}},
	} {
		for _, end := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, end %t", c.name, end), func(t *testing.T) {
				t.Parallel()
				w := newWay(t, 0)
				fields := header(c.size)
				w.locked(func() {
					for _, f := range fields {
						w.Field(f.Name, f.Value)
					}
					block := w.block.Len()
					w.PeerFrame = c.peer(block)
					w.EndHeader(5, end)
					w.Flush()
					checkHeaderFrames(t, &w.conn, end, c.want(block))
				})
				w.locked(func() { // again, to see that nothing of the first is left
					w.putHeader(5, end, fields)
					w.Flush()
				})
				checkFields(t, &w.conn, hpack.NewDecoder(4096, nil), fields, fields)
			})
		}
	}
}

// checkHeaderFrames looks at the frames of one header, and leaves them to be read again.
func checkHeaderFrames(t *testing.T, r *recorder, end bool, sizes []int) {
	t.Helper()
	whole := r.rest
	frames, err := r.frames()
	if err != nil {
		t.Fatal(err)
	}
	r.rest = whole
	var got []int
	for i, f := range frames {
		got = append(got, int(f.Length))
		kind, flags := http2.FrameContinuation, http2.Flags(0)
		if i == 0 {
			kind, flags = http2.FrameHeaders, endFlag(end)
		}
		if i == len(sizes)-1 {
			flags |= http2.FlagHeadersEndHeaders
		}
		if f.Type != kind || f.Flags != flags || f.StreamID != 5 {
			t.Errorf("frame %d is %v, want %v with flags %b", i, f.FrameHeader, kind, flags)
		}
	}
	if !slices.Equal(got, sizes) {
		t.Fatalf("the frames have %d bytes, want %d", got, sizes)
	}
}

// checkFields reads headers as a peer does.
func checkFields(t *testing.T, r *recorder, decoder *hpack.Decoder, headers ...[]hpack.HeaderField) {
	t.Helper()
	framer := http2.NewFramer(nil, bytes.NewReader(r.rest))
	framer.ReadMetaHeaders = decoder
	framer.SetMaxReadFrameSize(FrameSize)
	for _, want := range headers {
		frame, err := framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if f, ok := frame.(*http2.MetaHeadersFrame); !ok || !slices.Equal(f.Fields, want) {
			t.Fatalf("read %v, want %v", frame, want)
		}
	}
	if frame, err := framer.ReadFrame(); !errors.Is(err, io.EOF) {
		t.Fatalf("there is more: %v, %v", frame, err)
	}
	r.rest = nil
}

// Trailers may have no field at all.
func TestAHeaderWithoutFieldsIsAFrame(t *testing.T) {
	t.Parallel()
	w := newWay(t, 0)
	w.locked(func() {
		w.EndHeader(5, true)
		w.Flush()
	})
	checkHeaderFrames(t, &w.conn, true, []int{0})
}

// Whatever the peer allows the encoder to remember, it understands all headers, and the encoder remembers no more than this
// side wants.
func TestTheEncodersMemoryIsBounded(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := newWay(nil, 0)
		decoder := hpack.NewDecoder(4096, nil)
		decoder.SetAllowedMaxDynamicTableSize(1 << 16) // the largest that this peer will have announced
		limit := rapid.Uint32Range(0, 8192).Draw(t, "limit")
		w.mu.Lock()
		defer w.mu.Unlock()
		w.LimitTable(limit)
		table := min(limit, 4096) // which is what a peer allows that says nothing
		var headers [][]hpack.HeaderField
		for range rapid.IntRange(0, 20).Draw(t, "length") {
			if rapid.Bool().Draw(t, "change") {
				allowed := rapid.SampledFrom([]uint32{0, 100, 4096, 1 << 16}).Draw(t, "table")
				w.SetTable(allowed)
				table = min(limit, allowed)
			}
			var fields []hpack.HeaderField
			for range rapid.IntRange(0, 5).Draw(t, "fields") {
				fields = append(fields, hpack.HeaderField{
					Name: rapid.StringMatching(`[a-e]{1,3}`).Draw(t, "name"), Value: rapid.StringN(0, 40, 100).Draw(t, "value"),
				})
			}
			fields = append([]hpack.HeaderField{{Name: ":status", Value: "200"}}, fields...)
			headers = append(headers, fields)
			w.putHeader(1, false, fields)
			if n := w.encoder.MaxDynamicTableSize(); n != table {
				t.Fatalf("the encoder remembers %d bytes, want %d", n, table)
			}
		}
		w.Flush()
		framer := http2.NewFramer(nil, bytes.NewReader(w.conn.rest))
		for i, want := range headers {
			frame, err := framer.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			f, ok := frame.(*http2.HeadersFrame)
			if !ok {
				t.Fatalf("header %d is %v", i, frame)
			}
			if got, err := decoder.DecodeFull(f.HeaderBlockFragment()); err != nil || !slices.Equal(got, want) {
				t.Fatalf("header %d is %v, %v, want %v", i, got, err, want)
			}
		}
	})
}

// Frames are as the framer of others would have written them.
func TestFramesAreAsOthersWriteThem(t *testing.T) {
	t.Parallel()
	var want bytes.Buffer
	framer := http2.NewFramer(&want, nil)
	framer.AllowIllegalWrites = true
	w := newWay(t, 0)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range []int{0, 1, 255, 256, FrameSize, 1 << 16, 1<<17 + 3} {
		for _, id := range []uint32{0, 1, 1 << 8, MaxStreamID} {
			_ = framer.WriteRawFrame(http2.FrameData, http2.FlagDataEndStream, id, pattern(n, n))
			w.PutFrame(http2.FrameData, endFlag(true), id, pattern(n, n))
		}
	}
	_ = framer.WritePing(true, [8]byte{1, 2, 3})
	_ = w.Control.WritePing(true, [8]byte{1, 2, 3})
	want.WriteString("as it is")
	w.Put([]byte("as it is"))
	w.Flush()
	if !bytes.Equal(w.conn.rest, want.Bytes()) {
		t.Fatal("the bytes differ")
	}
}

// A peer that asks and does not read is found out by how many answers wait. What was written does not count, nor do data.
func TestAnswersThatWaitAreCounted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWay(t, 0)
		ping := func(times int) {
			for range times {
				_ = w.Control.WritePing(true, [8]byte{})
			}
		}
		overrun := func(want bool) {
			t.Helper()
			w.locked(func() { must(t, "overrun", w.Overrun(), want) })
		}
		w.conn.hold()
		w.locked(func() { ping(ControlBacklog); w.FlushAside() })
		overrun(false)
		w.said() // they are being written now
		w.locked(func() { ping(ControlBacklog) })
		overrun(false)
		w.locked(func() {
			w.PutFrame(http2.FrameData, 0, 1, []byte("x"))
			w.putHeader(1, false, header(10))
		})
		overrun(false)
		w.locked(func() { ping(1) })
		overrun(true)
		w.conn.open()
		if n := len(w.said()); n != 2*ControlBacklog+3 {
			t.Fatalf("%d frames were written", n)
		}
		overrun(false)
	})
}
