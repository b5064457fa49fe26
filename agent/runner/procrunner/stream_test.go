//go:build linux

package procrunner

import (
	"io"
	"os"
	"testing"
	"time"
)

// The first output after a pause does not wait for more; what follows it too soon waits for the time, a full buffer or the end.
func TestGather(t *testing.T) {
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s := &stream{from: from}
	defer from.Close()
	buffer := make([]byte, 4)
	write := func(text string) {
		if _, err := to.WriteString(text); err != nil {
			t.Error(err)
		}
	}
	expect := func(until time.Time, want string, wantErr error) {
		t.Helper()
		if n, err := s.gather(buffer, until); string(buffer[:n]) != want || err != wantErr { //nolint:errorlint // os.File wraps no EOF
			t.Errorf("%q and %v, want %q and %v", buffer[:n], err, want, wantErr)
		}
	}
	write("a")
	expect(time.Time{}, "a", nil)
	go func() {
		for range 9 {
			write("b")
		}
		_ = to.Close()
	}()
	expect(time.Now().Add(time.Hour), "bbbb", nil)
	expect(time.Now().Add(time.Hour), "bbbb", nil)
	expect(time.Now().Add(time.Hour), "b", io.EOF)
}

func TestGatherWaitsNoLongerThanTheTime(t *testing.T) {
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	defer to.Close()
	s := &stream{from: from}
	for range 100 {
		if _, err := to.WriteString("a"); err != nil {
			t.Fatal(err)
		}
		buffer := make([]byte, 4)
		if n, err := s.gather(buffer, time.Now().Add(time.Millisecond)); n != 1 || err != nil {
			t.Fatalf("%d bytes and %v, want 1 when the time has passed", n, err)
		}
	}
}
