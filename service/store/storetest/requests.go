package storetest

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// requests: what a request_id made is remembered as it was, the last one of those that used it.
func requests(t *testing.T, h Harness) {
	s := h.Open(t)
	begin := time.Unix(2_000_000_000, 5).UTC()
	many := store.Request{ID: "ns/many", Hash: [32]byte{31: 7}, Expires: begin}
	for n := range 1000 {
		many.Jobs = append(many.Jobs, id(n))
	}
	all := []store.Request{
		{ID: "ns/r", Hash: [32]byte{1, 2}, Jobs: []job.ID{id(1), {}, id(2)}, Expires: begin}, // one was refused
		{ID: "ns/", Jobs: []job.ID{id(3)}, Expires: begin.Add(30 * time.Hour)}, {ID: "ns/é\x00\xff", Expires: begin.Add(-30 * time.Hour)}, many,
	}
	commit(t, s, &store.Batch{Requests: all})
	for round := range 6 {
		for _, r := range all {
			if got, err := s.Request(t.Context(), r.ID); err != nil || !reflect.DeepEqual(got, r) {
				t.Errorf("got %+v, want %+v, %v", got, r, err)
			}
		}
		for _, other := range []string{"", "ns", "ns/rr", "n", "ns/man", "ns/é"} {
			if _, err := s.Request(t.Context(), other); job.CodeOf(err) != job.CodeNotFound {
				t.Errorf("a request that is not there gave %v", err)
			}
		}
		if round%2 == 0 {
			s = h.Reopen(t, s)
			continue
		}
		expires := begin.Add(time.Duration(round) * 20 * time.Hour)
		again := store.Request{ID: "ns/r", Hash: [32]byte{byte(round)}, Jobs: []job.ID{id(round)}, Expires: expires}
		all[0] = again // later, when the one before had expired
		commit(t, s, &store.Batch{Requests: []store.Request{again, {ID: fmt.Sprint(round), Expires: begin}}})
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
