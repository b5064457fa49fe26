// Package agent runs jobs on a machine. It dials the server, nothing dials it: one stream carries assignments in, and
// reports, output and heartbeats out.
//
// What the agent has to say it keeps on disk until the server has acknowledged it, so neither a restart of the server nor
// a lost connection loses anything, and a restart of the agent loses only what ran.
package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/hodei-jobs/hodei/agent/runner"
	"github.com/hodei-jobs/hodei/agent/runner/procrunner"
)

// Config says which server an agent serves and what it offers.
type Config struct {
	// ServerURL is the API of the server, "https://host:port".
	ServerURL string
	// StateDir holds the agent's identity, its journal and what waits to be sent. It belongs to one agent alone.
	StateDir string
	// Token is the secret of an enrolment token; needed only until the agent has an identity.
	Token string
	// CAPin is "sha256:" and the hash of the CA's public key, as `hodei token create` prints it; needed with Token.
	CAPin string
	// Name of the worker; the host's name when empty.
	Name string
	// Labels for constraints, besides os, arch and hostname.
	Labels map[string]string
	// Taints keep jobs away that do not tolerate all of them.
	Taints []string
	// Capacity replaces what the machine is measured to have, where a field is not zero.
	Capacity Capacity
	// SpoolLimitBytes bounds how much output of one attempt waits on the disk; then its processes wait too. Default 1 GiB.
	SpoolLimitBytes int64
	// Drain, when it is closed, makes the agent take no new jobs and return when those that run have ended.
	Drain <-chan struct{}
	// RunAs says who steps run as: a user's name or UID, or a range of UIDs, "200000-200063", of which each attempt that runs has one of
	// its own. The agent must be root then. Default: the agent's own user.
	RunAs string
	// Runner starts steps. Default: processes of this machine.
	Runner runner.Runner
	// Version is shown by the server.
	Version string
	// Logger takes the agent's log. Default: none.
	Logger *slog.Logger

	users *users // what RunAs says
}

// Capacity is what a machine has for jobs.
type Capacity struct {
	MilliCPU  int32
	MemoryMiB int32
	Extras    map[string]int32
	Slots     int32 // attempts at the same time
}

const defaultSpoolLimit = 1 << 30

// stopTime is how long a stopping agent tries to get its last reports acknowledged.
const stopTime = 2 * time.Second

func (c Config) withDefaults() (Config, error) {
	if c.ServerURL == "" {
		return c, errors.New("no server was given; set --server to the address that `hodei token create` prints")
	}
	if c.StateDir == "" {
		return c, errors.New("no folder for the agent's state was given; set --state-dir")
	}
	if err := c.checkOffer(); err != nil {
		return c, err
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	if c.Name == "" {
		c.Name = host
	}
	labels := map[string]string{"os": runtime.GOOS, "arch": runtime.GOARCH, "hostname": host}
	maps.Copy(labels, c.Labels)
	c.Labels = labels
	if c.SpoolLimitBytes <= 0 {
		c.SpoolLimitBytes = defaultSpoolLimit
	}
	if c.Version == "" {
		c.Version = "dev"
	}
	c.Capacity = c.Capacity.measured()
	if c.users, err = newUsers(c.RunAs, passwdFile, groupFile); err != nil {
		return c, err
	}
	if most := c.users.size(); int(c.Capacity.Slots) > most {
		c.Logger.Warn("fewer jobs run at a time, because --run-as has no more UIDs", "slots", most, "instead_of", c.Capacity.Slots)
		c.Capacity.Slots = int32(most)
	}
	return c, nil
}

// Run serves until the context ends, which ends all jobs that run here, or until the agent has drained. It returns an error
// when the agent cannot begin: no identity and no token, a state folder that cannot be used.
func Run(ctx context.Context, config Config) error {
	config, err := config.withDefaults()
	if err != nil {
		return err
	}
	release, err := config.users.claim(claimsFile)
	if err != nil {
		return fmt.Errorf("--run-as %s: %w", config.RunAs, err)
	}
	defer release()
	if err := config.users.open(config.StateDir); err != nil {
		return fmt.Errorf("making the agent's state folder: %w", err)
	}
	unlock, err := lockState(config.StateDir)
	if err != nil {
		return err
	}
	defer unlock()
	if config.Runner == nil {
		hideMemory()
		options := procrunner.Options{Logger: config.Logger, Instance: instance(config.StateDir)}
		if config.users.ranged() {
			options.Owns = config.users.owns
		}
		config.Runner = procrunner.New(options)
	}
	if err := config.Runner.Recover(); err != nil {
		config.Logger.Warn("left-overs of a former agent may still run", "error", err)
	}
	id, err := openIdentity(ctx, config)
	if err != nil {
		return err
	}
	a, err := newAgent(config, id)
	if err != nil {
		return err
	}
	err = errors.Join(a.run(ctx), a.journal.close())
	a.workDirs.close()
	_ = os.RemoveAll(a.private.Name()) // what is left is removed at the next start
	_ = a.private.Close()
	if closer, ok := config.Runner.(io.Closer); ok {
		err = errors.Join(err, closer.Close())
	}
	return err
}

// instance names this agent among those of the machine.
func instance(stateDir string) string {
	path, err := filepath.Abs(stateDir)
	if err != nil {
		path = stateDir
	}
	sum := sha256.Sum256([]byte(path))
	return hex.EncodeToString(sum[:6])
}

// agent is a running agent.
type agent struct {
	config   Config
	identity *identity
	journal  *journal
	outbox   *outbox
	slots    *slots
	workDirs *workDirs
	// private is the folder for what must not reach a disk.
	private   *os.Root
	jobSocket *jobSocket // nil: none
	lease     *lease
	wake      chan struct{} // has an element when there is something to send
	bootID    string
	dials     uint64 // the number of the newest session; of the goroutine that opens them
	forgetful bool   // attempts that a former life had taken may be unknown
}

func newAgent(config Config, id *identity) (*agent, error) {
	a := &agent{
		config: config, identity: id, wake: make(chan struct{}, 1), bootID: newBootID(), lease: newLease(),
		dials: uint64(time.Now().UnixMilli()),
	}
	journal, past, err := openJournal(filepath.Join(config.StateDir, "journal"), machineBoot())
	if err != nil {
		return nil, err
	}
	a.journal, a.forgetful = journal, past.forgetful
	if a.workDirs, err = newWorkDirs(filepath.Join(config.StateDir, "work"), config.users); err != nil {
		return nil, errors.Join(err, journal.close())
	}
	if a.private, err = newPrivateDir(config); err != nil {
		return nil, errors.Join(err, journal.close())
	}
	a.outbox = newOutbox(journal, a.signal, a.journalFailed)
	a.slots = newSlots(a)
	a.jobSocket = openJobSocket(a.private.Name(), a.slots)
	journal.live = a.slots.live
	return a, a.slots.restore(past.attempts)
}

// journalFailed tells that the journal cannot be written. Work goes on: only a crash of the agent would show the gap.
func (a *agent) journalFailed(err error) {
	a.config.Logger.Error("the agent's journal cannot be written; should the agent crash, attempts that have ended count as lost", "error", err)
}

// signal wakes the writer of the session.
func (a *agent) signal() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// run keeps a session open until the agent stops.
func (a *agent) run(ctx context.Context) error {
	sessions, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.keepConnected(sessions)
	}()
	go a.jobSocket.serve()
	defer a.jobSocket.close()
	go a.outbox.run(sessions)
	go a.slots.sweep(sessions)
	go a.lease.guard(sessions, a.slots.fence)
	select {
	case <-ctx.Done():
	case <-a.config.Drain:
		a.config.Logger.Info("draining: no new jobs are taken, the agent stops when those that run have ended")
		a.outbox.drain()
		a.slots.awaitIdle(ctx)
	}
	a.slots.stopAll("the agent was stopped")
	flushed, cancel := context.WithTimeout(sessions, stopTime)
	defer cancel()
	a.slots.awaitForgotten(flushed)
	stop()
	<-done
	return nil
}
