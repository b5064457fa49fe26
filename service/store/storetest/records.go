package storetest

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// records: small values under a kind and a key, whatever bytes they have.
func records(t *testing.T, h Harness) {
	s := h.Open(t)
	large := bytes.Repeat([]byte{0, 0xff}, 50_000)
	commit(t, s, &store.Batch{Records: []store.Record{
		{Kind: "a", Key: "2", Value: []byte("two")},
		{Kind: "a", Key: "1", Value: []byte("one")},
		{Kind: "ab", Key: "1", Value: []byte("other")},
		{Kind: "a", Key: "", Value: []byte("no key")},
		{Kind: "a", Key: "é/\xff\x01", Value: large},
		{Kind: "a-b", Key: "1", Value: []byte{0}},
	}})
	for range 2 {
		got, err := s.ListRecords(t.Context(), "a")
		want := []store.Record{
			{Kind: "a", Key: "", Value: []byte("no key")},
			{Kind: "a", Key: "1", Value: []byte("one")},
			{Kind: "a", Key: "2", Value: []byte("two")},
			{Kind: "a", Key: "é/\xff\x01", Value: large},
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %.200q, %v", got, err)
		}
		for _, r := range want {
			if value, err := s.Record(t.Context(), r.Kind, r.Key); err != nil || !bytes.Equal(value, r.Value) {
				t.Errorf("%q is %.100q, %v", r.Key, value, err)
			}
		}
		s = h.Reopen(t, s)
	}
	defer s.Close() //nolint:errcheck // what counts was read
	commit(t, s, &store.Batch{Records: []store.Record{{Kind: "a", Key: "1"}, {Kind: "a", Key: "2", Value: []byte("new")}, {Kind: "a", Key: "none"}}})
	for _, key := range []string{"1", "none", "3"} {
		if _, err := s.Record(t.Context(), "a", key); job.CodeOf(err) != job.CodeNotFound {
			t.Errorf("a record that is not there gave %v", err)
		}
	}
	for kind, want := range map[string]string{"a": "new", "ab": "", "none": ""} {
		if value, err := s.Record(t.Context(), kind, "2"); string(value) != want || (want == "") != (job.CodeOf(err) == job.CodeNotFound) {
			t.Errorf("%s is %q, %v", kind, value, err)
		}
	}
	if value, err := s.Record(t.Context(), "ab", "1"); err != nil || string(value) != "other" {
		t.Errorf("got %q, %v", value, err)
	}
	if got, err := s.ListRecords(t.Context(), "none"); err != nil || len(got) != 0 {
		t.Errorf("got %+v, %v", got, err)
	}
	// What a caller does with what it got, or gave, changes nothing in the store.
	value := []byte("mine")
	commit(t, s, &store.Batch{Records: []store.Record{{Kind: "m", Key: "m", Value: value}}})
	value[0] = 'X'
	for range 2 {
		got, err := s.Record(t.Context(), "m", "m")
		if err != nil || string(got) != "mine" {
			t.Fatalf("got %q, %v", got, err)
		}
		got[0] = 'Y'
	}
}
