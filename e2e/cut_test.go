package e2e

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// proxy passes connections on to a server and cuts all of them off whenever it is told to.
type proxy struct {
	listener net.Listener
	target   string
	mu       sync.Mutex
	open     map[net.Conn]bool
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener, target: target, open: make(map[net.Conn]bool)}
	t.Cleanup(func() {
		_ = listener.Close()
		p.cut()
	})
	go func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			go p.pass(in)
		}
	}()
	return p
}

func (p *proxy) pass(in net.Conn) {
	out, err := net.Dial("tcp", p.target)
	if err != nil {
		_ = in.Close()
		return
	}
	p.mu.Lock()
	p.open[in], p.open[out] = true, true
	p.mu.Unlock()
	go func() {
		_, _ = io.Copy(out, in)
		_ = out.Close()
	}()
	_, _ = io.Copy(in, out)
	_ = in.Close()
}

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // a reset, not an orderly end
		}
		_ = c.Close()
		delete(p.open, c)
	}
}

// The agent and the reader are cut off again and again while jobs write; nothing is lost, doubled or out of order.
// SEED repeats a run.
func TestConnectionsCutWhileJobsWrite(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(seed(t), 0))
	w := newWorld(t)
	direct := w.url
	p := newProxy(t, strings.TrimPrefix(w.url, "https://"))
	w.url = "https://" + p.listener.Addr().String()
	w.agent("w1")
	const jobs, lines = 10, 200
	var runs []*daemon
	// Each line has its number and a checksum, so that whatever is lost, doubled, moved or changed is seen.
	script := fmt.Sprintf(`line() { printf '%%s %%s %%s\n' $1 $2 $(printf '%%s %%s' $1 $2 | cksum | cut -d' ' -f1); }
		for i in $(seq %d); do line out $i; line err $i >&2; sleep 0.01; done; exit 3`, lines)
	for range jobs {
		runs = append(runs, startDaemon(t, w.env(), "hodei", "run", "--max-attempts", "1", "--", "sh", "-c", script))
	}
	await(t, "all jobs", func() bool {
		for _, r := range runs {
			if !strings.Contains(r.output.String(), "out 1 ") {
				return false
			}
		}
		return true
	})
	for ended := false; !ended; {
		<-time.After(time.Duration(100+random.IntN(1900)) * time.Millisecond)
		p.cut()
		ended = true
		for _, r := range runs {
			select {
			case <-r.exited:
			default:
				ended = false
			}
		}
	}
	for i, r := range runs {
		if code := r.awaitExit(t); code != 3 {
			t.Errorf("run %d ended with %d:\n%.2000s", i, code, r.output)
		}
		for _, stream := range []string{"out", "err"} {
			var want, got strings.Builder
			for n := range lines {
				text := fmt.Sprintf("%s %d", stream, n+1)
				fmt.Fprintf(&want, "%s %d\n", text, cksum([]byte(text)))
			}
			for line := range strings.Lines(r.output.String()) {
				if strings.HasPrefix(line, stream) {
					got.WriteString(line)
				}
			}
			if got.String() != want.String() {
				t.Errorf("run %d: %d bytes of std%s arrived, want %d, or they differ", i, got.Len(), stream, want.Len())
			}
		}
	}
	w.url = direct
	if out := w.must("job", "list", "--state", "failed", "-o", "json"); strings.Count(out, `"attempt":1`) != jobs {
		t.Errorf("the jobs are %s", out)
	}
}

// cksum is the checksum of the program of this name, as POSIX has it.
func cksum(data []byte) uint32 {
	var crc uint32
	add := func(b byte) {
		crc ^= uint32(b) << 24
		for range 8 {
			carry := crc & (1 << 31)
			if crc <<= 1; carry != 0 {
				crc ^= 0x04c11db7
			}
		}
	}
	for _, b := range data {
		add(b)
	}
	for n := len(data); n > 0; n >>= 8 {
		add(byte(n))
	}
	return ^crc
}
