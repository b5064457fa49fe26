package h2_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// clientAt names the server to a child process that is the client of a benchmark, so that its CPU is not counted.
const clientAt = "HODEI_H2_BENCH_CLIENT"

func TestMain(m *testing.M) {
	if url := os.Getenv(clientAt); url != "" {
		calls, err := strconv.Atoi(os.Getenv(clientAt + "_CALLS"))
		if err == nil {
			err = load(url, calls)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const connections = 64

// load makes small calls, one after the other on each of its connections. Before, it opens them, says so, and waits.
func load(url string, calls int) error {
	errs := make(chan error, connections)
	clients := make([]*http.Client, connections)
	for i := range clients {
		clients[i] = &http.Client{Transport: &http.Transport{
			ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		}}
		if err := repeat(clients[i], url, 100); err != nil {
			return err
		}
	}
	fmt.Fprintln(os.Stdout, "ready")
	if _, err := fmt.Scanln(); err != nil && !errors.Is(err, io.EOF) && err.Error() != "unexpected newline" {
		return err
	}
	for _, client := range clients {
		go func() { errs <- repeat(client, url, calls/connections) }()
	}
	for range connections {
		if err := <-errs; err != nil {
			return err
		}
	}
	return nil
}

func repeat(client *http.Client, url string, calls int) error {
	body := bytes.Repeat([]byte("x"), 200)
	for range calls {
		request, err := http.NewRequest(http.MethodPost, url+"/hodei.v1.JobService/SubmitJob", bytes.NewReader(body))
		if err != nil {
			return err
		}
		request.Header.Set("Content-Type", "application/proto")
		request.Header.Set("Connect-Protocol-Version", "1")
		request.Header.Set("Connect-Timeout-Ms", "10000")
		answer, err := client.Do(request)
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, answer.Body); err != nil {
			return err
		}
		if err := answer.Body.Close(); err != nil {
			return err
		}
	}
	return nil
}

func cpu() time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// answerLikeAnAPI reads a small body and writes a small answer, through a stack as deep as one of interceptors.
func answerLikeAnAPI(w http.ResponseWriter, r *http.Request) {
	deep(12, func() {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/proto")
		w.Header()["Accept-Encoding"] = []string{"gzip"}
		_, _ = w.Write(body[:min(len(body), 40)])
	})
}

//go:noinline
func deep(n int, f func()) byte {
	var frame [512]byte
	frame[n] = 1
	if n == 0 {
		f()
	} else {
		frame[n] += deep(n-1, f)
	}
	return frame[n]
}

// BenchmarkSmallCalls reports the CPU of the server alone, which does not depend on what else the machine does.
func BenchmarkSmallCalls(b *testing.B) {
	for _, own := range []bool{false, true} {
		name := "net-http"
		if own {
			name = "own"
		}
		b.Run(name, func(b *testing.B) {
			_, url := serve(b, own, http.HandlerFunc(answerLikeAnAPI))
			calls := (b.N + connections - 1) / connections * connections
			command := exec.Command(os.Args[0])
			command.Env = append(os.Environ(), clientAt+"="+url, clientAt+"_CALLS="+strconv.Itoa(calls))
			command.Stderr = os.Stderr
			input, err := command.StdinPipe()
			if err != nil {
				b.Fatal(err)
			}
			output, err := command.StdoutPipe()
			if err != nil {
				b.Fatal(err)
			}
			if err := command.Start(); err != nil {
				b.Fatal(err)
			}
			if _, err := output.Read(make([]byte, 16)); err != nil {
				b.Fatal(err)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := cpu()
			b.ResetTimer()
			if _, err := io.WriteString(input, "\n"); err != nil {
				b.Fatal(err)
			}
			if err := command.Wait(); err != nil {
				b.Fatal(err)
			}
			used := cpu() - start
			b.StopTimer()
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(used.Microseconds())/float64(calls), "cpu-us/call")
			b.ReportMetric(float64(after.Mallocs-before.Mallocs)/float64(calls), "allocs/call")
			b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/float64(calls), "B/call")
		})
	}
}
