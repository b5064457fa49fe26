package logs

import (
	"context"
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/logs/lines"
	"github.com/hodei-jobs/hodei/service/store"
)

func TestSearchAndGroupsSeeAllThatIsStored(t *testing.T) {
	t.Parallel()
	s, _ := newKeeper()
	offset := 0
	put := func(at int64, stream store.Stream, text string) {
		commitTo(t, s, []Chunk{{Ref: testRef, Offset: uint64(offset), Stream: stream, Time: time.Unix(at, 0), Data: []byte(text)}})
		offset += len(text)
	}
	put(1, store.Stdout, "::group::Build\ncomp")
	put(2, store.Stderr, "warning: old\n")
	put(3, store.Stdout, "iling\n::endgroup::\n")
	for _, sealed := range []bool{false, true} {
		if sealed {
			sealEverything(s)
		}
		found, err := s.Search(t.Context(), testRef, lines.Query{Text: "compiling", Step: -1, MaxMatches: 10})
		if err != nil || found.Count != 1 || string(found.Matches[0].Text) != "compiling" || found.Matches[0].Line != 1 {
			t.Errorf("the search found %+v, %v", found, err)
		}
		found, err = s.Search(t.Context(), testRef, lines.Query{Pattern: "^w.*d$", Step: -1, Stream: uint8(store.Stderr)})
		if err != nil || found.Count != 1 || len(found.Matches) != 0 {
			t.Errorf("the search that counts found %+v, %v", found, err)
		}
		groups, truncated, err := s.Groups(t.Context(), testRef)
		if err != nil || truncated || len(groups) != 1 || groups[0].Title != "Build" || groups[0].End.Sub(groups[0].Start) != 2*time.Second {
			t.Errorf("the groups are %+v, %v", groups, err)
		}
	}
	if _, err := s.Search(t.Context(), testRef, lines.Query{Pattern: "("}); job.CodeOf(err) != job.CodeInvalid {
		t.Errorf("a pattern that is none gave %v", err)
	}
	// Only so many searches run at the same time; one that waits can be called off.
	for range cap(s.scans) {
		s.scans <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := s.Groups(ctx, testRef); err == nil {
		t.Error("a search that waits for others goes on after its caller has left")
	}
}
