package identity

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/hodei-jobs/hodei/service/audit/chain"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// Store is what identity needs of a store.
type Store interface {
	store.Committer
	store.Records
}

// tokenRecord is the kind of the records of tokens; their keys are hashes of the secrets.
const tokenRecord = "agent-token"

// secretPrefix lets people and scanners see what a secret is for.
const secretPrefix = "hat_"

// Defaults of CreateOptions.
const (
	defaultTokenTTL = time.Hour
	maxTokenTTL     = 30 * 24 * time.Hour
)

// Token is what is stored of a token: everything but its secret.
type Token struct {
	ID       string            `json:"id"` // "tok_" and a ULID
	Expires  time.Time         `json:"expires"`
	UsesLeft int               `json:"uses_left"`        // how many agents may still enrol
	Labels   map[string]string `json:"labels,omitempty"` // that every agent enrolled with it gets
	Queues   []string          `json:"queues,omitempty"` // whose jobs alone these agents get; empty: all

	Created   time.Time `json:"created"`
	CreatedBy string    `json:"created_by"`
}

// CreateOptions say what a token is good for.
type CreateOptions struct {
	TTL     time.Duration     // up to 30 days; 0: one hour
	MaxUses int               // how many agents may enrol with it; 0: one
	Labels  map[string]string // that every agent enrolled with it gets
	Queues  []string          // "namespace/queue" or "namespace/*": whose jobs alone these agents get; empty: all

	CreatedBy string // who makes it: "user/ada"
}

// Tokens makes and redeems tokens. Only hashes of the secrets are stored. The methods may be called at once.
type Tokens struct {
	store Store
	now   func() time.Time
	mu    sync.Mutex // makes looking and using one step
}

// NewTokens makes Tokens on a store.
func NewTokens(db Store, now func() time.Time) *Tokens { return &Tokens{store: db, now: now} }

// Create makes a token; the secret is not kept. Tokens that have expired are forgotten on this occasion.
func (t *Tokens) Create(ctx context.Context, options CreateOptions) (Token, string, error) {
	if options.TTL == 0 {
		options.TTL = defaultTokenTTL
	}
	if options.MaxUses == 0 {
		options.MaxUses = 1
	}
	if options.TTL < 0 || options.TTL > maxTokenTTL || options.MaxUses < 0 {
		return Token{}, "", job.Errorf(job.CodeInvalid, job.ReasonInvalidArgument,
			"a token may live up to %v, not %v, and must have at least one use, not %d", maxTokenTTL, options.TTL, options.MaxUses)
	}
	if err := checkQueues(options.Queues); err != nil {
		return Token{}, "", err
	}
	random := make([]byte, 32)
	if _, err := rand.Read(random); err != nil {
		return Token{}, "", err
	}
	secret := secretPrefix + base64.RawURLEncoding.EncodeToString(random)
	token := Token{
		ID:      "tok_" + strings.ToLower(ulid.Make().String()),
		Expires: t.now().Add(options.TTL).UTC(), UsesLeft: options.MaxUses, Labels: options.Labels, Queues: options.Queues,
		Created: t.now().UTC(), CreatedBy: options.CreatedBy,
	}
	chain.About(ctx, "token/"+token.ID)
	t.mu.Lock()
	defer t.mu.Unlock()
	expired, err := t.expired(ctx)
	if err != nil {
		return Token{}, "", err
	}
	if err := t.write(ctx, tokenKey(secret), &token, expired...); err != nil {
		return Token{}, "", err
	}
	return token, secret, nil
}

// checkQueues refuses scopes that no queue could be in: an agent that they bind would wait for ever.
func checkQueues(queues []string) error {
	for _, scope := range queues {
		namespace, name, _ := strings.Cut(scope, "/")
		queue := job.DefaultQueueSettings(namespace, name)
		if name == "*" {
			queue = job.DefaultQueueSettings(namespace, job.DefaultQueue)
		}
		if err := queue.Validate(); err != nil {
			return job.Errorf(job.CodeInvalid, job.ReasonInvalidArgument,
				"the queue %.64q is not of the form NAMESPACE/QUEUE or NAMESPACE/*: %v", scope, err)
		}
	}
	return nil
}

// expired returns deletions of the tokens that nobody can use any more. Damaged records are left for people to look at.
func (t *Tokens) expired(ctx context.Context) ([]store.Record, error) {
	records, err := t.store.ListRecords(ctx, tokenRecord)
	if err != nil {
		return nil, err
	}
	now := t.now()
	var gone []store.Record
	for _, r := range records {
		var token Token
		if json.Unmarshal(r.Value, &token) == nil && !now.Before(token.Expires) {
			gone = append(gone, store.Record{Kind: tokenRecord, Key: r.Key})
		}
	}
	return gone, nil
}

// List returns the tokens that are good still, the oldest first. Damaged records are left out.
func (t *Tokens) List(ctx context.Context) ([]Token, error) {
	records, err := t.store.ListRecords(ctx, tokenRecord)
	if err != nil {
		return nil, err
	}
	now := t.now()
	var all []Token
	for _, r := range records {
		var token Token
		if json.Unmarshal(r.Value, &token) == nil && now.Before(token.Expires) {
			all = append(all, token)
		}
	}
	slices.SortFunc(all, func(a, b Token) int { return strings.Compare(a.ID, b.ID) })
	return all, nil
}

// Revoke removes a token. CodeNotFound when there is none.
func (t *Tokens) Revoke(ctx context.Context, id string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	records, err := t.store.ListRecords(ctx, tokenRecord)
	if err != nil {
		return err
	}
	for _, r := range records {
		var token Token
		if json.Unmarshal(r.Value, &token) == nil && token.ID == id {
			return t.write(ctx, r.Key, &Token{})
		}
	}
	return noToken(id)
}

func tokenKey(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// write stores a token, or removes it when it has no use left. extra is written in the same commit.
func (t *Tokens) write(ctx context.Context, key string, token *Token, extra ...store.Record) error {
	record := store.Record{Kind: tokenRecord, Key: key}
	if token.UsesLeft > 0 {
		value, err := json.Marshal(token)
		if err != nil {
			return err
		}
		record.Value = value
	}
	return t.store.Commit(ctx, &store.Batch{Records: append(extra, record)})
}

// redeem uses a token once, together with a record that the use gives rise to. Of several at the same time only as many
// succeed as the token has uses left. The error of one that is refused is a *job.Error that says why.
func (t *Tokens) redeem(ctx context.Context, secret string, use func(Token) (store.Record, error)) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := tokenKey(secret)
	value, err := t.store.Record(ctx, tokenRecord, key)
	if err != nil {
		if job.CodeOf(err) == job.CodeNotFound {
			return refused("the token is not known here, or was used up")
		}
		return err
	}
	var token Token
	if err := json.Unmarshal(value, &token); err != nil {
		return fmt.Errorf("the record of a token is damaged: %w", err)
	}
	if !t.now().Before(token.Expires) {
		return refused(fmt.Sprintf("the token expired on %s", token.Expires.UTC().Format(time.RFC3339)))
	}
	record, err := use(token)
	if err != nil {
		return err
	}
	token.UsesLeft--
	return t.write(ctx, key, &token, record)
}

func refused(why string) error {
	return job.Errorf(job.CodeUnauthenticated, job.ReasonTokenRefused, "%s; make a new one with `hodei token create`", why)
}
