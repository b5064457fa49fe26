package agent

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
)

const (
	stdout = hwpv1.LogStream_LOG_STREAM_STDOUT
	stderr = hwpv1.LogStream_LOG_STREAM_STDERR
)

func testSpool(dir string, limit int64) spoolConfig {
	return spoolConfig{dir: dir, limit: limit, flying: new(atomic.Int64), ready: func() {}}
}

// receiver takes pieces as the server does: each byte once, by offset.
type receiver struct{ data []byte }

func (r *receiver) take(t *rapid.T, s *spool, limit int) bool {
	piece, offset, _ := s.next(limit)
	if piece == nil {
		return false
	}
	if offset > uint64(len(r.data)) {
		t.Fatalf("a piece begins at %d and only %d bytes came before", offset, len(r.data))
	}
	if end := offset + uint64(len(piece.data)); end > uint64(len(r.data)) {
		r.data = append(r.data, piece.data[uint64(len(r.data))-offset:]...)
	}
	return true
}

// Whatever is written, sent, acknowledged, sent again after a new session or after a restart of the agent: the server gets
// every byte, in order.
func TestSpoolLosesNothing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "spool")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		open := func() *spool {
			s, err := openSpool(testSpool(filepath.Join(dir, "s"), 1<<30))
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		s := open()
		var written []byte
		streams := make(totals)
		var server receiver
		var durable uint64
		for range rapid.IntRange(1, 60).Draw(t, "length") {
			switch rapid.IntRange(0, 5).Draw(t, "event") {
			case 0, 1:
				piece := rapid.SliceOfN(rapid.Byte(), 1, 50).Draw(t, "piece")
				if rapid.IntRange(0, 20).Draw(t, "large") == 0 {
					piece = bytes.Repeat(piece, 1<<17/len(piece))
				}
				stream := rapid.SampledFrom([]hwpv1.LogStream{stdout, stderr}).Draw(t, "stream")
				step := rapid.Int32Range(0, 2).Draw(t, "step")
				if err := s.write(step, stream, piece); err != nil {
					t.Fatal(err)
				}
				written = append(written, piece...)
				streams.add(record{key: streamKey{step, stream}, data: piece})
			case 2:
				server.take(t, s, rapid.IntRange(1, 100).Draw(t, "limit"))
			case 3:
				durable = uint64(rapid.IntRange(int(durable), len(server.data)).Draw(t, "durable"))
				s.acknowledge(durable)
			case 4: // a new session: what was not durable on the server is gone there
				server.data = server.data[:durable]
				s.resume(durable)
			case 5: // the agent was restarted
				s = open()
				server.data = server.data[:durable]
				s.resume(durable)
			}
		}
		if flying := s.flying.Load(); flying != int64(s.sent-min(s.acked, s.sent)) {
			t.Fatalf("%d bytes count as under way, and %d are", flying, s.sent-s.acked)
		}
		s.close("")
		for server.take(t, s, 1000) {
		}
		if !bytes.Equal(server.data, written) {
			t.Fatalf("%d bytes were written and %d arrived, or they differ", len(written), len(server.data))
		}
		end := s.logEnd()
		if end.GetTotalBytes() != uint64(len(written)) {
			t.Fatalf("the end says %d bytes of %d", end.GetTotalBytes(), len(written))
		}
		if got, want := (&hwpv1.LogEnd{Streams: end.GetStreams()}), (&hwpv1.LogEnd{Streams: streams.toProto()}); !proto.Equal(got, want) {
			t.Fatalf("the streams are %v, want %v", got, want)
		}
	})
}

func TestSpoolProvesWhatEachStreamWrote(t *testing.T) {
	t.Parallel()
	s, err := openSpool(testSpool(filepath.Join(t.TempDir(), "s"), 1<<30))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"one\n", "two\n"} {
		if err := s.write(0, stdout, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if err := s.write(0, stderr, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if s.logEnd() != nil {
		t.Error("there is an end before the process has ended")
	}
	s.close("a reason")
	s.close("") // the agent ends attempts of its former life as it ends others
	if s.logEnd() != nil {
		t.Error("there is an end before everything was sent")
	}
	for piece, _, _ := s.next(100); piece != nil; piece, _, _ = s.next(100) {
	}
	want := sha256.Sum256([]byte("one\ntwo\n"))
	end := s.logEnd()
	if end.GetTotalBytes() != 10 || len(end.GetStreams()) != 2 || !bytes.Equal(end.GetStreams()[0].GetSha256(), want[:]) || end.GetMissing() != "a reason" {
		t.Errorf("the end is %v", end)
	}
}

func TestSpoolDeletesWhatTheServerHas(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "s")
	s, err := openSpool(testSpool(dir, 1<<30))
	if err != nil {
		t.Fatal(err)
	}
	chunk := make([]byte, 1<<20)
	for range 40 {
		if err := s.write(0, stdout, chunk); err != nil {
			t.Fatal(err)
		}
	}
	count := func() int {
		names, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	if n := count(); n != 5 {
		t.Errorf("40 MiB are in %d files", n)
	}
	s.acknowledge(40 << 20)
	if n := count(); n != 1 {
		t.Errorf("after everything was acknowledged there are %d files", n)
	}
	s.drop()
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("a dropped spool is still there: %v", err)
	}
}

func TestFullSpoolHoldsTheProcessAndLosesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s, err := openSpool(testSpool(filepath.Join(dir, "s"), 100))
		if err != nil {
			t.Fatal(err)
		}
		wrote := make(chan error, 2)
		go func() {
			wrote <- s.write(0, stdout, make([]byte, 80))
			wrote <- s.write(0, stdout, make([]byte, 80))
		}()
		if err := <-wrote; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		select {
		case err := <-wrote:
			t.Fatalf("a write into a full spool returned: %v", err)
		default:
		}
		s.acknowledge(80)
		if err := <-wrote; err != nil {
			t.Fatal(err)
		}
		go func() { wrote <- s.write(0, stdout, make([]byte, 80)) }()
		synctest.Wait()
		s.drop()
		if err := <-wrote; !errors.Is(err, errDropped) {
			t.Errorf("a write into a dropped spool gave %v", err)
		}
	})
}

func TestTornSpoolIsATruePrefix(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := openSpool(testSpool(dir, 1<<30))
	if err != nil {
		t.Fatal(err)
	}
	want := "first second third "
	for _, text := range []string{"first ", "second ", "third "} {
		if err := s.write(0, stdout, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "0.log")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range data {
		if err := os.WriteFile(file, data[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := openSpool(testSpool(dir, 1<<30))
		if err != nil {
			t.Fatal(err)
		}
		piece, _, _ := s.next(1000)
		got := ""
		if piece != nil {
			got = string(piece.data)
		}
		if len(got) > len(want) || want[:len(got)] != got {
			t.Fatalf("cut at %d: %q", cut, got)
		}
	}
}

// When the machine ends, what it had not written to its disk is gone, from the middle of the output too: what is left is a prefix.
func TestSpoolWithAHoleIsATruePrefix(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := openSpool(testSpool(dir, 1<<30))
	if err != nil {
		t.Fatal(err)
	}
	var want []byte
	for i := range 3 * segmentBytes / (1 << 20) {
		piece := bytes.Repeat([]byte{byte(i)}, 1<<20-recordHeader)
		if err := s.write(0, stdout, piece); err != nil {
			t.Fatal(err)
		}
		want = append(want, piece...)
	}
	second := segmentPath(dir, s.segments[1].start)
	if err := os.Truncate(second, segmentBytes/2); err != nil {
		t.Fatal(err)
	}
	if s, err = openSpool(testSpool(dir, 1<<30)); err != nil {
		t.Fatal(err)
	}
	var got []byte
	for piece, offset, _ := s.next(1 << 20); piece != nil; piece, offset, _ = s.next(1 << 20) {
		if offset != uint64(len(got)) {
			t.Fatalf("a piece lies at %d, after %d bytes", offset, len(got))
		}
		got = append(got, piece.data...)
	}
	if len(got) <= segmentBytes || len(got) >= 2*segmentBytes || !bytes.HasPrefix(want, got) || s.written() != uint64(len(got)) {
		t.Errorf("%d bytes are left of %d, the spool says %d, or they are others", len(got), len(want), s.written())
	}
	if err := s.write(0, stdout, []byte("goes on")); err != nil {
		t.Fatal(err)
	}
	if piece, offset, _ := s.next(100); string(piece.data) != "goes on" || offset != uint64(len(got)) {
		t.Errorf("after it comes %q at %d", piece.data, offset)
	}
}

func FuzzTotals(f *testing.F) {
	known := make(totals)
	known.add(record{key: streamKey{3, stderr}, data: []byte("x")})
	f.Add(known.encode())
	f.Add([]byte{0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		got := make(totals)
		if !got.restore(b) {
			return
		}
		again := make(totals)
		if !again.restore(got.encode()) || !proto.Equal(&hwpv1.LogEnd{Streams: got.toProto()}, &hwpv1.LogEnd{Streams: again.toProto()}) {
			t.Errorf("%x became %v and then %v", b, got.toProto(), again.toProto())
		}
	})
}
