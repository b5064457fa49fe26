// Package bench measures Hodei through its real wiring: a server, agents and a client as processes of their own, with mTLS
// and durable commits, and in the same run what the machine itself can do.
package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	hodei "github.com/hodei-jobs/hodei/clients/go"
)

// Options say on what is measured.
type Options struct {
	Program  string        // the hodei program that is started as server and agent
	Dir      string        // where the data of the run goes; on the disk that is to be measured
	Store    string        // "pebble", or the URL of a PostgreSQL database that the run may fill
	Agents   int           // how many agents
	Jobs     int           // how many jobs
	Duration time.Duration // instead of Jobs, for how long
	Progress io.Writer     // what happens, for people
}

// startTime bounds how long a server or an agent takes to be there.
const startTime = 30 * time.Second

// stopTime is how long agents have to end by themselves.
const stopTime = 5 * time.Second

// World is a server with agents.
type World struct {
	options Options
	dir     string
	server  *program
	agents  []*program
	ops     string
	config  hodei.Config
	metrics *http.Client
}

// program is a process of the run.
type program struct {
	cmd    *exec.Cmd
	exited chan struct{}
	log    string
}

func start(options Options, log string, args ...string) (*program, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer out.Close() //nolint:errcheck // the process has its own handle
	p := &program{cmd: exec.Command(options.Program, args...), exited: make(chan struct{}), log: log}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+filepath.Dir(log))
	// The run's processes end with it, whatever ends it.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait() // how it ended does not matter; that it did is asked for where it does
		close(p.exited)
	}()
	return p, nil
}

func (p *program) pid() int { return p.cmd.Process.Pid }

func (p *program) running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// kill ends the process without a warning.
func (p *program) kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// tail is the end of what the process logged.
func (p *program) tail() string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-2000):])
}

// OpenWorld starts a server.
func OpenWorld(ctx context.Context, options Options) (*World, error) {
	dir, err := os.MkdirTemp(options.Dir, "hodei-bench-")
	if err != nil {
		return nil, err
	}
	w := &World{options: options, dir: dir, metrics: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableCompression: true}}}
	if err := w.StartServer(ctx, "127.0.0.1:0"); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

// StartServer starts the server, again after a KillServer, and returns when it takes calls.
func (w *World) StartServer(ctx context.Context, listen string) error {
	args := []string{"server", "--data-dir", filepath.Join(w.dir, "server"), "--listen", listen, "--ops-listen", "127.0.0.1:0", "--log-format", "json"}
	if w.options.Store != "" && w.options.Store != "pebble" {
		args = append(args, "--store", w.options.Store)
	}
	var err error
	if w.server, err = start(w.options, filepath.Join(w.dir, "server.log"), args...); err != nil {
		return err
	}
	return poll(ctx, "the server to be ready", func() (bool, error) {
		if !w.server.running() {
			return false, fmt.Errorf("the server ended:\n%s", w.server.tail())
		}
		return w.readAddresses()
	})
}

// readAddresses looks for the line in the server's log that says where it listens.
func (w *World) readAddresses() (bool, error) {
	log, err := os.Open(w.server.log)
	if err != nil {
		return false, err
	}
	defer log.Close() //nolint:errcheck // only read
	for lines := bufio.NewScanner(log); lines.Scan(); {
		var line struct{ Msg, URL, Operations string }
		if json.Unmarshal(lines.Bytes(), &line) != nil || line.Msg != "server ready" {
			continue
		}
		tls := filepath.Join(w.dir, "server", "tls")
		w.ops = line.Operations
		w.config = hodei.Config{
			URL: line.URL, CA: filepath.Join(tls, "ca.pem"), Cert: filepath.Join(tls, "admin.pem"), Key: filepath.Join(tls, "admin-key.pem"),
		}
		return true, nil
	}
	return false, nil
}

// Address is where the server listens, for a start at the same place.
func (w *World) Address() string { return strings.TrimPrefix(w.config.URL, "https://") }

// Client makes a client with a connection of its own.
func (w *World) Client() (*hodei.Client, error) {
	return hodei.New(context.Background(), hodei.WithConfig(w.config))
}

// StartAgents starts n more agents with the given arguments and returns when they are connected.
func (w *World) StartAgents(ctx context.Context, n int, args ...string) error {
	c, err := w.Client()
	if err != nil {
		return err
	}
	defer c.Close()
	for range n {
		token, err := c.CreateToken(ctx, time.Minute, 1, nil)
		if err != nil {
			return err
		}
		name := "bench-" + strconv.Itoa(len(w.agents)+1)
		p, err := start(w.options, filepath.Join(w.dir, name+".log"), append([]string{
			"agent", "--server", w.config.URL, "--state-dir", filepath.Join(w.dir, name), "--name", name,
			"--token", token.GetSecret(), "--ca-pin", token.GetCaPin(),
		}, args...)...)
		if err != nil {
			return err
		}
		w.agents = append(w.agents, p)
	}
	return poll(ctx, "the agents to connect", func() (bool, error) {
		for _, a := range w.agents {
			if !a.running() {
				return false, fmt.Errorf("an agent ended:\n%s", a.tail())
			}
		}
		active, err := w.Metric("hodei_agents_active")
		return int(active) == len(w.agents), err
	})
}

// Metric adds up the values of a metric of the server.
func (w *World) Metric(name string) (float64, error) {
	res, err := w.metrics.Get(w.ops + "/metrics")
	if err != nil {
		return 0, err
	}
	defer res.Body.Close() //nolint:errcheck // only read
	var sum float64
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), " ")
		if key != name && !strings.HasPrefix(key, name+"{") {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// KillServer ends the server as the loss of its power would, but for the disk's cache.
func (w *World) KillServer() { w.server.kill() }

// Close ends everything and removes the run's data.
func (w *World) Close() error {
	for _, p := range w.agents {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // so that they remove what they have made outside of the run's folder
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	for _, p := range w.agents {
		select {
		case <-p.exited:
		case <-ctx.Done():
			p.kill()
		}
	}
	if w.server != nil {
		w.server.kill()
	}
	return os.RemoveAll(w.dir)
}

// poll asks until the answer is yes.
func poll(ctx context.Context, what string, ask func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		if ok, err := ask(); ok || err != nil {
			return err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, ctx.Err())
		}
	}
}

// usage is what a process has used since it began.
type usage struct {
	cpu     time.Duration
	peakRSS int64
	rss     int64
}

// clockTicks is the kernel's unit of CPU time in /proc, the same on every Linux that Go runs on.
const clockTicks = 100

func usageOf(pid int) (usage, error) {
	var u usage
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, fmt.Errorf("reading what process %d has used: %w", pid, err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	for _, i := range []int{11, 12} { // utime and stime
		ticks, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return u, err
		}
		u.cpu += time.Duration(ticks) * time.Second / clockTicks
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		target := map[string]*int64{"VmHWM": &u.peakRSS, "VmRSS": &u.rss}[name]
		if target == nil {
			continue
		}
		kib, err := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
		if err != nil {
			return u, err
		}
		*target = kib << 10
	}
	return u, nil
}
