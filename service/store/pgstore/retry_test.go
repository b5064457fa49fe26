package pgstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Whatever the attempt does when the time is up, the error says that the database does not answer, and why as far as that is known.
func TestRetryThatIsCutOffSaysWhy(t *testing.T) {
	t.Parallel()
	for what, first := range map[string]error{"after a reason": fmt.Errorf("refused: %w", io.EOF), "at the first attempt": nil} {
		synctest.Test(t, func(t *testing.T) {
			s := &Store{logger: slog.New(slog.DiscardHandler)}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			tries := 0
			err := s.retry(ctx, "opening", func() error {
				if tries++; tries == 1 && first != nil {
					return first
				}
				<-ctx.Done()
				return fmt.Errorf("waiting for a connection: %w", ctx.Err())
			})
			if err == nil || !strings.Contains(err.Error(), "does not answer") || first != nil && !errors.Is(err, io.EOF) {
				t.Errorf("%s: %v", what, err)
			}
		})
	}
}
