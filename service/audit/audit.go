// Package audit keeps the audit trail: it signs checkpoints of it, lists and exports it, and forgets what is old. The records are
// written by whoever makes a change, in the same commit. What the trail looks like is in package chain.
package audit

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hodei-jobs/hodei/service/audit/chain"
	"github.com/hodei-jobs/hodei/service/store"
)

// Store is what audit needs of a store.
type Store interface {
	store.Committer
	store.Records
}

// Config is what a Keeper works with.
type Config struct {
	Store          Store
	Key            ed25519.PrivateKey // signs checkpoints; see OpenKey
	CheckpointFile string             // where checkpoints are kept besides the store; empty: nowhere
	Every          time.Duration      // between two checkpoints; 0: a minute
	Keep           time.Duration      // how long records are kept; 0: for ever
	Clock          func() time.Time
	Logger         *slog.Logger
	Alarm          func(text string) // told that the trail is not what was signed, in a sentence; nil: nobody
	FileFailed     func()            // told of every checkpoint that could not be written to the file; nil: nobody
}

// lastMoment is how long the checkpoint at the end may take.
const lastMoment = 5 * time.Second

// Keeper keeps a trail. The methods may be called at once, Run once.
type Keeper struct {
	config Config
	public ed25519.PublicKey
	file   checkpointFile

	// The rest but mu belongs to Run.
	begun   bool
	unfiled bool   // the newest checkpoint is not in the file
	alarmed string // what the last alarm said, which is not said again each minute

	exporting sync.RWMutex // held for reading by exports, under which nothing is removed

	mu     sync.Mutex
	signed chain.Checkpoint // the newest one; zero: none
}

// New makes a Keeper. Nothing happens before Run.
func New(config Config) (*Keeper, error) {
	if len(config.Key) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("the key of the audit trail has %d bytes, not %d", len(config.Key), ed25519.PrivateKeySize)
	}
	public, _ := config.Key.Public().(ed25519.PublicKey) // which it is by its type
	if config.Every <= 0 {
		config.Every = time.Minute
	}
	if config.Alarm == nil {
		config.Alarm = func(string) {}
	}
	if config.FileFailed == nil {
		config.FileFailed = func() {}
	}
	return &Keeper{config: config, public: public, file: checkpointFile(config.CheckpointFile)}, nil
}

// Run compares the trail with the newest checkpoint, then signs one of what was added every now and then, and at the end, when the
// context ends: by then nobody should write records any more. Failures are logged, and tried again the next time.
func (k *Keeper) Run(ctx context.Context) error {
	ticker := time.NewTicker(k.config.Every)
	defer ticker.Stop()
	k.tick(ctx)
	for {
		select {
		case <-ticker.C:
			k.tick(ctx)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastMoment)
			defer cancel()
			if err := k.checkpoint(last); err != nil {
				k.config.Logger.Error("the last checkpoint of the audit trail was not made; the next start makes one", "error", err)
			}
			return nil
		}
	}
}

func (k *Keeper) tick(ctx context.Context) {
	if err := k.checkpoint(ctx); err != nil {
		if ctx.Err() == nil {
			k.config.Logger.Error("no checkpoint of the audit trail was made; it is tried again", "error", err)
		}
		return
	}
	if err := k.prune(ctx); err != nil && ctx.Err() == nil {
		k.config.Logger.Error("old records of the audit trail cannot be removed; it is tried again", "error", err)
	}
}

// KeyID names the key that signs checkpoints.
func (k *Keeper) KeyID() string { return chain.KeyID(k.public) }

// PublicKeyPEM returns the key with which checkpoints are verified, as audit-public.pem has it.
func (k *Keeper) PublicKeyPEM() []byte { return publicPEM(k.public) }

// newestCheckpoint returns the newest one that was signed; zero: none.
func (k *Keeper) newestCheckpoint() chain.Checkpoint {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.signed
}

func (k *Keeper) setNewest(c chain.Checkpoint) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.signed = c
}
