package memstore_test

import (
	"errors"
	"testing"

	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/memstore"
	"github.com/hodei-jobs/hodei/service/store/storetest"
)

var harness = storetest.Harness{
	Open:   func(*testing.T) store.Store { return memstore.New() },
	Reopen: func(_ *testing.T, s store.Store) store.Store { return s }, // it lives as long as the process
}

func TestConformance(t *testing.T) {
	t.Parallel()
	storetest.Run(t, harness)
}

func TestModel(t *testing.T) {
	t.Parallel()
	storetest.Model(t, harness)
}

func TestFailedWriteStopsAllWrites(t *testing.T) {
	t.Parallel()
	s := memstore.New()
	full := errors.New("disk full")
	s.FailWith(func() error { return full })
	record := &store.Batch{Records: []store.Record{{Kind: "k", Key: "k", Value: []byte("v")}}}
	if err := s.Commit(t.Context(), record); !errors.Is(err, full) {
		t.Errorf("the failing write gave %v", err)
	}
	s.FailWith(nil)
	if err := s.Commit(t.Context(), record); !errors.Is(err, full) {
		t.Errorf("the write after it gave %v", err)
	}
}
