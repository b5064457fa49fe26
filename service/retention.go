package service

import (
	"context"
	"time"
)

// retentionInterval is how often old jobs are looked for.
const retentionInterval = 10 * time.Minute

// expire removes what is old enough, now and then, until the context ends.
func (s *Server) expire(ctx context.Context) error {
	ticker := time.NewTicker(retentionInterval)
	defer ticker.Stop()
	for {
		now := time.Now()
		total := 0
		for more := true; more; {
			var removed int
			var err error
			if removed, more, err = s.store.Expire(ctx, now.Add(-s.config.KeepEnded), now); err != nil {
				if ctx.Err() == nil {
					s.config.Logger.Error("old jobs cannot be removed; it is tried again later", "error", err)
				}
				break
			}
			total += removed
		}
		if total > 0 {
			s.config.Logger.Info("old jobs removed", "jobs", total)
		}
		logs, err := s.retention.Sweep(ctx)
		if err != nil && ctx.Err() == nil {
			s.config.Logger.Error("logs that a namespace does not keep cannot be removed; it is tried again later", "error", err)
		}
		if logs > 0 {
			s.config.Logger.Info("logs removed that their namespaces do not keep", "logs", logs)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}
