package identity

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/oklog/ulid/v2"

	"github.com/hodei-jobs/hodei/service/audit/chain"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// The kinds of the records of enrolled workers; their keys are the workers' ids. Earlier versions wrote them where the orchestrator keeps
// what it knows of workers, and so lost what only they said.
const (
	workerRecord = "enrolled-worker"
	formerRecord = "worker"
)

// maxNameLength bounds what an agent may call itself, in characters.
const maxNameLength = 128

// EnrolmentConfig says what an Enrolment works with.
type EnrolmentConfig struct {
	Authority *Authority // required
	Tokens    *Tokens    // required
	// Cloned is told of a worker whose identity two agents use, and how that was seen, at each try of the one that is refused. It may be
	// called from several goroutines at once, and the agent waits for it. Default: nobody is told.
	Cloned func(ctx context.Context, worker job.WorkerID, why string)
}

// Enrolment gives agents their identity, and watches over it. Its methods may be called from several goroutines at once.
type Enrolment struct {
	authority *Authority
	tokens    *Tokens
	cloned    func(ctx context.Context, worker job.WorkerID, why string)

	mu      sync.Mutex
	workers map[job.WorkerID]*sightings
}

// NewEnrolment makes an Enrolment.
func NewEnrolment(config EnrolmentConfig) *Enrolment {
	if config.Cloned == nil {
		config.Cloned = func(context.Context, job.WorkerID, string) {}
	}
	return &Enrolment{
		authority: config.Authority, tokens: config.Tokens, cloned: config.Cloned, workers: make(map[job.WorkerID]*sightings),
	}
}

// EnrollRequest is what an agent sends to get an identity.
type EnrollRequest struct {
	Token string // the secret
	CSR   []byte // PKCS #10, DER, for an ECDSA P-256 key
	Name  string // 1 to 128 printable characters
}

// EnrolledWorker is what is known of a worker from its enrolment, and of its certificates.
type EnrolledWorker struct {
	Name       string            `json:"name"`
	Labels     map[string]string `json:"labels,omitempty"` // from the token; the agent cannot change them
	Queues     []string          `json:"queues,omitempty"` // from the token: whose jobs alone it gets; empty: all
	TokenID    string            `json:"token_id"`
	Enrolled   time.Time         `json:"enrolled"`
	Generation int               `json:"generation,omitempty"` // of the last certificate that was issued; 0: by an earlier version
	Used       int               `json:"used,omitempty"`       // the newest generation with which it has connected
	Root       string            `json:"root,omitempty"`       // the pin above the certificate that was issued or used last
	Expires    time.Time         `json:"expires,omitzero"`     // of the last certificate that was issued
}

// Enroll trades a token for an identity: a new worker and its certificate. When it returns, the use of the token and the worker
// are stored, both in one commit. A request that is wrong in another way does not use the token up.
func (e *Enrolment) Enroll(ctx context.Context, r EnrollRequest) (job.WorkerID, Issued, error) {
	if err := checkName(r.Name); err != nil {
		return "", Issued{}, err
	}
	id := job.WorkerID("wkr_" + strings.ToLower(ulid.Make().String()))
	chain.About(ctx, "worker/"+string(id))
	var issued Issued
	// The CA signs only for those who hold a token, and nothing is used up when it does not sign.
	err := e.tokens.redeem(ctx, r.Token, func(t Token) (record store.Record, err error) {
		if issued, err = e.authority.SignAgent(r.CSR, id, 1); err != nil {
			return store.Record{}, err
		}
		return workerToRecord(id, &EnrolledWorker{
			Name: r.Name, Labels: t.Labels, Queues: t.Queues, TokenID: t.ID, Enrolled: e.tokens.now().UTC(),
			Generation: 1, Root: issued.Root, Expires: issued.Expires,
		})
	})
	if err != nil {
		return "", Issued{}, err
	}
	return id, issued, nil
}

func checkName(name string) error {
	if !printable(name, maxNameLength) {
		// Only the beginning is repeated: anybody may send a name, of any length.
		return job.Errorf(job.CodeInvalid, job.ReasonInvalidArgument,
			"the worker's name %.32q must have 1 to %d printable characters; set it with --name", name, maxNameLength)
	}
	return nil
}

// printable reports whether a name has 1 to limit characters that can all be seen.
func printable(name string, limit int) bool {
	strange := strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) })
	return name != "" && utf8.RuneCountInString(name) <= limit && !strange && utf8.ValidString(name)
}

// Renew signs a new certificate for a worker that has proved its identity. When it returns, its generation is stored. A worker that
// is not enrolled is refused.
func (e *Enrolment) Renew(ctx context.Context, id job.WorkerID, csr []byte) (Issued, error) {
	s := e.sightings(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	w, err := e.Worker(ctx, id)
	if err != nil {
		return Issued{}, err
	}
	issued, err := e.authority.SignAgent(csr, id, w.Generation+1)
	if err != nil {
		return Issued{}, err
	}
	w.Generation++
	w.Root, w.Expires = issued.Root, issued.Expires
	return issued, e.write(ctx, id, &w)
}

// Worker returns what is known of an enrolled worker. One that is not known, because this is not the store that it enrolled
// with, is refused.
func (e *Enrolment) Worker(ctx context.Context, id job.WorkerID) (EnrolledWorker, error) {
	return e.read(ctx, workerRecord, id)
}

func (e *Enrolment) read(ctx context.Context, kind string, id job.WorkerID) (EnrolledWorker, error) {
	var w EnrolledWorker
	value, err := e.tokens.store.Record(ctx, kind, string(id))
	if err != nil {
		if job.CodeOf(err) == job.CodeNotFound {
			return w, job.Errorf(job.CodeDenied, job.ReasonPermissionDenied,
				"worker %s is not enrolled with this server; enrol it again with a new token from `hodei token create`", id)
		}
		return w, err
	}
	if err := json.Unmarshal(value, &w); err != nil {
		return w, fmt.Errorf("the record of worker %s is damaged: %w", id, err)
	}
	return w, nil
}

func (e *Enrolment) write(ctx context.Context, id job.WorkerID, w *EnrolledWorker) error {
	record, err := workerToRecord(id, w)
	if err != nil {
		return err
	}
	return e.tokens.store.Commit(ctx, &store.Batch{Records: []store.Record{record}})
}

func workerToRecord(id job.WorkerID, w *EnrolledWorker) (store.Record, error) {
	value, err := json.Marshal(w)
	return store.Record{Kind: workerRecord, Key: string(id), Value: value}, err
}

// WorkersByRoot counts the workers whose certificate is still good, by the pin of the root above it.
func (e *Enrolment) WorkersByRoot(ctx context.Context) (map[string]int, error) {
	records, err := e.tokens.store.ListRecords(ctx, workerRecord)
	if err != nil {
		return nil, err
	}
	now, counts := e.tokens.now(), make(map[string]int)
	for _, r := range records {
		var w EnrolledWorker
		if json.Unmarshal(r.Value, &w) == nil && now.Before(w.Expires) { // damaged ones cannot connect either
			counts[w.Root]++
		}
	}
	return counts, nil
}

// Retire ends the trust in the root before the one that signs. A *job.Error says that workers depend on it, which must enrol again if
// it is forced, or that there is no such root.
func (e *Enrolment) Retire(ctx context.Context, force bool) error {
	if pins := e.authority.Pins(); len(pins) == 2 && !force {
		counts, err := e.WorkersByRoot(ctx)
		if err != nil {
			return err
		}
		if n := counts[pins[1]]; n > 0 {
			return job.Errorf(job.CodePrecondition, job.ReasonUnavailable,
				"%d workers still have certificates of the old root; wait until they have connected, or a day, or use --force and enrol them again", n)
		}
	}
	return e.authority.Retire()
}
