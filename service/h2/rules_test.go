package h2

import (
	"fmt"
	"io"
	"net/http"
	"testing"

	"golang.org/x/net/http2"
)

// echoes answers with the body.
func echoes(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", "text/plain")
	_, _ = w.Write(body)
}

// What a peer may say and must not, and what it is told. Afterwards another request must be answered, unless the connection has ended.
func TestRulesOfFrames(t *testing.T) {
	t.Parallel()
	ok := func(id int, body string) []string {
		return []string{
			fmt.Sprintf("HEADERS %d :status=200 content-length=%d content-type=text/plain", id, len(body)),
			fmt.Sprintf("DATA %d %q end", id, body),
		}
	}
	protocol := []string{"GOAWAY 0 PROTOCOL_ERROR", "EOF"}
	cases := []struct {
		name string
		do   func(p *peer)
		want []string
	}{
		{"a request with a body", func(p *peer) { p.Headers(1, false, post()...); p.Data(1, true, "abc") }, ok(1, "abc")},
		{"a body in pieces, one of them empty", func(p *peer) {
			p.Headers(1, false, post("content-length", "3")...)
			p.Data(1, false, "a")
			p.Data(1, false, "")
			p.Data(1, false, "bc")
			p.Data(1, true, "")
		}, ok(1, "abc")},
		{"padding", func(p *peer) {
			p.Headers(1, false, post()...)
			p.Must(p.Frames.WriteDataPadded(1, true, []byte("abc"), make([]byte, 200)))
		}, ok(1, "abc")},
		{"a header in several frames", func(p *peer) {
			block := append([]byte(nil), p.Encode(post("x", "y")...)...)
			p.Must(p.Frames.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:3], EndStream: true}))
			p.Must(p.Frames.WriteContinuation(1, false, block[3:5]))
			p.Must(p.Frames.WriteContinuation(1, true, block[5:]))
		}, []string{"HEADERS 1 :status=200 content-length=0 content-type=text/plain end"}},
		{"data after the end", func(p *peer) {
			p.Headers(1, false, post("hold", "1")...)
			p.Data(1, true, "abc")
			p.Data(1, true, "more")
		}, []string{"RST_STREAM 1 STREAM_CLOSED"}},
		{"more data than declared", func(p *peer) { p.Headers(1, false, post("content-length", "2")...); p.Data(1, false, "abc") }, []string{"RST_STREAM 1 PROTOCOL_ERROR"}},
		{"less data than declared", func(p *peer) { p.Headers(1, false, post("content-length", "4")...); p.Data(1, true, "abc") }, []string{"RST_STREAM 1 PROTOCOL_ERROR"}},
		{"a declared body that does not come", func(p *peer) { p.Headers(1, true, post("content-length", "4")...) }, []string{"RST_STREAM 1 PROTOCOL_ERROR"}},
		{"two lengths", func(p *peer) { p.Headers(1, false, post("content-length", "4", "content-length", "5")...) }, []string{"RST_STREAM 1 PROTOCOL_ERROR"}},
		{"data on no stream", func(p *peer) { p.Data(0, false, "a") }, protocol},
		{"data on a stream that was never opened", func(p *peer) { p.Data(1, false, "a") }, protocol},
		{"a reset of a stream that was never opened", func(p *peer) { p.Must(p.Frames.WriteRSTStream(1, http2.ErrCodeCancel)) }, protocol},
		{"a window for a stream that was never opened", func(p *peer) { p.Must(p.Frames.WriteWindowUpdate(1, 1)) }, protocol},
		{"an even stream", func(p *peer) { p.Headers(2, true, post()...) }, protocol},
		{"a stream below the last", func(p *peer) { p.Headers(5, true, post("hold", "1")...); p.Headers(3, true, post()...) }, []string{"GOAWAY 5 PROTOCOL_ERROR", "EOF"}},
		{"a header on an ended stream", func(p *peer) {
			p.Headers(1, true, post()...)
			p.Heard()
			p.Headers(1, true, post()...)
		}, []string{"GOAWAY 1 STREAM_CLOSED", "EOF"}},
		{"data on an ended stream", func(p *peer) {
			p.Headers(1, true, post()...)
			p.Heard()
			p.Data(1, true, "x")
		}, []string{"RST_STREAM 1 STREAM_CLOSED"}},
		{"trailers that do not end", func(p *peer) { p.Headers(1, false, post()...); p.Headers(1, false, "x", "y") }, []string{"RST_STREAM 1 PROTOCOL_ERROR"}},
		{"trailers with a path", func(p *peer) { p.Headers(1, false, post()...); p.Headers(1, true, ":path", "/") }, []string{"RST_STREAM 1 PROTOCOL_ERROR"}},
		{"no path", func(p *peer) { p.Headers(1, true, ":method", "GET", ":scheme", "https") }, []string{"RST_STREAM 1 PROTOCOL_ERROR"}},
		{"an empty path", func(p *peer) { p.Headers(1, true, ":method", "GET", ":scheme", "https", ":path", "") }, []string{"RST_STREAM 1 PROTOCOL_ERROR"}},
		{"a path that is none", func(p *peer) { p.Headers(1, true, ":method", "GET", ":scheme", "https", ":path", "a") }, []string{"RST_STREAM 1 PROTOCOL_ERROR"}},
		{"two paths", func(p *peer) { p.Headers(1, true, post(":path", "/b")...) }, []string{"RST_STREAM 1 PROTOCOL_ERROR"}},
		{"an unknown field of the request", func(p *peer) { p.Headers(1, true, post(":unknown", "b")...) }, []string{"RST_STREAM 1 PROTOCOL_ERROR"}},
		{"an upper-case name", func(p *peer) { p.Headers(1, true, post("Abc", "b")...) }, []string{"RST_STREAM 1 PROTOCOL_ERROR"}},
		{"a line break in a value", func(p *peer) { p.Headers(1, true, post("abc", "b\r\nc: d")...) }, []string{"RST_STREAM 1 PROTOCOL_ERROR"}},
		{"a header of connections", func(p *peer) { p.Headers(1, true, post("connection", "keep-alive")...) }, []string{"RST_STREAM 1 PROTOCOL_ERROR"}},
		{"chunks", func(p *peer) { p.Headers(1, true, post("transfer-encoding", "chunked")...) }, []string{"RST_STREAM 1 PROTOCOL_ERROR"}},
		{"another te", func(p *peer) { p.Headers(1, true, post("te", "gzip")...) }, []string{"RST_STREAM 1 PROTOCOL_ERROR"}},
		{"another host", func(p *peer) { p.Headers(1, true, post("host", "other.example")...) }, []string{"RST_STREAM 1 PROTOCOL_ERROR"}},
		{"a user in the authority", func(p *peer) {
			p.Headers(1, true, ":method", "GET", ":scheme", "https", ":authority", "a@b", ":path", "/")
		}, []string{"RST_STREAM 1 PROTOCOL_ERROR"}},
		{"extended CONNECT", func(p *peer) { p.Headers(1, true, post(":protocol", "websocket")...) }, []string{"RST_STREAM 1 PROTOCOL_ERROR"}},
		{"CONNECT with a path", func(p *peer) {
			p.Headers(1, true, ":method", "CONNECT", ":authority", "a:1", ":path", "/")
		}, []string{"RST_STREAM 1 PROTOCOL_ERROR"}},
		{"a stream that depends on itself", func(p *peer) {
			p.Must(p.Frames.WriteHeaders(http2.HeadersFrameParam{
				StreamID: 1, BlockFragment: p.Encode(post()...), EndHeaders: true, EndStream: true,
				Priority: http2.PriorityParam{StreamDep: 1, Weight: 1},
			}))
		}, []string{"RST_STREAM 1 PROTOCOL_ERROR"}},
		{"priorities are ignored", func(p *peer) {
			p.Must(p.Frames.WritePriority(7, http2.PriorityParam{StreamDep: 3}))
			p.Headers(1, true, post()...)
		}, []string{"HEADERS 1 :status=200 content-length=0 content-type=text/plain end"}},
		{"what is unknown is ignored", func(p *peer) {
			p.Must(p.Frames.WriteRawFrame(0x77, 0xff, 9, []byte("what?")))
		}, nil},
		{"a promise", func(p *peer) {
			p.Must(p.Frames.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, BlockFragment: []byte{0x82}, EndHeaders: true}))
		}, protocol},
		{"a ping", func(p *peer) { p.Must(p.Frames.WritePing(false, [8]byte{'1', '2', '3', '4', '5', '6', '7', '8'})) }, []string{"PING ack 12345678"}},
		{"an answer to no ping", func(p *peer) { p.Must(p.Frames.WritePing(true, [8]byte{})) }, nil},
		{"a ping on a stream", func(p *peer) { p.Must(p.Frames.WriteRawFrame(http2.FramePing, 0, 1, make([]byte, 8))) }, protocol},
		{"a short ping", func(p *peer) { p.Must(p.Frames.WriteRawFrame(http2.FramePing, 0, 0, make([]byte, 7))) }, []string{"GOAWAY 0 FRAME_SIZE_ERROR", "EOF"}},
		{"settings", func(p *peer) { p.Must(p.Frames.WriteSettings(http2.Setting{ID: 99, Val: 1})) }, []string{"SETTINGS ack"}},
		{"an answer to no settings", func(p *peer) { p.Must(p.Frames.WriteSettingsAck()) }, protocol},
		{"a setting out of range", func(p *peer) {
			p.Must(p.Frames.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1}))
		}, protocol},
		{"a window out of range", func(p *peer) {
			p.Must(p.Frames.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31}))
		}, []string{"GOAWAY 0 FLOW_CONTROL_ERROR", "EOF"}},
		{"a window of nothing", func(p *peer) { p.Must(p.Frames.WriteRawFrame(http2.FrameWindowUpdate, 0, 0, make([]byte, 4))) }, protocol},
		{"a window of nothing for a stream", func(p *peer) {
			p.Headers(1, false, post()...)
			p.Must(p.Frames.WriteRawFrame(http2.FrameWindowUpdate, 0, 1, make([]byte, 4)))
		}, []string{"RST_STREAM 1 PROTOCOL_ERROR"}},
		{"too large a window", func(p *peer) { p.Must(p.Frames.WriteWindowUpdate(0, 1<<31-1)) }, []string{"GOAWAY 0 FLOW_CONTROL_ERROR", "EOF"}},
		{"too large a window for a stream", func(p *peer) {
			p.Headers(1, false, post()...)
			p.Must(p.Frames.WriteWindowUpdate(1, 1<<31-1))
		}, []string{"RST_STREAM 1 FLOW_CONTROL_ERROR"}},
		{"too large a frame", func(p *peer) {
			p.Must(p.Frames.WriteRawFrame(0x77, 0, 0, make([]byte, 64<<10+1)))
		}, []string{"GOAWAY 0 FRAME_SIZE_ERROR", "EOF"}},
		{"a frame within a header", func(p *peer) {
			p.Must(p.Frames.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.Encode(post()...)}))
			p.Must(p.Frames.WritePing(false, [8]byte{}))
		}, protocol},
		{"a continuation of nothing", func(p *peer) { p.Must(p.Frames.WriteContinuation(1, true, nil)) }, protocol},
		{"a header that cannot be decoded", func(p *peer) {
			p.Must(p.Frames.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0x0f}, EndHeaders: true}))
		}, []string{"GOAWAY 0 COMPRESSION_ERROR", "EOF"}},
		{"padding longer than the frame", func(p *peer) {
			p.Headers(1, false, post()...)
			p.Must(p.Frames.WriteRawFrame(http2.FrameData, http2.FlagDataPadded, 1, []byte{9, 1}))
		}, []string{"GOAWAY 1 PROTOCOL_ERROR", "EOF"}},
		{"padding without its length", func(p *peer) {
			p.Headers(1, false, post()...)
			p.Must(p.Frames.WriteRawFrame(http2.FrameData, http2.FlagDataPadded, 1, nil))
		}, []string{"GOAWAY 1 PROTOCOL_ERROR", "EOF"}},
		{"padding of a header longer than the frame", func(p *peer) {
			p.Must(p.Frames.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersPadded|http2.FlagHeadersEndHeaders, 1, []byte{9, 0x82}))
		}, protocol},
		{"the peer leaves", func(p *peer) {
			p.Must(p.Frames.WriteGoAway(0, http2.ErrCodeNo, nil))
		}, []string{"GOAWAY 2147483647 NO_ERROR", "PING"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				release := make(chan struct{})
				p := dial(t, func(w http.ResponseWriter, r *http.Request) {
					if r.Header.Get("Hold") != "" {
						<-release
					}
					echoes(w, r)
				})
				c.do(p)
				p.Expect(c.want...)
				close(release)
				if n := len(c.want); n > 0 && c.want[n-1] == "EOF" {
					return
				}
				p.Heard()
				p.Headers(101, true, post()...)
				p.Expect("HEADERS 101 :status=200 content-length=0 content-type=text/plain end")
			})
		})
	}
}
