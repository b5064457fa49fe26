package audit

import (
	"context"
	"crypto/sha256"

	"github.com/hodei-jobs/hodei/service/audit/chain"
	"github.com/hodei-jobs/hodei/service/store"
)

// Export gives write the lines of the trail from a record on, without their ends: records as they are stored, checkpoints in their
// places, and at the end a fresh one that vouches for everything before it. What is written meanwhile is not in it. Nothing is
// removed before the export has ended, so a caller must not let it hang. An error of write ends it.
//
// What the server remembers of the trail goes before what the store says now: an export of a store that was changed behind the
// server's back shows it.
func (k *Keeper) Export(ctx context.Context, from uint64, write func(line []byte) error) error {
	k.exporting.RLock()
	defer k.exporting.RUnlock()
	signed := k.newestCheckpoint() // before the newest record is looked up, which is not older then
	last, err := k.newest(ctx)
	if err != nil {
		return err
	}
	first := max(from, signed.First, 1)
	if err := k.exportRecords(ctx, first, last.seq, &signed, write); err != nil {
		return err
	}
	closing := chain.Checkpoint{Seq: last.seq, First: first, Time: k.config.Clock().UTC(), Hash: last.hash}
	if last.seq < signed.Seq { // the end is gone, and the export has to say so
		closing.Seq, closing.Hash = signed.Seq, signed.Hash
	}
	return write(closing.Sign(k.config.Key))
}

// exportRecords writes records, and the checkpoints that stand between two of them.
func (k *Keeper) exportRecords(ctx context.Context, first, last uint64, signed *chain.Checkpoint, write func([]byte) error) error {
	behind := store.RecordPage{After: chain.Key(first - 1)}
	records, checkpoints := k.pager(chain.Kind, behind), k.pager(chain.CheckpointKind, behind)
	c, _, err := checkpoints.next(ctx)
	if err != nil {
		return err
	}
	for {
		r, ok, err := records.next(ctx)
		if err != nil || !ok || r.Key > chain.Key(last) {
			return err
		}
		for ; err == nil && c.Key != "" && c.Key < r.Key; c, _, err = checkpoints.next(ctx) {
			if err := write(c.Value); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
		if err := write(r.Value); err != nil {
			return err
		}
		if r.Key == chain.Key(signed.Seq) && sha256.Sum256(r.Value) != signed.Hash {
			if err := write(signed.Sign(k.config.Key)); err != nil {
				return err
			}
		}
	}
}
