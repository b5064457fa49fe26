package wiretest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Speaker is an end that speaks frame by frame, and may say what nobody should. It is for one goroutine, in a synctest bubble.
type Speaker struct {
	*End
	// Frames writes frames to the other end, right or wrong ones.
	Frames *http2.Framer

	t       *testing.T
	block   bytes.Buffer
	encoder *hpack.Encoder
	decoder *hpack.Decoder
	rest    []byte // of a frame that has not come wholly
}

// NewSpeaker returns a speaker at an end.
func NewSpeaker(t *testing.T, end *End) *Speaker {
	t.Helper()
	s := &Speaker{End: end, Frames: http2.NewFramer(end, nil), t: t, decoder: hpack.NewDecoder(4096, nil)}
	s.Frames.AllowIllegalWrites = true
	s.encoder = hpack.NewEncoder(&s.block)
	return s
}

// Must ends the test if err is one.
func (s *Speaker) Must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// Say writes bytes as they are.
func (s *Speaker) Say(b []byte) {
	s.t.Helper()
	_, err := s.Write(b)
	s.Must(err)
}

// Encode returns a block of headers, given as names and values in turn. It is good until the next.
func (s *Speaker) Encode(fields ...string) []byte {
	s.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		s.Must(s.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	return s.block.Bytes()
}

// Headers sends a header.
func (s *Speaker) Headers(id uint32, end bool, fields ...string) {
	s.t.Helper()
	s.Must(s.TryHeaders(id, end, fields...))
}

// TryHeaders sends a header, or says why it could not.
func (s *Speaker) TryHeaders(id uint32, end bool, fields ...string) error {
	return s.Frames.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: s.Encode(fields...), EndHeaders: true, EndStream: end,
	})
}

// Data sends data of a stream.
func (s *Speaker) Data(id uint32, end bool, data string) {
	s.t.Helper()
	s.Must(s.Frames.WriteData(id, end, []byte(data)))
}

// HeardPreface says that the other end has begun as a client, and takes what it has begun with.
func (s *Speaker) HeardPreface() bool {
	s.t.Helper()
	synctest.Wait()
	more, _ := s.takeAll()
	var ok bool
	s.rest, ok = bytes.CutPrefix(append(s.rest, more...), []byte(http2.ClientPreface))
	return ok
}

// Heard is what the other end has said until nothing happens any more, a frame in words each.
func (s *Speaker) Heard() []string {
	s.t.Helper()
	synctest.Wait()
	var said []string
	for {
		more, ended := s.takeAll()
		s.rest = append(s.rest, more...)
		said = append(said, s.describeAll()...)
		if len(more) == 0 {
			if ended {
				said = append(said, "EOF")
			}
			return said
		}
		synctest.Wait() // there may have been no room for all of it
	}
}

func (s *Speaker) describeAll() []string {
	var said []string
	for {
		in := bytes.NewReader(s.rest)
		framer := http2.NewFramer(nil, in)
		framer.AllowIllegalReads = true // each is looked at alone
		f, err := framer.ReadFrame()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return said
		}
		s.Must(err)
		s.rest = s.rest[len(s.rest)-in.Len():]
		said = append(said, s.describe(f))
	}
}

// describe is a frame in words. Date is left out, because every answer has it.
func (s *Speaker) describe(frame http2.Frame) string {
	h := frame.Header()
	text := fmt.Sprintf("%s %d", h.Type, h.StreamID)
	end := ""
	if h.Flags.Has(http2.FlagDataEndStream) && (h.Type == http2.FrameData || h.Type == http2.FrameHeaders) {
		end = " end"
	}
	switch f := frame.(type) {
	case *http2.HeadersFrame:
		fragment := f.HeaderBlockFragment()
		if !f.HeadersEnded() {
			return fmt.Sprintf("%s %d bytes of a header%s", text, len(fragment), end)
		}
		fields, err := s.decoder.DecodeFull(fragment)
		s.Must(err)
		return text + described(fields) + end
	case *http2.DataFrame:
		if len(f.Data()) > 40 {
			return fmt.Sprintf("%s %d bytes%s", text, len(f.Data()), end)
		}
		return fmt.Sprintf("%s %q%s", text, f.Data(), end)
	case *http2.SettingsFrame:
		if f.IsAck() {
			return "SETTINGS ack"
		}
		return "SETTINGS"
	case *http2.PingFrame:
		if f.IsAck() {
			return fmt.Sprintf("PING ack %s", f.Data)
		}
		return "PING"
	case *http2.WindowUpdateFrame:
		return fmt.Sprintf("%s +%d", text, f.Increment)
	case *http2.RSTStreamFrame:
		return fmt.Sprintf("%s %s", text, f.ErrCode)
	case *http2.GoAwayFrame:
		return fmt.Sprintf("GOAWAY %d %s", f.LastStreamID, f.ErrCode)
	}
	return text
}

func described(fields []hpack.HeaderField) string {
	var words []string
	for _, f := range fields {
		if f.Name != "date" {
			words = append(words, f.Name+"="+f.Value)
		}
	}
	if len(words) > 0 && strings.HasPrefix(words[0], ":") {
		slices.Sort(words[1:]) // a map has no order
	}
	if len(words) == 0 {
		return ""
	}
	return " " + strings.Join(words, " ")
}

// Expect ends the test if the other end has said something else since it was asked last.
func (s *Speaker) Expect(want ...string) {
	s.t.Helper()
	if got := s.Heard(); !slices.Equal(got, want) {
		s.t.Fatalf("the other end said\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}
