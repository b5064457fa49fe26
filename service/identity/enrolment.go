package identity

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/oklog/ulid/v2"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// workerRecord is the kind of the records of enrolled workers; their keys are the workers' ids.
const workerRecord = "worker"

// maxNameLength bounds what an agent may call itself, in characters.
const maxNameLength = 128

// Enrolment gives agents their identity. Its methods may be called from several goroutines at once.
type Enrolment struct {
	authority *Authority
	tokens    *Tokens
}

// NewEnrolment makes an Enrolment.
func NewEnrolment(authority *Authority, tokens *Tokens) *Enrolment {
	return &Enrolment{authority: authority, tokens: tokens}
}

// CADER returns the CA's certificate in DER. The caller must not change it.
func (e *Enrolment) CADER() []byte { return e.authority.CADER() }

// EnrollRequest is what an agent sends to get an identity.
type EnrollRequest struct {
	Token string // the secret
	CSR   []byte // PKCS #10, DER, for an ECDSA P-256 key
	Name  string // 1 to 128 printable characters
}

// EnrolledWorker is what is known of a worker from its enrolment.
type EnrolledWorker struct {
	Name     string            `json:"name"`
	Labels   map[string]string `json:"labels,omitempty"` // from the token; the agent cannot change them
	TokenID  string            `json:"token_id"`
	Enrolled time.Time         `json:"enrolled"`
}

// Enroll trades a token for an identity: a new worker and its certificate in DER. When it returns, the use of the token and
// the worker are stored, both in one commit. A request that is wrong in another way does not use the token up.
func (e *Enrolment) Enroll(ctx context.Context, r EnrollRequest) (job.WorkerID, []byte, error) {
	if err := checkName(r.Name); err != nil {
		return "", nil, err
	}
	id := job.WorkerID("wkr_" + strings.ToLower(ulid.Make().String()))
	var certificate []byte
	// The CA signs only for those who hold a token, and nothing is used up when it does not sign.
	err := e.tokens.redeem(ctx, r.Token, func(t Token) (record store.Record, err error) {
		if certificate, err = e.authority.SignAgent(r.CSR, id); err != nil {
			return store.Record{}, err
		}
		value, err := json.Marshal(EnrolledWorker{Name: r.Name, Labels: t.Labels, TokenID: t.ID, Enrolled: e.tokens.now().UTC()})
		return store.Record{Kind: workerRecord, Key: string(id), Value: value}, err
	})
	if err != nil {
		return "", nil, err
	}
	return id, certificate, nil
}

func checkName(name string) error {
	strange := strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) })
	if name == "" || utf8.RuneCountInString(name) > maxNameLength || strange || !utf8.ValidString(name) {
		// Only the beginning is repeated: anybody may send a name, of any length.
		return job.Errorf(job.CodeInvalid, job.ReasonInvalidArgument,
			"the worker's name %.32q must have 1 to %d printable characters; set it with --name", name, maxNameLength)
	}
	return nil
}

// Renew signs a new certificate, in DER, for a worker that has proved its identity. One that is not enrolled is refused.
func (e *Enrolment) Renew(ctx context.Context, id job.WorkerID, csr []byte) ([]byte, error) {
	if _, err := e.Worker(ctx, id); err != nil {
		return nil, err
	}
	return e.authority.SignAgent(csr, id)
}

// Worker returns what is known of an enrolled worker. One that is not known, because this is not the store that it enrolled
// with, is refused.
func (e *Enrolment) Worker(ctx context.Context, id job.WorkerID) (EnrolledWorker, error) {
	var w EnrolledWorker
	value, err := e.tokens.store.Record(ctx, workerRecord, string(id))
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
