package e2e

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// caller is a client of net/http, from an address of this machine.
func (w *world) caller(from string, proven bool, http1 bool) *http.Client {
	w.t.Helper()
	protocol := "h2"
	if http1 {
		protocol = "http/1.1"
	}
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	transport := &http.Transport{
		TLSClientConfig: w.security(proven, protocol), ForceAttemptHTTP2: !http1, DialContext: dialer.DialContext, DisableCompression: true,
	}
	w.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport: transport, Timeout: patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// post makes a call and says how it ended.
func (w *world) post(c *http.Client, path string, body io.Reader, header ...string) string {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.url+path, body)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := c.Do(req)
	if err != nil {
		return "error: " + err.Error()
	}
	defer res.Body.Close()
	said, err := io.ReadAll(res.Body)
	text := fmt.Sprint(res.StatusCode)
	status := res.Trailer.Get("Grpc-Status") + res.Header.Get("Grpc-Status")
	if status != "" {
		return text + " grpc " + status
	}
	if _, rest, ok := strings.Cut(string(said), `"code":"`); ok {
		code, _, _ := strings.Cut(rest, `"`)
		return text + " " + code
	}
	if err != nil {
		return text + " error: " + err.Error()
	}
	return text
}

// message is a message with its size before it, which may be a lie.
func message(flags byte, claimed uint32, body string) string {
	return string(binary.BigEndian.AppendUint32([]byte{flags}, claimed)) + body
}

// zeros has no end, and counts what is read of it.
type zeros struct{ read atomic.Int64 }

func (z *zeros) Read(p []byte) (int, error) {
	clear(p)
	z.read.Add(int64(len(p)))
	return len(p), nil
}

// zipped is data in gzip, several times one behind the other.
func zipped(t *testing.T, data []byte, times int) []byte {
	t.Helper()
	var one bytes.Buffer
	writer, err := gzip.NewWriterLevel(&one, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := writer.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return bytes.Repeat(one.Bytes(), times)
}

// Messages that lie about their size or their form.
func TestHostileMessages(t *testing.T) {
	t.Parallel()
	w := hostileWorld(t)
	bomb := zipped(t, make([]byte, 64<<20), 60) // 4 GB in less than 4 MiB
	if len(bomb) > 4<<20 {
		t.Fatalf("the bomb has %d bytes", len(bomb))
	}
	const proto, grpc, stream = "application/proto", "application/grpc+proto", "application/connect+proto"
	cases := []struct {
		name, path string
		body       string
		header     []string
		want       string
	}{
		{"nothing wrong", listJobs, "", []string{"content-type", proto}, "200"},
		{"nothing wrong by gRPC", listJobs, message(0, 0, ""), []string{"content-type", grpc}, "200 grpc 0"},
		{"less than claimed", listJobs, message(0, 100, "abc"), []string{"content-type", grpc}, "200 grpc 13"},
		{"half a size", listJobs, "\x00\x00", []string{"content-type", grpc}, "200 grpc 13"},
		{"less than claimed, of a stream", tailLogs, message(0, 100, "abc"), []string{"content-type", stream}, "200 internal"},
		{"all flags", listJobs, message(0xff, 3, "abc"), []string{"content-type", grpc}, "200 grpc 13"},
		{"all flags, of a stream", tailLogs, message(0xff, 3, "abc"), []string{"content-type", stream}, "200 internal"},
		{"compressed without saying how", listJobs, message(1, 3, "abc"), []string{"content-type", grpc}, "200 grpc 13"},
		{"no gzip", listJobs, "abc", []string{"content-type", proto, "content-encoding", "gzip"}, "400 invalid_argument"},
		{"half of gzip", listJobs, string(bomb[:1000]), []string{"content-type", proto, "content-encoding", "gzip"}, "400 invalid_argument"},
		{"gzip in gzip", listJobs, string(zipped(t, zipped(t, []byte("\x08\x01"), 1), 1)), []string{"content-type", proto, "content-encoding", "gzip"}, "400 invalid_argument"},
		{"an unknown encoding", listJobs, "", []string{"content-type", proto, "content-encoding", "br"}, "501 unimplemented"},
		{"an unknown encoding by gRPC", listJobs, message(1, 0, ""), []string{"content-type", grpc, "grpc-encoding", "x"}, "200 grpc 12"},
		{"a bomb", listJobs, string(bomb), []string{"content-type", proto, "content-encoding", "gzip"}, "429 resource_exhausted"},
		{"a bomb by gRPC", listJobs, message(1, uint32(len(bomb)), string(bomb)), []string{"content-type", grpc, "grpc-encoding", "gzip"}, "200 grpc 8"},
		{"a bomb for an agent's call", enroll, string(bomb), []string{"content-type", proto, "content-encoding", "gzip"}, "501 unimplemented"},
		{"a bomb for the health", health, string(bomb), []string{"content-type", proto, "content-encoding", "gzip"}, "501 unimplemented"},
		{"a large question for the health", health, strings.Repeat("x", 1<<20), []string{"content-type", proto}, "429 resource_exhausted"},
		{"a large message of who enrols", enroll, strings.Repeat("x", 1<<20), []string{"content-type", proto}, "429 resource_exhausted"},
		{"a large message", listJobs, strings.Repeat("x", 5<<20), []string{"content-type", proto}, "429 resource_exhausted"},
		{"no protobuf", listJobs, "\xff\xff\xff\xff", []string{"content-type", proto}, "400 invalid_argument"},
		{"no JSON", listJobs, strings.Repeat("[", 100_000), []string{"content-type", "application/json"}, "400 invalid_argument"},
		{"a call on a stream's path", tailLogs, "", []string{"content-type", proto}, "415"},
		{"a stream on a call's path", listJobs, "", []string{"content-type", stream}, "415"},
		{"no type", listJobs, "", nil, "415"},
		{"an unknown call", "/hodei.v1.JobService/Format", "", []string{"content-type", proto}, "501 unimplemented"},
		{"a time that is none", listJobs, "", []string{"content-type", proto, "connect-timeout-ms", "99999999999999999999"}, "400 invalid_argument"},
	}
	for _, http1 := range []bool{false, true} {
		caller := w.caller("127.0.66.7", true, http1)
		for _, c := range cases {
			t.Run(fmt.Sprintf("%s, HTTP/1.1: %v", c.name, http1), func(t *testing.T) {
				w.attack(t, func(w *world) {
					if got := w.post(caller, c.path, strings.NewReader(c.body), c.header...); got != c.want {
						t.Errorf("it ended with %q, want %q", got, c.want)
					}
				})
			})
		}
	}
}

// However many bombs come at once, there is only so much memory for them: some that is in use, and more that is not yet collected.
func TestManyBombsAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "--max-body-memory", strconv.Itoa(8<<20))
	bomb := zipped(t, make([]byte, 64<<20), 1)
	w.attackWithin(t, 512<<20, func(w *world) {
		caller := w.caller("127.0.66.14", true, false)
		header := []string{"content-type", "application/proto", "content-encoding", "gzip"}
		expectOneOf(t, w.post(caller, listJobs, bytes.NewReader(bomb), header...), "429 resource_exhausted") // the others use its connection
		var all sync.WaitGroup
		for range 300 {
			all.Go(func() {
				expectOneOf(t, w.post(caller, listJobs, bytes.NewReader(bomb), header...), "429 resource_exhausted")
			})
		}
		all.Wait()
	})
}

// A message that claims to have 4 GiB is refused when its size has come; the server does not take in what it would throw away.
func TestHostileSizes(t *testing.T) {
	t.Parallel()
	w := hostileWorld(t)
	for _, c := range []struct{ name, path, kind, want string }{
		{"of a call", listJobs, "application/grpc+proto", "200 grpc 8"},
		{"of a call in the browser's gRPC", listJobs, "application/grpc-web+proto", "200 grpc 8"},
		{"of a stream", tailLogs, "application/connect+proto", "200 resource_exhausted"},
		{"of a session by who is no agent", session, "application/connect+proto", "200 permission_denied"},
		{"for the health", health, "application/grpc+proto", "200 grpc 8"},
		{"without a size", listJobs, "application/proto", "429 resource_exhausted"},
	} {
		for _, http1 := range []bool{false, true} {
			if http1 && c.path == session {
				continue // it needs HTTP/2
			}
			t.Run(fmt.Sprintf("%s, HTTP/1.1: %v", c.name, http1), func(t *testing.T) {
				w.attack(t, func(w *world) {
					var endless zeros
					claim := message(0, 1<<32-1, "")
					if c.kind == "application/proto" {
						claim = ""
					}
					body := io.MultiReader(strings.NewReader(claim), &endless)
					got := w.post(w.caller("127.0.66.8", true, http1), c.path, body, "content-type", c.kind)
					// A client of HTTP/1.1 may see that the server reads no more before it sees the answer.
					if got != c.want && (!http1 || !strings.HasPrefix(got, "error: ")) {
						t.Errorf("it ended with %q, want %q", got, c.want)
					}
					if n := endless.read.Load(); n > 16<<20 {
						t.Errorf("the server took %d MiB", n>>20)
					}
				})
			})
		}
	}
}

// Bodies and headers that hardly come are waited for only for so long.
func TestHostileBodies(t *testing.T) {
	t.Parallel()
	w := hostileWorld(t)
	for _, c := range []struct {
		name   string
		http1  bool
		length int64
		kind   string
		path   string
		want   string
	}{
		{"short", false, 100, "application/proto", listJobs, "504 deadline_exceeded"},
		{"long", false, 1 << 20, "application/proto", listJobs, "504 deadline_exceeded"},
		{"of any length", false, -1, "application/proto", listJobs, "504 deadline_exceeded"},
		{"of a call by gRPC", false, -1, "application/grpc+proto", listJobs, "200 grpc 4"},
		{"of what is asked of a stream", false, -1, "application/connect+proto", tailLogs, "200 deadline_exceeded"},
		{"short, HTTP/1.1", true, 100, "application/proto", listJobs, "504 deadline_exceeded"},
		{"of any length, HTTP/1.1", true, -1, "application/proto", listJobs, "504 deadline_exceeded"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.attack(t, func(w *world) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				reader, writer := io.Pipe()
				go func() {
					for ctx.Err() == nil {
						if _, err := writer.Write([]byte{0}); err != nil {
							return
						}
						<-time.After(300 * time.Millisecond)
					}
					_ = writer.CloseWithError(errors.New("the test is over"))
				}()
				start := time.Now()
				got := w.postLength(w.caller("127.0.66.9", true, c.http1), c.path, reader, c.length, "content-type", c.kind)
				if got != c.want {
					t.Errorf("it ended with %q after %v, want %q", got, time.Since(start), c.want)
				}
			})
		})
	}
	t.Run("header, HTTP/1.1", func(t *testing.T) {
		w.attack(t, func(w *world) {
			c, err := w.dial("127.0.66.9", true, "http/1.1")
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nX: ")
			for {
				if _, err := c.Write([]byte("x")); err != nil {
					return
				}
				<-time.After(100 * time.Millisecond)
			}
		})
	})
}

func (w *world) postLength(c *http.Client, path string, body io.Reader, length int64, header ...string) string {
	w.t.Helper()
	mine := *c
	mine.Transport = lengthened{c.Transport, length}
	return w.post(&mine, path, body, header...)
}

// lengthened declares how long bodies are.
type lengthened struct {
	http.RoundTripper
	length int64
}

func (l lengthened) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.ContentLength = l.length
	return l.RoundTripper.RoundTrip(r)
}

// Requests that are none, or for something that only looks like a call: nobody gets an answer that they may not have.
func TestHostileRequests(t *testing.T) {
	t.Parallel()
	w := hostileWorld(t)
	reset := "reset PROTOCOL_ERROR"
	typed := []string{"content-type", "application/proto"}
	many := make([]string, 0, 32_000)
	for i := range 16_000 {
		many = append(many, fmt.Sprintf("h%d", i), "x")
	}
	for _, c := range []struct {
		name   string
		fields []string
		want   []string
	}{
		{"nothing wrong", request(listJobs, typed...), []string{"200"}},
		{"a path without a slash", request(strings.TrimPrefix(listJobs, "/"), typed...), []string{reset}},
		{"no path", []string{":method", "POST", ":scheme", "https", ":authority", "a"}, []string{reset}},
		{"two slashes", request("/"+listJobs, typed...), []string{"307", "301", "404"}},
		{"two slashes within", request("/hodei.v1.JobService//ListJobs", typed...), []string{"307", "301", "404"}},
		{"an escaped slash", request("/hodei.v1.JobService%2fListJobs", typed...), []string{"404"}},
		{"a way round", request("/x/.."+listJobs, typed...), []string{"307", "301", "404"}},
		{"another case", request(strings.ToLower(listJobs), typed...), []string{"404"}},
		{"another case of the service", request("/hodei.v1.jobservice/ListJobs", typed...), []string{"404"}},
		{"something behind", request(listJobs+"/", typed...), []string{"404", "501 unimplemented"}},
		{"a zero byte", request(listJobs+"%00", typed...), []string{"404", "501 unimplemented"}},
		{"a whole address", request("https://127.0.0.1"+listJobs, typed...), []string{reset}},
		{"two paths", request("/", append([]string{":path", listJobs}, typed...)...), []string{reset}},
		{"two methods", append([]string{":method", "GET"}, request(listJobs, typed...)...), []string{reset}},
		{"a late pseudo-header", append([]string{"content-type", "application/proto"}, request(listJobs)...), []string{reset}},
		{"another method", append([]string{":method", "DELETE"}, request(listJobs, typed...)[2:]...), []string{"405"}},
		{"a header of 1 MB", request(listJobs, "large", strings.Repeat("\x7f", 1<<20)), []string{"431", "goaway ENHANCE_YOUR_CALM", "goaway PROTOCOL_ERROR", "goaway COMPRESSION_ERROR"}},
		{"16,000 headers", request(listJobs, many...), []string{"431", "goaway ENHANCE_YOUR_CALM", "goaway PROTOCOL_ERROR"}},
		{"a body in chunks", request(listJobs, "transfer-encoding", "chunked"), []string{reset}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.attack(t, func(w *world) {
				p := w.speak("127.0.66.10", true)
				block := bytes.Clone(p.encode(c.fields...))
				for first := true; first || len(block) > 0; first = false {
					piece := block[:min(len(block), 16<<10)]
					block = block[len(piece):]
					if first {
						p.must(p.frames.WriteRawFrame(1, endFlags(len(block) == 0, true), 1, piece))
					} else if p.frames.WriteRawFrame(9, endFlags(len(block) == 0, false), 1, piece) != nil {
						break
					}
				}
				expectOneOf(t, p.await(1), c.want...)
			})
		})
	}
}

// What a client may do over HTTP/1.1, and what it may not.
func TestCallsOverHTTP1(t *testing.T) {
	t.Parallel()
	w := hostileWorld(t)
	c := w.caller("127.0.66.11", true, true)
	job := w.submit("--", "true")
	for _, call := range []struct{ path, kind, body, want string }{
		{listJobs, "application/json", "{}", "200"},
		{tailLogs, "application/connect+json", message(0, uint32(len(`{"job_id":""}`)+len(job)), `{"job_id":"`+job+`"}`), "200"},
		{session, "application/connect+proto", message(0, 0, ""), "505"},
		{session, "application/grpc", message(0, 0, ""), "505"},
	} {
		if got := w.post(c, call.path, strings.NewReader(call.body), "content-type", call.kind); got != call.want {
			t.Errorf("%s ended with %q, want %q", call.path, got, call.want)
		}
	}
}

// Who calls without proof, and too often, is told when to come again; the others are not harmed.
func TestCallsOfStrangersAreLimited(t *testing.T) {
	t.Parallel()
	w := hostileWorld(t)
	w.attack(t, func(w *world) {
		c := w.caller("127.0.66.12", false, false)
		got := make(map[string]int)
		var mu sync.Mutex
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				for range 100 {
					answer := w.post(c, enroll, strings.NewReader(""), "content-type", "application/proto")
					mu.Lock()
					got[answer]++
					mu.Unlock()
				}
			})
		}
		all.Wait()
		if got["429 resource_exhausted"] == 0 || got["429 resource_exhausted"]+got["400 invalid_argument"]+got["401 unauthenticated"] != 2000 {
			t.Errorf("the answers were %v", got)
		}
		if got := w.post(w.caller("127.0.66.13", false, false), enroll, strings.NewReader(""), "content-type", "application/proto"); strings.HasPrefix(got, "429") {
			t.Errorf("another address was answered %s", got)
		}
	})
	if n := w.metric(t, `hodei_calls_refused_total{reason="address"}`); n == 0 {
		t.Error("no refused call is counted")
	}
}
