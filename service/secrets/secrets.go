package secrets

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// Store is what secrets need of a store.
type Store interface {
	store.Committer
	store.Records
}

// recordKind is the kind of the records of secrets; their keys are the namespace, a slash and the name.
const recordKind = "secret"

// Limits.
const (
	MaxValueBytes = 64 << 10
	maxSecrets    = 1000    // of a namespace
	maxTotal      = 1 << 20 // bytes of the values that one attempt gets: its agent looks for each in many forms
	// minMasked is the length of the shortest value that agents look for in output.
	minMasked = 6
)

// Secret is what is told of a secret: everything but its value.
type Secret struct {
	Namespace string
	Name      string
	Version   int32 // counts the values, from 1
	Created   time.Time
	Updated   time.Time // when it got its present value
}

// record is what is stored.
type record struct {
	Version int32     `json:"version"`
	Created time.Time `json:"created"`
	Updated time.Time `json:"updated"`
	Key     string    `json:"key"` // the id of the key that encrypted the value
	Sealed  []byte    `json:"sealed"`
}

func (r *record) secret(namespace, name string) Secret {
	return Secret{Namespace: namespace, Name: name, Version: r.Version, Created: r.Created, Updated: r.Updated}
}

// Secrets is the keeper of secrets. The methods may be called at once.
type Secrets struct {
	store  Store
	key    *Key
	now    func() time.Time
	logger *slog.Logger
	mu     sync.Mutex // makes reading and writing one step
}

// New makes the keeper of the secrets in a store.
func New(db Store, key *Key, now func() time.Time, logger *slog.Logger) *Secrets {
	return &Secrets{store: db, key: key, now: now, logger: logger}
}

// Set makes a secret or gives it another value, which is durable when it returns. The warnings are for the owner.
func (s *Secrets) Set(ctx context.Context, namespace, name string, value []byte) (Secret, []string, error) {
	if err := check(namespace, name); err != nil {
		return Secret{}, nil, err
	}
	if len(value) == 0 || len(value) > MaxValueBytes {
		return Secret{}, nil, job.Errorf(job.CodeInvalid, job.ReasonInvalidArgument,
			"value: %d bytes; a secret has from 1 to %d", len(value), MaxValueBytes)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now().UTC()
	r := record{Version: 1, Created: now, Updated: now, Key: s.key.id}
	switch old, err := s.read(ctx, namespace, name); {
	case err == nil:
		r.Version, r.Created = old.Version+1, old.Created
	case job.CodeOf(err) != job.CodeNotFound:
		return Secret{}, nil, err
	default:
		if err := s.room(ctx, namespace); err != nil {
			return Secret{}, nil, err
		}
	}
	r.Sealed = s.key.seal(value, sealContext(namespace, name, r.Version))
	encoded, err := json.Marshal(r)
	if err != nil {
		return Secret{}, nil, err
	}
	if err := s.write(ctx, namespace, name, encoded); err != nil {
		return Secret{}, nil, err
	}
	return r.secret(namespace, name), warnings(name, value), nil
}

func warnings(name string, value []byte) []string {
	if len(value) >= minMasked {
		return nil
	}
	return []string{fmt.Sprintf("the value of %s is shorter than %d bytes: it is not masked in output, because it would be found everywhere",
		name, minMasked)}
}

// room says when a namespace may have no further secret.
func (s *Secrets) room(ctx context.Context, namespace string) error {
	all, err := s.List(ctx, namespace)
	if err == nil && len(all) >= maxSecrets {
		return job.Errorf(job.CodeExhausted, job.ReasonLimitReached,
			"namespace %s has %d secrets, as many as it may; remove some with `hodei secret rm`", namespace, len(all))
	}
	return err
}

// List returns the secrets of a namespace, by name.
func (s *Secrets) List(ctx context.Context, namespace string) ([]Secret, error) {
	records, err := s.store.ListRecords(ctx, recordKind)
	if err != nil {
		return nil, err
	}
	var all []Secret
	for i := range records {
		name, mine := strings.CutPrefix(records[i].Key, namespace+"/")
		if !mine {
			continue
		}
		var r record
		if err := json.Unmarshal(records[i].Value, &r); err != nil {
			s.logger.Error("the record of a secret is damaged; set it again", "namespace", namespace, "secret", name, "error", err)
		}
		all = append(all, r.secret(namespace, name))
	}
	return all, nil
}

// Delete removes a secret; CodeNotFound when there is none.
func (s *Secrets) Delete(ctx context.Context, namespace, name string) error {
	if err := check(namespace, name); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.store.Record(ctx, recordKind, recordKey(namespace, name)); err != nil {
		return explain(err, namespace, name)
	}
	return s.write(ctx, namespace, name, nil)
}

// Check returns an error, a *job.Error, when a spec names a secret that is not there. It is quick for specs without secrets.
func (s *Secrets) Check(ctx context.Context, spec *job.Spec) error {
	for _, name := range spec.SecretNames() {
		if _, err := s.store.Record(ctx, recordKind, recordKey(spec.Namespace, name)); err != nil {
			if job.CodeOf(err) == job.CodeNotFound {
				return job.Errorf(job.CodeInvalid, job.ReasonSecretNotFound, "secrets: %v", explain(err, spec.Namespace, name))
			}
			return err
		}
	}
	return nil
}

// Values returns the values of the secrets that a spec names, by name. It fails with CodeNotFound when one is not there, with
// CodePrecondition when one cannot be decrypted, and with CodeExhausted when they have more than 1 MiB together.
func (s *Secrets) Values(ctx context.Context, spec *job.Spec) (map[string][]byte, error) {
	values, total := make(map[string][]byte), 0
	for _, name := range spec.SecretNames() {
		r, err := s.read(ctx, spec.Namespace, name)
		if err != nil {
			return nil, err
		}
		if values[name], err = s.decrypt(r, spec.Namespace, name); err != nil {
			return nil, err
		}
		if total += len(values[name]); total > maxTotal {
			return nil, job.Errorf(job.CodeExhausted, job.ReasonLimitReached,
				"the secrets of the job have more than %d bytes together; give it fewer or smaller ones", maxTotal)
		}
	}
	return values, nil
}

func (s *Secrets) decrypt(r *record, namespace, name string) ([]byte, error) {
	if r.Key != s.key.id {
		return nil, job.Errorf(job.CodePrecondition, job.ReasonInvalidArgument,
			"the secret %s of namespace %s was encrypted with the key %s and this server has the key %s; give it that one, or set the secret again",
			name, namespace, r.Key, s.key.id)
	}
	value, err := s.key.open(r.Sealed, sealContext(namespace, name, r.Version))
	if err != nil {
		return nil, job.Errorf(job.CodePrecondition, job.ReasonInvalidArgument,
			"the stored value of the secret %s of namespace %s is damaged; set it again", name, namespace)
	}
	return value, nil
}

func (s *Secrets) read(ctx context.Context, namespace, name string) (*record, error) {
	value, err := s.store.Record(ctx, recordKind, recordKey(namespace, name))
	if err != nil {
		return nil, explain(err, namespace, name)
	}
	r := new(record)
	if err := json.Unmarshal(value, r); err != nil {
		s.logger.Error("the record of a secret is damaged", "namespace", namespace, "secret", name, "error", err)
		return &record{}, nil // of no key; setting the secret again repairs it
	}
	return r, nil
}

func (s *Secrets) write(ctx context.Context, namespace, name string, value []byte) error {
	return s.store.Commit(ctx, &store.Batch{Records: []store.Record{{Kind: recordKind, Key: recordKey(namespace, name), Value: value}}})
}

func check(namespace, name string) error {
	if !job.IsSecretName(name) {
		return job.Errorf(job.CodeInvalid, job.ReasonInvalidArgument,
			"name: %q is no name for a secret; use up to 128 letters, digits and '_', no digit first", name)
	}
	return job.CheckNamespace(namespace)
}

func explain(err error, namespace, name string) error {
	if job.CodeOf(err) != job.CodeNotFound {
		return err
	}
	return job.Errorf(job.CodeNotFound, job.ReasonSecretNotFound,
		"namespace %s has no secret %s; set it with `hodei secret set %[2]s`", namespace, name)
}

func recordKey(namespace, name string) string { return namespace + "/" + name }

func sealContext(namespace, name string, version int32) []byte {
	return fmt.Appendf(nil, "hodei secret\x00%s\x00%s\x00%d", namespace, name, version)
}
