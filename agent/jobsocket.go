package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hodei-jobs/hodei/agent/mask"
	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
)

// SocketVariable names the variable by which a step finds the agent's socket.
const SocketVariable = "HODEI_AGENT_SOCKET"

// Limits of what jobs may ask for.
const (
	socketTime      = 10 * time.Second // for one request
	socketCallers   = 64               // at the same time; others wait
	maxSocketBytes  = 1 << 20          // of a request
	maxAddedSecrets = 1000             // of an attempt
	maxAddedBytes   = 64 << 10         // of one, and maxAddedTotal of all together: the masker needs many times that
	maxAddedTotal   = 256 << 10
)

// jobRequest is what a job asks of the agent: one JSON value on a connection, answered by one.
type jobRequest struct {
	Mask     *maskRequest     `json:"mask,omitempty"`
	Progress *progressRequest `json:"progress,omitempty"`
}

type progressRequest struct {
	Fraction float64 `json:"fraction"` // of the work that is done, from 0 to 1
	Message  string  `json:"message"`
}

type maskRequest struct {
	Name  string `json:"name"`
	Value []byte `json:"value"`
}

type jobAnswer struct {
	Warnings []string `json:"warnings,omitempty"`
	Error    string   `json:"error,omitempty"`
}

// jobSocket answers the processes of jobs. Who calls is known by the kernel's word for the process at the other end: only one that
// belongs to a step that runs here is answered, and only about its own attempt.
//
// A number of a process may be another's by the time it is looked at, but where each attempt has a user of its own, not the user's.
type jobSocket struct {
	path     string
	listener *net.UnixListener
	slots    *slots
	callers  chan struct{}
}

// openJobSocket listens in a folder; nil when the machine does not allow it, and then jobs do without.
func openJobSocket(dir string, s *slots) *jobSocket {
	path := filepath.Join(dir, "agent.sock")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err == nil && s.agent.config.users != nil {
		err = os.Chmod(path, 0o666) //nolint:gosec // who may call is decided when they do
	}
	if err != nil {
		s.agent.config.Logger.Warn("jobs cannot reach the agent to have further secrets masked, or to say how far they are", "error", err)
		return nil
	}
	return &jobSocket{path: path, listener: listener, slots: s, callers: make(chan struct{}, socketCallers)}
}

// serve answers until the socket is closed.
func (s *jobSocket) serve() {
	if s == nil {
		return
	}
	for {
		conn, err := s.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.slots.agent.config.Logger.Warn("a job could not reach the agent", "error", err)
			time.Sleep(diskRetry) // out of descriptors, say
			continue
		}
		s.callers <- struct{}{}
		go func() {
			defer func() { <-s.callers }()
			defer conn.Close() //nolint:errcheck // the answer was sent, or nobody waits for it
			_ = conn.SetDeadline(time.Now().Add(socketTime))
			_ = json.NewEncoder(conn).Encode(s.answer(conn))
		}()
	}
}

func (s *jobSocket) close() {
	if s != nil {
		_ = s.listener.Close()
	}
}

func (s *jobSocket) answer(conn *net.UnixConn) jobAnswer {
	var request jobRequest
	if err := json.NewDecoder(io.LimitReader(conn, maxSocketBytes)).Decode(&request); err != nil || (request.Mask == nil && request.Progress == nil) {
		return jobAnswer{Error: "the request is not one that this agent knows; use the program of the version of the agent"}
	}
	t, err := s.caller(conn)
	if err != nil {
		return jobAnswer{Error: err.Error()}
	}
	if request.Progress != nil {
		return t.setProgress(request.Progress)
	}
	return t.addMask(request.Mask)
}

// caller finds the attempt to which the process at the other end belongs.
func (s *jobSocket) caller(conn *net.UnixConn) (*attempt, error) {
	pid, uid, err := peer(conn)
	if err != nil {
		return nil, err
	}
	for _, t := range s.slots.all() {
		if t.has(pid, uid) {
			return t, nil
		}
	}
	return nil, fmt.Errorf("process %d belongs to no step that runs here; only jobs may use this socket", pid)
}

// has reports whether a process of a user belongs to the step that runs.
func (t *attempt) has(pid int, uid uint32) bool {
	t.mu.Lock()
	process := t.process
	t.mu.Unlock()
	return process != nil && (t.account == nil || t.account.UID == uid) && process.Has(pid)
}

// addMask has a further secret replaced in everything that the attempt writes from now on.
func (t *attempt) addMask(r *maskRequest) jobAnswer {
	switch n := t.added.Add(1); {
	case n > maxAddedSecrets:
		return jobAnswer{Error: fmt.Sprintf("at most %d secrets may be added to an attempt", maxAddedSecrets)}
	case t.addedBytes.Add(int64(len(r.Value))) > maxAddedTotal:
		return jobAnswer{Error: fmt.Sprintf("the secrets that are added to an attempt may have at most %d bytes together", maxAddedTotal)}
	case len(r.Value) == 0 || len(r.Value) > maxAddedBytes || len(r.Name) > maxSecretName:
		return jobAnswer{Error: fmt.Sprintf("a secret has from 1 to %d bytes, and a name of at most %d", maxAddedBytes, maxSecretName)}
	}
	name := r.Name
	if name == "" {
		name = "added"
	}
	return jobAnswer{Warnings: t.masks.Add(mask.Secret{Name: name, Value: r.Value})}
}

const maxSecretName = 128

const (
	maxProgressBytes = 256 // of a message
	// progressPause is how often the server is told of an attempt's progress at most; the latest counts.
	progressPause = time.Second
)

// setProgress takes in how far the job says that it is.
func (t *attempt) setProgress(r *progressRequest) jobAnswer {
	if !(r.Fraction >= 0 && r.Fraction <= 1) || len(r.Message) > maxProgressBytes {
		return jobAnswer{Error: fmt.Sprintf("progress is a fraction from 0 to 1, with a message of at most %d bytes", maxProgressBytes)}
	}
	message := strings.ToValidUTF8(string(t.masks.Mask([]byte(r.Message))), "\ufffd")
	t.mu.Lock()
	defer t.mu.Unlock()
	t.progress = &hwpv1.Progress{Permille: int32(math.Round(r.Fraction * 1000)), Message: message}
	switch now := time.Now(); {
	case t.told.After(now): // the timer that runs will tell it
	case now.Sub(t.told) < progressPause:
		t.told = t.told.Add(progressPause)
		time.AfterFunc(t.told.Sub(now), t.tellProgress)
	default:
		t.told = now
		t.agent.outbox.add(t)
	}
	return jobAnswer{}
}

// tellProgress tells the server what was held back, if the end of the attempt does not tell it.
func (t *attempt) tellProgress() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.final == nil {
		t.agent.outbox.add(t)
	}
}

// AddMask has a secret, which it reads to its end, replaced by "****" in everything that the calling job writes from now on, also
// in other forms such as base64. It is for processes of jobs, which find the agent by the variable SocketVariable. The
// replacements are counted under the name, "added" when it is empty. The warnings say what will not be replaced.
func AddMask(ctx context.Context, name string, secret io.Reader) (warnings []string, err error) {
	value, err := io.ReadAll(io.LimitReader(secret, maxAddedBytes+1))
	if err != nil {
		return nil, fmt.Errorf("reading the secret: %w", err)
	}
	return ask(ctx, jobRequest{Mask: &maskRequest{Name: name, Value: value}})
}

// SetProgress tells those who look at the calling job how far it is: a fraction from 0 to 1, and what it does, in a few words.
func SetProgress(ctx context.Context, fraction float64, message string) error {
	_, err := ask(ctx, jobRequest{Progress: &progressRequest{Fraction: fraction, Message: message}})
	return err
}

// ask has the agent of the calling job do something.
func ask(ctx context.Context, request jobRequest) (warnings []string, err error) {
	path := os.Getenv(SocketVariable)
	if path == "" {
		return nil, fmt.Errorf("%s is not set: this is not a job, or its agent has no socket", SocketVariable)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("reaching the agent: %w", err)
	}
	defer conn.Close() //nolint:errcheck // the answer is there, or the error says more
	_ = conn.SetDeadline(time.Now().Add(socketTime))
	if err := json.NewEncoder(conn).Encode(request); err != nil {
		return nil, fmt.Errorf("asking the agent: %w", err)
	}
	var answer jobAnswer
	if err := json.NewDecoder(conn).Decode(&answer); err != nil {
		return nil, fmt.Errorf("the agent's answer: %w", err)
	}
	if answer.Error != "" {
		return nil, errors.New(answer.Error)
	}
	return answer.Warnings, nil
}
