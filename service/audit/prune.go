package audit

import (
	"context"
	"time"

	"github.com/hodei-jobs/hodei/service/audit/chain"
	"github.com/hodei-jobs/hodei/service/store"
)

const (
	removePage  = 500 // records that are removed in one commit
	removePages = 100 // commits in a row; the next minute goes on
)

// first returns the oldest record that is to be kept. The next checkpoint says so before anything is removed, so that records that are
// missing at the beginning are known to be removed by somebody else. The newest record is always kept: the chain goes on from it.
func (k *Keeper) first(ctx context.Context, before, newest uint64) (uint64, error) {
	before = max(before, 1)
	if k.config.Keep <= 0 || newest <= before {
		return before, nil
	}
	return k.seek(ctx, before, newest, k.config.Clock().Add(-k.config.Keep))
}

// seek returns the first record from lo to hi that was written at a time or later; hi when there is none. Where the clock was set back,
// it is one of several.
func (k *Keeper) seek(ctx context.Context, lo, hi uint64, at time.Time) (uint64, error) {
	for lo < hi {
		middle := lo + (hi-lo)/2
		found, err := k.config.Store.PageRecords(ctx, chain.Kind, store.RecordPage{After: chain.Key(middle - 1), Limit: 1})
		if err != nil {
			return 0, err
		}
		if len(found) == 0 {
			hi = middle
			continue
		}
		// One that cannot be read is taken for a new one: it must not make others old.
		if r, err := chain.ParseRecord(found[0].Value); err != nil || r.Seq >= hi || !r.Time.Before(at) {
			hi = middle
		} else {
			lo = max(middle, r.Seq) + 1
		}
	}
	return lo, nil
}

// prune removes what the newest checkpoint no longer has, once that is in the file.
func (k *Keeper) prune(ctx context.Context) error {
	first := k.newestCheckpoint().First
	if k.config.Keep <= 0 || first <= 1 || k.unfiled || !k.exporting.TryLock() {
		return nil
	}
	defer k.exporting.Unlock()
	removed := 0
	for _, kind := range []string{chain.Kind, chain.CheckpointKind} {
		for range removePages {
			n, err := k.remove(ctx, kind, chain.Key(first))
			if err != nil {
				return err
			}
			if removed += n; n < removePage {
				break
			}
		}
	}
	if removed > 0 {
		k.config.Logger.Info("old records of the audit trail removed", "records", removed)
	}
	return nil
}

// remove deletes some records of a kind whose keys are before one, and returns how many.
func (k *Keeper) remove(ctx context.Context, kind, before string) (int, error) {
	page, err := k.config.Store.PageRecords(ctx, kind, store.RecordPage{Limit: removePage})
	if err != nil {
		return 0, err
	}
	batch := new(store.Batch)
	for _, r := range page {
		if r.Key < before {
			batch.Records = append(batch.Records, store.Record{Kind: kind, Key: r.Key})
		}
	}
	if batch.Empty() {
		return 0, nil
	}
	return len(batch.Records), k.config.Store.Commit(ctx, batch)
}
