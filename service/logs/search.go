package logs

import (
	"context"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/logs/lines"
	"github.com/hodei-jobs/hodei/service/store"
)

// Search looks for lines in all that is stored of a log now. The error is a *job.Error when the query is at fault. As many searches as
// there are processors run at the same time; others wait.
func (s *Service) Search(ctx context.Context, ref store.LogRef, query lines.Query) (lines.Result, error) {
	search, err := lines.NewSearch(query)
	if err != nil {
		return lines.Result{}, job.Errorf(job.CodeInvalid, job.ReasonInvalidArgument, "%v", err)
	}
	if err := s.scanLines(ctx, ref, search); err != nil {
		return lines.Result{}, err
	}
	return search.End(), nil
}

// Groups finds the groups that a job has marked in all that is stored of a log now. truncated says that there are more.
func (s *Service) Groups(ctx context.Context, ref store.LogRef) (groups []lines.Group, truncated bool, err error) {
	found := lines.NewGroups()
	if err := s.scanLines(ctx, ref, found); err != nil {
		return nil, false, err
	}
	groups, truncated = found.End()
	return groups, truncated, nil
}

// scanLines hands a log to what looks at its lines.
func (s *Service) scanLines(ctx context.Context, ref store.LogRef, to interface{ Write(p lines.Piece) }) error {
	select {
	case s.scans <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.scans }()
	state, err := s.store.LogState(ctx, ref)
	if err != nil {
		return err
	}
	return s.scan(ctx, ref, 0, state.Bytes, func(c *Chunk) bool {
		to.Write(lines.Piece{Offset: c.Offset, Step: c.Step, Stream: uint8(c.Stream), Time: c.Time, Data: c.Data})
		return true
	})
}
