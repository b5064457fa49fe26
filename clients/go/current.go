package hodei

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"
)

// socketTime is how long the agent may take for an answer.
const socketTime = 10 * time.Second

// CurrentJob is the job that this process belongs to.
type CurrentJob struct {
	ID        string
	Name      string
	Namespace string
	Queue     string
	Attempt   int // counted from 1
	Step      string
	StepIndex int // counted from 0
	socket    string
}

// ErrNotInJob says that this process was not started by an agent.
var ErrNotInJob = errors.New("this process runs in no job: HODEI_JOB_ID is not set")

// Current returns the job that this process belongs to; ErrNotInJob when there is none.
func Current() (*CurrentJob, error) {
	j := &CurrentJob{
		ID: os.Getenv("HODEI_JOB_ID"), Name: os.Getenv("HODEI_JOB_NAME"), Namespace: os.Getenv("HODEI_NAMESPACE"),
		Queue: os.Getenv("HODEI_QUEUE"), Step: os.Getenv("HODEI_STEP"), socket: os.Getenv("HODEI_AGENT_SOCKET"),
	}
	if j.ID == "" {
		return nil, ErrNotInJob
	}
	var err, err2 error
	j.Attempt, err = strconv.Atoi(os.Getenv("HODEI_ATTEMPT"))
	j.StepIndex, err2 = strconv.Atoi(os.Getenv("HODEI_STEP_INDEX"))
	if err = errors.Join(err, err2); err != nil {
		return nil, fmt.Errorf("what the agent says of this job makes no sense: %w", err)
	}
	return j, nil
}

// agentRequest is what a job asks of its agent: one JSON value on a connection, answered by one.
type agentRequest struct {
	Mask     *maskRequest     `json:"mask,omitempty"`
	Progress *progressRequest `json:"progress,omitempty"`
}

type maskRequest struct {
	Name  string `json:"name"`
	Value []byte `json:"value"`
}

type progressRequest struct {
	Fraction float64 `json:"fraction"`
	Message  string  `json:"message"`
}

// Mask has a secret replaced by "****" in everything that the job writes from now on, also in other forms such as base64. The
// replacements are counted under the name; "added" when it is empty. The warnings say what will not be replaced.
func (j *CurrentJob) Mask(ctx context.Context, name string, secret []byte) (warnings []string, err error) {
	return j.ask(ctx, agentRequest{Mask: &maskRequest{Name: name, Value: secret}})
}

// Progress tells those who look at the job how far it is: a fraction from 0 to 1, and what it does.
func (j *CurrentJob) Progress(ctx context.Context, fraction float64, message string) error {
	_, err := j.ask(ctx, agentRequest{Progress: &progressRequest{Fraction: fraction, Message: message}})
	return err
}

func (j *CurrentJob) ask(ctx context.Context, request agentRequest) (warnings []string, err error) {
	if j.socket == "" {
		return nil, errors.New("HODEI_AGENT_SOCKET is not set: the agent of this job has no socket")
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", j.socket)
	if err != nil {
		return nil, fmt.Errorf("reaching the agent: %w", err)
	}
	defer conn.Close() //nolint:errcheck // the answer is there, or the error says more
	if err := conn.SetDeadline(time.Now().Add(socketTime)); err != nil {
		return nil, err
	}
	if err := json.NewEncoder(conn).Encode(request); err != nil {
		return nil, fmt.Errorf("asking the agent: %w", err)
	}
	var answer struct {
		Warnings []string `json:"warnings"`
		Error    string   `json:"error"`
	}
	if err := json.NewDecoder(conn).Decode(&answer); err != nil {
		return nil, fmt.Errorf("the agent's answer: %w", err)
	}
	if answer.Error != "" {
		return nil, errors.New(answer.Error)
	}
	return answer.Warnings, nil
}
