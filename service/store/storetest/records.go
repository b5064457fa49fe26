package storetest

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// records: small values under a kind and a key, whatever bytes they have.
func records(t *testing.T, h Harness) {
	aspects(t, h, map[string]func(*testing.T, Harness){"Values": recordValues, "Pages": recordPages})
}

// pageOf is what a page of all records of a kind, which are in order, should have.
func pageOf(all []store.Record, page store.RecordPage) (out []store.Record) {
	all = slices.Clone(all)
	if page.Descending {
		slices.Reverse(all)
	}
	for _, r := range all {
		order := strings.Compare(r.Key, page.After)
		if page.After != "" && (page.Descending && order >= 0 || !page.Descending && order <= 0) || len(out) >= page.Limit {
			continue
		}
		out = append(out, r)
	}
	return out
}

// recordPages: every page of every size, in both directions, in the order of bytes and without records of other kinds.
func recordPages(t *testing.T, h Harness) {
	s := open(t, h)
	keys := []string{"", "0001", "0002", "1", "B", "Z", "a", "a\x00", "ab", "b", "Ä", "é", "\xff", "\xff\xff"} // as bytes order them
	b := new(store.Batch)
	for _, key := range keys {
		for _, kind := range []string{"audit", "audit-checkpoint", "audi", "auditor"} {
			b.Records = append(b.Records, store.Record{Kind: kind, Key: key, Value: []byte(kind + key)})
		}
	}
	b.Records = append(b.Records, store.Record{Kind: "audit-z", Key: "1", Value: []byte("1")})
	commit(t, s, b)
	var all []store.Record
	for _, key := range keys {
		all = append(all, store.Record{Kind: "audit", Key: key, Value: []byte("audit" + key)})
	}
	afters := append([]string{"0", "0001\x00", "C", "aa", "zz", "\xfe", "\xff\xff\xff"}, keys...)
	for _, after := range afters {
		for limit := -1; limit <= len(keys)+1; limit++ {
			for _, descending := range []bool{false, true} {
				page := store.RecordPage{After: after, Limit: limit, Descending: descending}
				got, err := s.PageRecords(t.Context(), "audit", page)
				if want := pageOf(all, page); err != nil || len(got) != len(want) || len(got) > 0 && !reflect.DeepEqual(got, want) {
					t.Fatalf("%+v: got %q, want %q, %v", page, got, want, err)
				}
			}
		}
	}
	for _, kind := range []string{"none", "aud", "audit-", ""} {
		if got, err := s.PageRecords(t.Context(), kind, store.RecordPage{Limit: 10}); err != nil || len(got) != 0 {
			t.Errorf("of a kind without records there are %q, %v", got, err)
		}
	}
	// What a caller does with a page changes nothing in the store, and what is deleted is on no page.
	got, err := s.PageRecords(t.Context(), "audit", store.RecordPage{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	got[0].Value[0] = 'X'
	commit(t, s, &store.Batch{Records: []store.Record{{Kind: "audit", Key: "\xff\xff"}}})
	for descending, want := range map[bool]store.Record{false: all[0], true: all[len(all)-2]} {
		got, err := s.PageRecords(t.Context(), "audit", store.RecordPage{Limit: 1, Descending: descending})
		if err != nil || len(got) != 1 || !reflect.DeepEqual(got[0], want) {
			t.Errorf("got %q, want %q, %v", got, want, err)
		}
	}
}

func recordValues(t *testing.T, h Harness) {
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
