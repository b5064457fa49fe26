package audit

import (
	"context"
	"log/slog"
	"time"

	"github.com/hodei-jobs/hodei/service/audit/chain"
	"github.com/hodei-jobs/hodei/service/store"
)

type Config struct {
	Store interface {
		store.Committer
		store.Records
	}
	Dir, CheckpointFile string
	Keep                time.Duration
	Clock               func() time.Time
	Logger              *slog.Logger
	Alarm               func(string)
}
type Keeper struct{}

func New(Config) (*Keeper, error)            { return &Keeper{}, nil }
func (k *Keeper) Run(ctx context.Context) error { <-ctx.Done(); return nil }

type Filter struct {
	Namespace, Actor, Action, Outcome, Target string
	Since, Until                              time.Time
}

func (k *Keeper) List(context.Context, Filter, uint64, int, bool) ([]chain.Record, error) { return nil, nil }
func (k *Keeper) Export(context.Context, uint64, func([]byte) error) error                 { return nil }
func (k *Keeper) PublicKeyPEM() string                                                     { return "" }
