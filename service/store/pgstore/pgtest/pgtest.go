// Package pgtest gives tests a PostgreSQL of their own.
package pgtest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Variable names a PostgreSQL that is there already: a URL whose user may make schemas.
const Variable = "HODEI_TEST_POSTGRES"

// Server is a PostgreSQL that runs for the tests.
type Server struct {
	// URL is how to connect; a search_path may be added.
	URL  string
	cmd  *exec.Cmd
	dir  string
	logs string
	bin  string // folder of PostgreSQL's programs
	port string
}

// Start returns the server that HODEI_TEST_POSTGRES names, or starts the one that is installed in a temporary folder, or
// installs the distribution's package first where it may. There is no other way: without PostgreSQL it fails.
func Start() (*Server, error) {
	if url := os.Getenv(Variable); url != "" {
		return &Server{URL: url}, nil
	}
	return StartOwn()
}

// StartOwn is Start for tests that stop, pause or kill the server: it is one of their own, whatever HODEI_TEST_POSTGRES says.
func StartOwn() (*Server, error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "hodei-postgres-")
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, logs: filepath.Join(dir, "log"), bin: bin}
	for _, step := range []func() error{s.initialize, s.run} {
		if err := step(); err != nil {
			return nil, errors.Join(err, s.Stop())
		}
	}
	return s, nil
}

// binaries finds the newest installed PostgreSQL, or installs one.
func binaries() (string, error) {
	find := func() string {
		found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // the pattern is right
		slices.SortFunc(found, func(a, b string) int { return version(a) - version(b) })
		if len(found) > 0 {
			return filepath.Dir(found[len(found)-1])
		}
		if path, err := exec.LookPath("initdb"); err == nil {
			return filepath.Dir(path)
		}
		return ""
	}
	if dir := find(); dir != "" {
		return dir, nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 {
		return "", fmt.Errorf("there is no PostgreSQL: install it (Debian: postgresql), or set %s to the URL of one", Variable)
	}
	// Packages are tested side by side, and only one may install at a time.
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "hodei-postgres-install.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close() //nolint:errcheck // which also ends the lock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("waiting for another test to install PostgreSQL: %w", err)
	}
	if dir := find(); dir != "" {
		return dir, nil
	}
	for _, args := range [][]string{{"update", "-q"}, {"install", "-y", "-q", "--no-install-recommends", "postgresql"}} {
		cmd := exec.Command("apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("installing PostgreSQL: %w\n%s", err, out)
		}
	}
	if dir := find(); dir != "" {
		return dir, nil
	}
	return "", errors.New("PostgreSQL was installed and its programs are nowhere to be found")
}

func version(initdb string) int {
	n, err := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(initdb))))
	if err != nil {
		return 0
	}
	return n
}

// initialize makes a cluster and chooses a free port of the loopback for it.
func (s *Server) initialize() error {
	attributes, err := asAnotherUser(s.dir)
	if err != nil {
		return err
	}
	initdb := exec.Command(filepath.Join(s.bin, "initdb"), "-D", s.data(), "-U", "hodei", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C")
	initdb.Dir, initdb.SysProcAttr = s.dir, attributes
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("making a database cluster: %w\n%s", err, out)
	}
	s.port, err = freePort()
	s.URL = "postgres://hodei@127.0.0.1:" + s.port + "/postgres?sslmode=disable"
	return err
}

// data is the folder of the cluster.
func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// run starts the cluster and waits until it takes connections.
func (s *Server) run() error {
	attributes, err := asAnotherUser(s.dir)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(s.logs, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // the server has its own handle
	s.cmd = exec.Command(filepath.Join(s.bin, "postgres"), "-D", s.data(), "-k", s.dir, "-h", "127.0.0.1", "-p", s.port,
		"-c", "max_connections=300", "-c", "max_wal_size=4GB", "-c", "checkpoint_timeout=15min")
	s.cmd.Dir, s.cmd.SysProcAttr, s.cmd.Stdout, s.cmd.Stderr = s.dir, attributes, log, log
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("starting PostgreSQL: %w", err)
	}
	return s.awaitReady(exec.Command(filepath.Join(s.bin, "pg_isready"), "-h", "127.0.0.1", "-p", s.port))
}

// asAnotherUser lets PostgreSQL, which refuses to run as root, run as somebody else.
func asAnotherUser(dir string) (*syscall.SysProcAttr, error) {
	attributes := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		return attributes, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, errUID := strconv.ParseUint(u.Uid, 10, 32)
		gid, errGID := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(errUID, errGID, os.Chown(dir, int(uid), int(gid))); err != nil {
			return nil, err
		}
		attributes.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		return attributes, nil
	}
	return nil, errors.New("PostgreSQL refuses to run as root, and there is no user postgres or nobody")
}

func (s *Server) awaitReady(ask *exec.Cmd) error {
	for deadline := time.Now().Add(60 * time.Second); ; {
		again := exec.Command(ask.Path, ask.Args[1:]...)
		if again.Run() == nil {
			return nil
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(s.logs) // it is shown, if it is there
			return fmt.Errorf("PostgreSQL does not get ready:\n%s", bytes.TrimSpace(log))
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Pause stops the server for a while, as if its machine hung; Resume lets it go on.
func (s *Server) Pause() error { return s.signalAll(syscall.SIGSTOP) }

// Resume ends a Pause.
func (s *Server) Resume() error { return s.signalAll(syscall.SIGCONT) }

// signalAll sends a signal to the server's first process, which makes the others, and then to those.
func (s *Server) signalAll(signal syscall.Signal) error {
	if err := s.cmd.Process.Signal(signal); err != nil {
		return err
	}
	path := fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", s.cmd.Process.Pid)
	children, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("looking for the processes of PostgreSQL: %w", err)
	}
	for field := range strings.FieldsSeq(string(children)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return err
		}
		if err := syscall.Kill(pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	return nil
}

// Crash stops the server at once, without a checkpoint; Restart starts it again, and it recovers.
func (s *Server) Crash() error {
	if err := s.cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		return err
	}
	_ = s.cmd.Wait() // that it was told to end is no news
	return nil
}

// Restart ends a Crash.
func (s *Server) Restart() error { return s.run() }

// Stop ends a server that Start has started, and removes its data.
func (s *Server) Stop() error {
	if s.cmd != nil && s.cmd.Process != nil {
		_ = s.cmd.Process.Signal(syscall.SIGQUIT) // it may have ended by itself
		_ = s.cmd.Wait()
	}
	if s.dir == "" {
		return nil
	}
	return os.RemoveAll(s.dir)
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, errors.Join(err, l.Close())
}
