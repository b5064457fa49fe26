package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

// Paths of calls.
const (
	listJobs = "/hodei.v1.JobService/ListJobs"
	getJob   = "/hodei.v1.JobService/GetJob"
	tailLogs = "/hodei.v1.LogService/TailLogs"
	enroll   = "/hwp.v1.WorkerService/Enroll"
	session  = "/hwp.v1.WorkerService/Connect"
	health   = "/grpc.health.v1.Health/Check"
)

// Bounds for what an attack may cost the server.
const (
	mostMemory = 1 << 30 // beyond what it had before, at any time; the race detector multiplies it
	// An attack may cost the server so many times the processor time that it costs the attacker, and some more.
	mostTimesWork, mostWork = 20, 20 * time.Second
)

// hostileWorld is a server whose times are short.
func hostileWorld(t *testing.T) *world {
	t.Helper()
	return newWorld(t, "--header-timeout", "2s", "--write-timeout", "2s", "--handshake-timeout", "2s", "--idle-timeout", "5s", "--body-timeout", "2s")
}

// attack runs while a client that behaves submits and reads jobs, of whose calls none may fail, and under a meter.
func (w *world) attack(t *testing.T, do func(w *world)) {
	t.Helper()
	w.attackWithin(t, mostMemory, do)
}

// attackWithin is attack with another bound for the memory, in bytes.
func (w *world) attackWithin(t *testing.T, memory int64, do func(w *world)) {
	t.Helper()
	mine := *w
	mine.t = t
	stop, done := make(chan struct{}), make(chan struct{})
	go mine.behave(stop, done)
	defer func() {
		close(stop)
		<-done
	}()
	m := mine.meter()
	do(&mine)
	m.check(memory)
}

// behave submits jobs and reads them, over one connection and over new ones, until it is told to stop.
func (w *world) behave(stop <-chan struct{}, done chan<- struct{}) {
	defer close(done)
	kept := w.client(w.url)
	for calls := 0; ; calls++ {
		fresh := w.client(w.url)
		submitted, err := kept.Raw.Jobs.SubmitJob(w.t.Context(), &hodeiv1.SubmitJobRequest{Spec: shellJob("true")})
		if err == nil {
			_, err = fresh.Raw.Jobs.GetJob(w.t.Context(), &hodeiv1.GetJobRequest{Id: submitted.GetJob().GetId()})
		}
		fresh.Close()
		if err != nil {
			w.t.Errorf("a client that behaves was harmed after %d calls: %v", 2*calls, err)
			return
		}
		select {
		case <-stop:
			if calls >= 5 {
				return
			}
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// meter is what the server and this process have used when an attack began.
type meter struct {
	w          *world
	work, mine time.Duration
	memory     int64
}

func (w *world) meter() *meter {
	w.t.Helper()
	pid := w.server.cmd.Process.Pid
	// The mark of the most memory that was in use begins again.
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
		w.t.Fatal(err)
	}
	return &meter{w: w, work: processorTime(w.t, pid), mine: ownTime(w.t), memory: memory(w.t, pid, "VmRSS")}
}

// check ends the test if the server has used more than it may.
func (m *meter) check(most int64) {
	t := m.w.t
	t.Helper()
	pid := m.w.server.cmd.Process.Pid
	grown, work, mine := memory(t, pid, "VmHWM")-m.memory, processorTime(t, pid)-m.work, ownTime(t)-m.mine
	t.Logf("the server used %v of processor time, this process %v; its memory grew by up to %.1f MiB", work, mine, float64(grown)/(1<<20))
	if grown > most {
		t.Errorf("the memory of the server grew by %d MiB", grown>>20)
	}
	if limit := mostTimesWork*mine + mostWork; work > limit {
		t.Errorf("the server has used %v of processor time, want at most %v", work, limit)
	}
}

func memory(t *testing.T, pid int, what string) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), what+":")
	kib, err := strconv.ParseInt(strings.TrimSpace(rest[:strings.Index(rest, "kB")]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// processorTime is what a process has used; the kernel counts it in hundredths of a second.
func processorTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var ticks time.Duration
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += time.Duration(n)
	}
	return ticks * 10 * time.Millisecond
}

func ownTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Frames without end, and frames that do not come: each ends with its connection, as it should.
func TestHostileFrames(t *testing.T) {
	t.Parallel()
	w := hostileWorld(t)
	const from = "127.0.66.1"
	calm := "goaway ENHANCE_YOUR_CALM"
	flood := func(times int, write func(p *peer, i int) error) func(*world) string {
		return func(w *world) string {
			p := w.speak(from, true)
			for i := range times {
				if write(p, i) != nil {
					break
				}
			}
			return p.await(0)
		}
	}
	slowly := func(first ...byte) func(*world) string {
		return func(w *world) string {
			p := w.speak(from, true)
			p.write(first)
			for p.outcome(0) == "" {
				<-time.After(100 * time.Millisecond)
				if _, err := p.Write([]byte{0}); err != nil {
					break
				}
			}
			return p.await(0)
		}
	}
	list := request(listJobs, "content-type", "application/proto")
	attacks := []struct {
		name string
		do   func(w *world) string
		want []string // one of these
	}{
		{"rapid reset", flood(10_000, func(p *peer, i int) error {
			if err := p.open(uint32(2*i+1), true, list...); err != nil {
				return err
			}
			return p.frames.WriteRSTStream(uint32(2*i+1), http2.ErrCodeCancel)
		}), []string{calm, "closed"}},
		{"a header without end", flood(100_000, func(p *peer, i int) error {
			if i == 0 {
				return p.frames.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.encode(list...)})
			}
			return p.frames.WriteContinuation(1, false, p.encode("name", strconv.Itoa(i)))
		}), []string{calm, "goaway PROTOCOL_ERROR", "goaway COMPRESSION_ERROR", "closed"}},
		{"empty continuations", flood(300_000, func(p *peer, i int) error {
			if i == 0 {
				return p.frames.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.encode(list...)})
			}
			return p.frames.WriteContinuation(1, false, nil)
		}), []string{calm, "closed"}}, // closed by the clock where the machine is slow
		{"settings", flood(100_000, func(p *peer, _ int) error { return p.frames.WriteSettings() }), []string{calm, "closed"}},
		{"pings", flood(100_000, func(p *peer, _ int) error { return p.frames.WritePing(false, [8]byte{}) }), []string{calm, "closed"}},
		{"empty data", flood(100_000, func(p *peer, i int) error {
			if i == 0 {
				return p.open(1, false, request(session, "content-type", "application/grpc+proto")...)
			}
			return p.frames.WriteData(1, false, nil)
		}), []string{calm, "closed"}},
		{"a header byte by byte", slowly(0, 1, 0, byte(http2.FrameHeaders), 4, 0, 0, 0, 1), []string{"closed"}},
		{"a ping byte by byte", slowly(0, 1, 0, 0x77, 0, 0, 0, 0, 0), []string{"closed"}},
		{"nothing after the handshake", func(w *world) string {
			c, err := w.dial(from, false, http2.NextProtoTLS)
			if err != nil {
				return err.Error()
			}
			return closedByPeer(c)
		}, []string{"closed"}},
	}
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			w.attack(t, func(w *world) { expectOneOf(t, a.do(w), a.want...) })
		})
	}
}

func expectOneOf(t *testing.T, got string, want ...string) {
	t.Helper()
	for _, w := range want {
		if got == w {
			return
		}
	}
	t.Errorf("it ended with %q, want one of %q", got, want)
}

// closedByPeer waits until the other end has closed a connection.
func closedByPeer(c net.Conn) string {
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, c); err != nil && strings.Contains(err.Error(), "i/o timeout") {
		return "open"
	}
	_ = c.Close()
	return "closed"
}

// Clients that ask for much and take nothing are cut off.
func TestHostileReaders(t *testing.T) {
	t.Parallel()
	w := hostileWorld(t)
	spec := shellJob("true")
	spec.Env = map[string]string{"LARGE": strings.Repeat("x", 30<<10)}
	large, err := w.client(w.url).Raw.Jobs.SubmitJob(t.Context(), &hodeiv1.SubmitJobRequest{Spec: spec})
	if err != nil {
		t.Fatal(err)
	}
	ask := []byte("\x0a" + string(rune(len(large.GetJob().GetId()))) + large.GetJob().GetId())
	fields := request(getJob, "content-type", "application/proto")
	t.Run("no window", func(t *testing.T) {
		w.attack(t, func(w *world) {
			p := w.speak("127.0.66.2", true, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			for id := uint32(1); id < 200; id += 2 {
				p.must(p.open(id, false, fields...))
				p.must(p.send(id, true, ask))
			}
			for id := uint32(1); id < 200; id += 2 {
				expectOneOf(t, p.await(id), "reset INTERNAL_ERROR")
			}
		})
	})
	t.Run("no window of the connection", func(t *testing.T) {
		w.attack(t, func(w *world) {
			p := w.speak("127.0.66.2", true, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
			for id := uint32(1); id < 20; id += 2 {
				p.must(p.open(id, false, fields...))
				p.must(p.send(id, true, ask))
			}
			taken := 0
			for id := uint32(1); id < 20; id += 2 {
				if p.await(id) == "200" {
					taken++
					continue
				}
				expectOneOf(t, p.await(id), "reset INTERNAL_ERROR")
			}
			if taken > 2 { // as many as there are in 64 KiB
				t.Errorf("%d answers were sent without a window", taken)
			}
		})
	})
	t.Run("nothing is read", func(t *testing.T) {
		w.attack(t, func(w *world) {
			c, err := w.dial("127.0.66.2", true, http2.NextProtoTLS)
			if err != nil {
				t.Fatal(err)
			}
			p := &peer{Conn: c, t: t, frames: http2.NewFramer(c, nil)}
			p.encoder = newEncoder(p)
			p.write([]byte(http2.ClientPreface))
			p.must(p.frames.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30}))
			p.must(p.frames.WriteWindowUpdate(0, 1<<30))
			for id := uint32(1); p.open(id, false, fields...) == nil && p.send(id, true, ask) == nil; id += 2 {
				if id > 2_000_000 {
					t.Fatal("the server goes on answering who reads nothing")
				}
				if id > 1000 { // as many as one connection may have
					<-time.After(time.Millisecond)
				}
			}
		})
	})
	t.Run("nothing is read over HTTP/1.1", func(t *testing.T) {
		w.attack(t, func(w *world) {
			c, err := w.dial("127.0.66.2", true, "http/1.1")
			if err != nil {
				t.Fatal(err)
			}
			_ = c.NetConn().(*net.TCPConn).SetReadBuffer(4096)
			_ = c.SetWriteDeadline(time.Now().Add(patience))
			for i := 0; ; i++ {
				_, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Type: application/proto\r\nContent-Length: %d\r\n\r\n%s", getJob, len(ask), ask)
				if err != nil {
					if strings.Contains(err.Error(), "timeout") {
						t.Error("the server goes on waiting for who reads nothing")
					}
					return
				}
			}
		})
	})
}

// Handshakes that are not made, and connections without end: those of one address end, and the others do not notice.
func TestHostileConnections(t *testing.T) {
	t.Parallel()
	w := hostileWorld(t)
	t.Run("500 half-open handshakes", func(t *testing.T) {
		w.attack(t, func(w *world) {
			var all []net.Conn
			for i := range 500 {
				c, err := w.connect("127.0.66.3")
				if err != nil {
					t.Fatal(err)
				}
				if i%2 == 0 { // half of them begin a handshake
					_, _ = c.Write([]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"))
				}
				all = append(all, c)
			}
			for _, c := range all {
				expectOneOf(t, closedByPeer(c), "closed")
			}
		})
		await(t, "all of them to be counted", func() bool {
			return w.metric(t, `hodei_connections_refused_total{reason="handshake_timeout"}`) == 500
		})
	})
	t.Run("connections that say nothing, one after the other", func(t *testing.T) {
		w.attack(t, func(w *world) {
			for range 5000 {
				if c, err := w.connect("127.0.66.4"); err == nil { // else it was refused at once
					defer c.Close()
				}
			}
		})
		if n := w.metric(t, `hodei_connections_refused_total{reason="waiting"}`); n < 2000 {
			t.Errorf("only %v connections were refused", n)
		}
	})
	t.Run("connections without a certificate that stay", func(t *testing.T) {
		w.attack(t, func(w *world) {
			var open sync.WaitGroup
			conns := make(chan *tlsResult, 600)
			for range 600 {
				open.Go(func() {
					c, err := w.dial("127.0.66.5", false, "http/1.1")
					conns <- &tlsResult{c, err}
				})
			}
			open.Wait()
			close(conns)
			kept := 0
			var served []net.Conn
			for r := range conns {
				if r.err != nil {
					continue
				}
				_ = r.conn.SetDeadline(time.Now().Add(patience))
				_, _ = fmt.Fprintf(r.conn, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", listJobs)
				if answer, err := http.ReadResponse(bufio.NewReader(r.conn), nil); err == nil {
					kept++
					expectOneOf(t, answer.Status, "401 Unauthorized")
				}
				served = append(served, r.conn)
			}
			for _, c := range served {
				_ = c.Close()
			}
			if kept == 0 || kept > 256 {
				t.Errorf("%d strangers are served, want at most 256", kept)
			}
		})
	})
	t.Run("what is no TLS", func(t *testing.T) {
		w.attack(t, func(w *world) {
			for said, want := range map[string]string{
				"GET / HTTP/1.1\r\nHost: a\r\n\r\n": "HTTP/1.0 400 Bad Request", http2.ClientPreface: "", "SSH-2.0-x\r\n": "", strings.Repeat("\x16\x03\x01\xff\xff", 9999): "",
			} {
				c, err := w.connect("127.0.66.6")
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.WriteString(c, said)
				_ = c.SetReadDeadline(time.Now().Add(patience))
				got, _ := io.ReadAll(c)
				if line, _, _ := strings.Cut(string(got), "\r\n"); want != "" && line != want || strings.Contains(line, "200") {
					t.Errorf("%.20q was answered with %.100q, want %q", said, got, want)
				}
				_ = c.Close()
			}
		})
	})
	if n := strings.Count(w.server.output.String(), "connections were refused"); n > 20 {
		t.Errorf("the log says %d times that connections were refused", n)
	}
}
