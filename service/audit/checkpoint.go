package audit

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strconv"

	"github.com/hodei-jobs/hodei/service/audit/chain"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// end is a record at an end of the trail, or nothing: number 0.
type end struct {
	seq  uint64
	hash chain.Hash
}

func (k *Keeper) end(ctx context.Context, page store.RecordPage) (end, error) {
	page.Limit = 1
	found, err := k.config.Store.PageRecords(ctx, chain.Kind, page)
	if err != nil || len(found) == 0 {
		return end{}, err
	}
	seq, err := strconv.ParseUint(found[0].Key, 10, 64)
	if err != nil || chain.Key(seq) != found[0].Key {
		return end{}, fmt.Errorf("the audit trail has a record under %q, which is not a number that this program gives", found[0].Key)
	}
	return end{seq, sha256.Sum256(found[0].Value)}, nil
}

func (k *Keeper) newest(ctx context.Context) (end, error) {
	return k.end(ctx, store.RecordPage{Descending: true})
}

// checkpoint signs what is new in the trail, after a look whether what was signed before is still there.
func (k *Keeper) checkpoint(ctx context.Context) error {
	if !k.begun {
		if err := k.begin(ctx); err != nil {
			return err
		}
		k.begun = true
	}
	newest, err := k.newest(ctx)
	if err != nil {
		return err
	}
	before := k.newestCheckpoint()
	if err := k.compare(ctx, before, newest); err != nil {
		return err
	}
	first, err := k.first(ctx, before.First, newest.seq)
	if err != nil {
		return err
	}
	c := chain.Checkpoint{Seq: newest.seq, First: first, Time: k.config.Clock().UTC(), Hash: newest.hash, KeyID: k.KeyID()}
	if !k.unfiled && (before == chain.Checkpoint{} && c.Seq == 0 || c.Seq == before.Seq && c.Hash == before.Hash && c.First == before.First) {
		return nil
	}
	line := c.Sign(k.config.Key)
	batch := &store.Batch{Records: []store.Record{{Kind: chain.CheckpointKind, Key: chain.Key(c.Seq), Value: line}}}
	if err := k.config.Store.Commit(ctx, batch); err != nil {
		return err
	}
	k.setNewest(c)
	k.toFile(line)
	return nil
}

func (k *Keeper) toFile(line []byte) {
	err := k.file.append(line)
	if k.unfiled = err != nil; k.unfiled {
		k.config.FileFailed()
		k.config.Logger.Error("a checkpoint of the audit trail is in the store only; give the file space and its rights back", "error", err)
	}
}

// begin finds the newest checkpoint: in the file, which others cannot change together with the store, or else in the store.
func (k *Keeper) begin(ctx context.Context) error {
	c, found, err := k.file.newest(k.public)
	if err != nil {
		k.alarm(fmt.Sprintf("%v; the audit trail cannot be compared with it", err))
	}
	if found {
		k.setNewest(c)
		return nil
	}
	kept, err := k.config.Store.PageRecords(ctx, chain.CheckpointKind, store.RecordPage{Limit: 1, Descending: true})
	if err != nil || len(kept) == 0 {
		return err
	}
	if c, err = chain.ParseCheckpoint(kept[0].Value, k.public); err != nil {
		k.alarm(fmt.Sprintf("the newest checkpoint in the store is not one of this server: %v", err))
		return nil
	}
	k.setNewest(c)
	if k.file != "" {
		k.unfiled = true
		k.config.Logger.Warn("the file of checkpoints has none, so the audit trail is compared with the store's own", "file", string(k.file))
	}
	return nil
}

// compare tells of a trail that does not have what a checkpoint vouches for. Between two checkpoints all of it must be there.
func (k *Keeper) compare(ctx context.Context, c chain.Checkpoint, newest end) error {
	if c == (chain.Checkpoint{}) {
		return nil
	}
	if newest.seq < c.Seq {
		k.alarm(fmt.Sprintf("the audit trail ends with record %d, and %v vouches for %d: "+
			"records were removed, or an older backup of the store is in use", newest.seq, &c, c.Seq))
		return nil
	}
	value, err := k.config.Store.Record(ctx, chain.Kind, chain.Key(c.Seq))
	switch {
	case c.Seq == 0:
	case job.CodeOf(err) == job.CodeNotFound:
		k.alarm(fmt.Sprintf("record %d of the audit trail was removed, for which %v vouches", c.Seq, &c))
		return nil
	case err != nil:
		return err
	case sha256.Sum256(value) != c.Hash:
		k.alarm(fmt.Sprintf("record %d of the audit trail, or one before it, was changed: %v vouches for another one", c.Seq, &c))
	}
	oldest, err := k.end(ctx, store.RecordPage{})
	if err == nil && oldest.seq > c.First {
		k.alarm(fmt.Sprintf("the audit trail begins with record %d, and by %v record %d was kept: records were removed", oldest.seq, &c, c.First))
	}
	return err
}

func (k *Keeper) alarm(text string) {
	if text == k.alarmed {
		return
	}
	k.alarmed = text
	k.config.Logger.Error("the audit trail is not what was signed; verify an export of it, and keep the files as they are", "problem", text)
	k.config.Alarm(text)
}
