package h2

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/hodei-jobs/hodei/proto/framing/wiretest"
)

// Whatever comes after the greeting, the server neither panics nor hangs, and nothing of the connection is left.
func FuzzFrames(f *testing.F) {
	var block bytes.Buffer
	frames := http2.NewFramer(&block, nil)
	for _, write := range []func() error{
		func() error { return frames.WriteSettings(window(10)) },
		func() error {
			return frames.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x83, 0x87, 0x84}, EndHeaders: true})
		},
		func() error { return frames.WriteData(1, false, []byte("some data")) },
		func() error { return frames.WriteWindowUpdate(1, 100) },
		func() error { return frames.WriteDataPadded(1, true, []byte("more"), make([]byte, 9)) },
		func() error {
			return frames.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: []byte{0x82, 0x87, 0x84}, EndHeaders: true, EndStream: true})
		},
		func() error { return frames.WriteRSTStream(3, http2.ErrCodeCancel) },
		func() error { return frames.WritePing(false, [8]byte{}) },
		func() error { return frames.WriteGoAway(0, http2.ErrCodeNo, nil) },
	} {
		if err := write(); err != nil {
			f.Fatal(err)
		}
		f.Add(append([]byte(nil), block.Bytes()...))
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		synctest.Test(t, func(t *testing.T) {
			near, far := wiretest.New(len(said)+100, 1000)
			srv := newServer(testServer(nil))
			c := newConn(context.Background(), srv, &srv.limits, near, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(w, r.Body)
				_, _ = w.Write(make([]byte, 5000))
			}))
			done := make(chan struct{})
			go func() { defer close(done); srv.serve(c) }()
			go func() { _, _ = io.Copy(io.Discard, far) }()
			_, _ = far.Write([]byte(http2.ClientPreface))
			_, _ = far.Write(said)
			time.Sleep(time.Hour) // longer than all limits, but for a peer that answers
			_ = far.Close()
			<-done
			time.Sleep(5 * idleTime)
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.running != 0 || len(c.streams) != 0 || !c.out.Empty() {
				t.Fatalf("left over: %d handlers, %d streams", c.running, len(c.streams))
			}
		})
	})
}
