package h2_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// seen is what a client got.
type seen struct {
	Status   int
	Proto    string
	Length   int64
	Header   http.Header
	Body     string
	Trailer  http.Header
	Informed []string
	Failed   bool
}

// call makes a request and notes what comes back.
func call(client *http.Client, request *http.Request) seen {
	var got seen
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
		got.Informed = append(got.Informed, fmt.Sprint(code, header))
		return nil
	}}
	answer, err := client.Do(request.WithContext(httptrace.WithClientTrace(request.Context(), trace)))
	if err != nil {
		return seen{Failed: true}
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	got.Failed = err != nil
	if !got.Failed {
		got.Body = string(body)
	}
	if answer.Header.Get("Date") == "" {
		answer.Header.Set("No-Date", "1")
	} else if answer.Header.Get("Date") != "mine" {
		delete(answer.Header, "Date")
	}
	got.Status, got.Proto, got.Length, got.Header, got.Trailer = answer.StatusCode, answer.Proto, answer.ContentLength, answer.Header, answer.Trailer
	return got
}

// scenes are answers that differ in how they are made.
var scenes = map[string]http.HandlerFunc{
	"nothing":      func(http.ResponseWriter, *http.Request) {},
	"status":       func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) },
	"two statuses": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404); w.WriteHeader(500) },
	"text":         func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") },
	"page":         func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html><body>hello") },
	"own type": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/proto")
		_, _ = w.Write([]byte{1, 2, 3})
	},
	"no type": func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = nil
		_, _ = io.WriteString(w, "x")
	},
	"encoded": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "br")
		_, _ = io.WriteString(w, "x")
	},
	"own date": func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Date", "mine") },
	"no date":  func(w http.ResponseWriter, _ *http.Request) { w.Header()["Date"] = nil },
	"length": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "5")
		_, _ = io.WriteString(w, "hello")
	},
	"wrong length": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "abc")
		_, _ = io.WriteString(w, "hello")
	},
	"too short": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "9")
		_, _ = io.WriteString(w, "hello")
	},
	"4096": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(bytes.Repeat([]byte("a"), 4096)) },
	"4097": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(bytes.Repeat([]byte("a"), 4097)) },
	"little by little": func(w http.ResponseWriter, _ *http.Request) {
		for i := range 3000 {
			fmt.Fprintln(w, i)
		}
	},
	"flushed": func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "a")
		w.(http.Flusher).Flush()
		_, _ = io.WriteString(w, "b")
	},
	"flushed empty": func(w http.ResponseWriter, _ *http.Request) {
		if err := http.NewResponseController(w).Flush(); err != nil {
			panic(err)
		}
	},
	"no content": func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(204)
		if _, err := io.WriteString(w, "a"); err != http.ErrBodyNotAllowed { //nolint:errorlint // it is this one
			panic(err)
		}
	},
	"not modified": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", "x")
		w.WriteHeader(304)
	},
	"declared trailers": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "A, B,Never")
		_, _ = io.WriteString(w, "body")
		w.Header().Set("A", "1")
		w.Header()["B"] = []string{"2", "3"}
	},
	"other trailers": func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
		w.Header().Set(http.TrailerPrefix+"grpc-message", "ok")
	},
	"trailers alone": func(w http.ResponseWriter, _ *http.Request) { w.Header().Set(http.TrailerPrefix+"Grpc-Status", "5") },
	"forbidden trailers": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "Content-Length")
		_, _ = io.WriteString(w, "x")
	},
	"header after": func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(200)
		w.Header().Set("Late", "1")
		_, _ = io.WriteString(w, "x")
	},
	"bad headers": func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Bad Name"] = []string{"x"}
		w.Header()["Good"] = []string{"a\nb", "c"}
		w.Header().Set("Transfer-Encoding", "chunked")
		_, _ = io.WriteString(w, "x")
	},
	"hints": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</a.css>")
		w.Header().Set("Content-Length", "4")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusProcessing)
		w.Header().Del("Link")
		_, _ = io.WriteString(w, "body")
	},
	"panic": func(http.ResponseWriter, *http.Request) { panic("a mistake") },
	"late panic": func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "x")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	},
	"bad status": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(7) },
	"large header": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Large", strings.Repeat("x", 100_000))
		w.Header().Set("After", "1")
	},
	"request": func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		fmt.Fprintln(w, r.Method, r.URL, r.Host, r.RequestURI, r.Proto, r.ContentLength, r.TransferEncoding, r.Close, r.TLS != nil, r.TLS.NegotiatedProtocol, len(body), err)
		fmt.Fprintln(w, r.URL.Path, r.URL.RawPath, r.URL.RawQuery, r.RemoteAddr != "", r.Trailer, r.Form, r.URL.Host)
		for _, name := range slices.Sorted(maps.Keys(r.Header)) {
			fmt.Fprintln(w, name, r.Header[name])
		}
		_, server := r.Context().Value(http.ServerContextKey).(*http.Server)
		fmt.Fprintln(w, server, r.Context().Value(http.LocalAddrContextKey) != nil)
	},
	"not read": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "I know already") },
	"mirror": func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		_, _ = io.Copy(w, r.Body)
		for name, values := range r.Trailer {
			w.Header()[http.TrailerPrefix+name] = values
		}
	},
}

// requests differ in what they send.
func requests(t *testing.T, url string) map[string]*http.Request {
	t.Helper()
	all := make(map[string]*http.Request)
	add := func(name, method, path string, body io.Reader, change func(*http.Request)) {
		r, err := http.NewRequestWithContext(t.Context(), method, url+path, body)
		if err != nil {
			t.Fatal(err)
		}
		if change != nil {
			change(r)
		}
		all[name] = r
	}
	add("get", "GET", "/", nil, nil)
	add("head", "HEAD", "/", nil, nil)
	add("post", "POST", "/a/b.C/d-e_f", strings.NewReader("the body"), nil)
	add("empty post", "POST", "/a//b", strings.NewReader(""), nil)
	add("large", "PUT", "/a%2fb/%20?x=1&y=%20", strings.NewReader(strings.Repeat("0123456789", 20_000)), nil)
	add("chunks", "POST", "/~a;b", io.MultiReader(strings.NewReader("a"), strings.NewReader("bc")), nil)
	add("trailers", "POST", "/", io.MultiReader(strings.NewReader("abc")), func(r *http.Request) {
		r.Trailer = http.Header{"First": {"1"}, "Second": {"2", "3"}}
	})
	add("headers", "GET", "/", nil, func(r *http.Request) {
		r.Header = http.Header{"Cookie": {"a=b; c=d", "e=f"}, "X-Many": {"1", "2"}, "Te": {"trailers"}, "Connect-Timeout-Ms": {"1"}, "Accept": {""}}
		r.Host = "other.example:8443"
	})
	add("expect", "POST", "/", strings.NewReader("the body"), func(r *http.Request) { r.Header.Set("Expect", "100-continue") })
	return all
}

// Both servers must give the same answers.
func TestAnswersAreThoseOfNetHTTP(t *testing.T) {
	t.Parallel()
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scene := scenes[r.Header.Get("Scene")]
		delete(r.Header, "Scene")
		scene(w, r)
	})
	own, ownURL := serve(t, true, handler)
	theirs, theirURL := serve(t, false, handler)
	own.Transport.(*http.Transport).ExpectContinueTimeout = time.Second
	theirs.Transport.(*http.Transport).ExpectContinueTimeout = time.Second
	// The address is in what "request" answers.
	hide := strings.NewReplacer(strings.TrimPrefix(ownURL, "https://"), "ADDRESS", strings.TrimPrefix(theirURL, "https://"), "ADDRESS")
	for scene := range scenes {
		ours, others := requests(t, ownURL), requests(t, theirURL)
		for name := range ours {
			ours[name].Header.Set("Scene", scene)
			others[name].Header.Set("Scene", scene)
			got, want := call(own, ours[name]), call(theirs, others[name])
			for _, s := range []*seen{&got, &want} {
				s.Body = hide.Replace(s.Body)
				if scene == "request" {
					s.Length = 0
					s.Header.Del("Content-Length")
				}
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s, %s:\n got %.1500s\nwant %.1500s", scene, name, fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want))
			}
		}
	}
}

// plan is a random request and what the handler does with it; both servers follow it.
type plan struct {
	seed               uint64
	body               []int // sizes of pieces
	declared, trailers bool
}

func (p *plan) String() string { return fmt.Sprintf("seed %d: %+v", p.seed, *p) }

func newPlan(seed uint64) plan {
	random := rand.New(rand.NewPCG(seed, 1))
	p := plan{seed: seed, declared: random.IntN(2) == 0, trailers: random.IntN(3) == 0}
	for range random.IntN(6) {
		p.body = append(p.body, 1+random.IntN(1<<random.IntN(18)))
	}
	return p
}

// act does something random with a request: reads some, writes some, flushes, sets trailers, gives up.
func act(w http.ResponseWriter, r *http.Request) {
	seed, err := strconv.ParseUint(r.Header.Get("Seed"), 10, 64)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	random := rand.New(rand.NewPCG(seed, 2))
	w.Header().Set("X-Random", fmt.Sprint(random.IntN(1000)))
	w.Header().Set("Content-Type", "text/plain")
	if r.Trailer != nil { // net/http ends the connection when trailers come for a stream that it has ended
		defer func() { _, _ = io.Copy(io.Discard, r.Body) }()
	}
	sum := 0
	for range random.IntN(12) {
		switch random.IntN(6) {
		case 0:
			n, _ := io.ReadFull(r.Body, make([]byte, random.IntN(30_000)))
			sum += n
		case 1:
			_, _ = w.Write(bytes.Repeat([]byte{'a' + byte(random.IntN(26))}, random.IntN(1<<random.IntN(17))))
		case 2:
			w.(http.Flusher).Flush()
		case 3:
			w.Header().Set(http.TrailerPrefix+fmt.Sprintf("T%d", random.IntN(3)), fmt.Sprint(sum))
		case 4:
			fmt.Fprintln(w, sum, len(r.Trailer))
		case 5:
			if random.IntN(8) == 0 {
				panic(http.ErrAbortHandler)
			}
			rest, err := io.ReadAll(r.Body)
			fmt.Fprintln(w, len(rest), err, len(r.Trailer.Get("End")))
		}
	}
}

// follow makes the request of a plan.
func follow(ctx context.Context, client *http.Client, url string, p *plan) seen {
	var pieces []io.Reader
	total := 0
	for _, n := range p.body {
		pieces = append(pieces, strings.NewReader(strings.Repeat("x", n)))
		total += n
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, io.MultiReader(pieces...))
	if err != nil {
		return seen{Failed: true}
	}
	if p.declared {
		request.ContentLength = int64(total)
		if total == 0 {
			request.Body = http.NoBody
		}
	}
	if p.trailers && total > 0 {
		request.Trailer = http.Header{"End": {"yes"}}
	}
	request.Header.Set("Seed", fmt.Sprint(p.seed))
	return call(client, request)
}

// rounds is how many random requests are compared; HODEI_H2_ROUNDS asks for more.
func rounds() int {
	if n, err := strconv.Atoi(os.Getenv("HODEI_H2_ROUNDS")); err == nil {
		return n
	}
	return 400
}

// With random requests, many at a time on one connection and some of them canceled, both servers must give the same answers.
func TestRandomTrafficIsServedAsByNetHTTP(t *testing.T) {
	t.Parallel()
	own, ownURL := serve(t, true, http.HandlerFunc(act))
	theirs, theirURL := serve(t, false, http.HandlerFunc(act))
	base := uint64(time.Now().UnixNano()) % 1_000_000 * 1000
	t.Logf("seeds from %d", base)
	var wait sync.WaitGroup
	lanes := make(chan struct{}, 16)
	for i := range rounds() {
		lanes <- struct{}{}
		wait.Go(func() {
			defer func() { <-lanes }()
			p := newPlan(base + uint64(i))
			if i%10 == 0 { // canceled somewhere; what comes of it is chance, but the others must not notice
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%7)*time.Millisecond)
				follow(ctx, own, ownURL, &p)
				cancel()
				return
			}
			got, want := follow(t.Context(), own, ownURL, &p), follow(t.Context(), theirs, theirURL, &p)
			if got.Failed && want.Failed { // how far a broken answer came is chance
				return
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%v:\n got %.300s\nwant %.300s", &p, fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want))
			}
		})
	}
	wait.Wait()
}
