package secrets_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/secrets"
	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/memstore"
)

const (
	oneKey   = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
	otherKey = "0f0e0d0c0b0a09080706050403020100000102030405060708090a0b0c0d0e0f"
)

func key(t *testing.T, text string) *secrets.Key {
	t.Helper()
	k, err := secrets.ParseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func keeper(t *testing.T, db secrets.Store, k string) *secrets.Secrets {
	t.Helper()
	now := time.Unix(1_000_000, 0).UTC()
	clock := func() time.Time { now = now.Add(time.Second); return now }
	return secrets.New(db, key(t, k), clock, slog.New(slog.DiscardHandler))
}

func wants(namespace string, names ...string) *job.Spec {
	spec := &job.Spec{Namespace: namespace, Steps: []job.Step{{}, {}}}
	for i, name := range names {
		step := &spec.Steps[i%2]
		step.Secrets = append(step.Secrets, job.SecretRef{Name: name})
	}
	return spec
}

func set(t *testing.T, s *secrets.Secrets, namespace, name, value string) secrets.Secret {
	t.Helper()
	secret, _, err := s.Set(t.Context(), namespace, name, []byte(value))
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

func TestSecretsComeBackForSpecsThatNameThem(t *testing.T) {
	t.Parallel()
	db := memstore.New()
	s := keeper(t, db, oneKey)
	first := set(t, s, "a", "TOKEN", "first value")
	second := set(t, s, "a", "TOKEN", "second value")
	set(t, s, "a", "KEY", "\x00\xff binary")
	set(t, s, "ab", "TOKEN", "of another namespace")
	if second.Version != 2 || second.Created != first.Created || !second.Updated.After(first.Updated) {
		t.Errorf("the secret became %+v, after %+v", second, first)
	}
	values, err := s.Values(t.Context(), wants("a", "TOKEN", "KEY", "TOKEN"))
	if err != nil || len(values) != 2 || string(values["TOKEN"]) != "second value" || string(values["KEY"]) != "\x00\xff binary" {
		t.Errorf("the values are %q, %v", values, err)
	}
	list, err := s.List(t.Context(), "a")
	if err != nil || len(list) != 2 || list[0].Name != "KEY" || list[1] != second {
		t.Errorf("the list is %+v, %v", list, err)
	}
	if err := s.Delete(t.Context(), "a", "TOKEN"); err != nil {
		t.Error(err)
	}
	if err := s.Delete(t.Context(), "a", "TOKEN"); job.CodeOf(err) != job.CodeNotFound {
		t.Errorf("deleting twice gave %v", err)
	}
	if _, err := s.Values(t.Context(), wants("a", "TOKEN")); job.CodeOf(err) != job.CodeNotFound {
		t.Errorf("a secret that was deleted gave %v", err)
	}
	if err := s.Check(t.Context(), wants("a", "KEY")); err != nil {
		t.Error(err)
	}
	if err := s.Check(t.Context(), wants("a", "KEY", "TOKEN")); job.CodeOf(err) != job.CodeInvalid || !strings.Contains(err.Error(), "hodei secret set TOKEN") {
		t.Errorf("a spec with a secret that is not there gave %v", err)
	}
	if again := set(t, s, "a", "TOKEN", "third value"); again.Version != 1 {
		t.Errorf("a new secret has version %d", again.Version)
	}
}

// What is stored tells nothing of the value, and cannot be used in another place or with another key.
func TestStoredSecretsAreSealed(t *testing.T) {
	t.Parallel()
	db := memstore.New()
	s := keeper(t, db, oneKey)
	set(t, s, "a", "TOKEN", "a value that nobody may see")
	set(t, s, "a", "TWIN", "a value that nobody may see")
	token, err := db.Record(t.Context(), "secret", "a/TOKEN")
	if err != nil || bytes.Contains(token, []byte("nobody")) {
		t.Fatalf("the record is %s, %v", token, err)
	}
	if _, err := keeper(t, db, otherKey).Values(t.Context(), wants("a", "TOKEN")); job.CodeOf(err) != job.CodePrecondition ||
		!strings.Contains(err.Error(), "was encrypted with the key") {
		t.Errorf("another key gave %v", err)
	}
	twin, err := db.Record(t.Context(), "secret", "a/TWIN")
	if err != nil || bytes.Equal(twin, token) {
		t.Fatalf("equal values have equal records: %v", err)
	}
	for name, value := range map[string][]byte{
		"another secret's":    twin,
		"one of another form": []byte("{"),
		"a changed one":       bytes.Replace(token, []byte(`"version":1`), []byte(`"version":2`), 1),
	} {
		put(t, db, "a/TOKEN", value)
		if got, err := s.Values(t.Context(), wants("a", "TOKEN")); job.CodeOf(err) != job.CodePrecondition {
			t.Errorf("%s record gave %q, %v", name, got, err)
		}
	}
	set(t, s, "a", "TOKEN", "set again")
	if got, err := s.Values(t.Context(), wants("a", "TOKEN")); err != nil || string(got["TOKEN"]) != "set again" {
		t.Errorf("a damaged secret that was set again gave %q, %v", got, err)
	}
}

func put(t *testing.T, db secrets.Store, key string, value []byte) {
	t.Helper()
	if err := db.Commit(t.Context(), &store.Batch{Records: []store.Record{{Kind: "secret", Key: key, Value: value}}}); err != nil {
		t.Fatal(err)
	}
}

func TestSecretsThatAreRefused(t *testing.T) {
	t.Parallel()
	s := keeper(t, memstore.New(), oneKey)
	for name, c := range map[string]struct{ namespace, name, value string }{
		"no name":          {"a", "", "value"},
		"a digit first":    {"a", "1A", "value"},
		"a slash":          {"a", "A/B", "value"},
		"a long name":      {"a", strings.Repeat("A", 129), "value"},
		"no value":         {"a", "A", ""},
		"a large value":    {"a", "A", strings.Repeat("x", secrets.MaxValueBytes+1)},
		"a bad namespace":  {"A", "A", "value"},
		"half a namespace": {"a/b", "A", "value"},
	} {
		if _, _, err := s.Set(t.Context(), c.namespace, c.name, []byte(c.value)); job.CodeOf(err) != job.CodeInvalid {
			t.Errorf("%s gave %v", name, err)
		}
	}
	if _, warnings, err := s.Set(t.Context(), "a", "PIN", []byte("12345")); err != nil || len(warnings) != 1 {
		t.Errorf("a short value gave %q, %v", warnings, err)
	}
	for i := range 999 {
		set(t, s, "a", "S"+strings.Repeat("x", i%100)+string(rune('a'+i/100)), "a good value")
	}
	if _, _, err := s.Set(t.Context(), "a", "MORE", []byte("value")); job.CodeOf(err) != job.CodeExhausted {
		t.Errorf("one secret more than allowed gave %v", err)
	}
	set(t, s, "a", "PIN", "those that are there can be changed")
}

func TestAttemptsGetSoManyBytesOfSecrets(t *testing.T) {
	t.Parallel()
	s := keeper(t, memstore.New(), oneKey)
	var names []string
	for i := range 17 {
		names = append(names, "LARGE_"+string(rune('A'+i)))
		set(t, s, "a", names[i], strings.Repeat("x", secrets.MaxValueBytes))
	}
	if values, err := s.Values(t.Context(), wants("a", names[:16]...)); err != nil || len(values) != 16 {
		t.Errorf("16 large secrets gave %d, %v", len(values), err)
	}
	if _, err := s.Values(t.Context(), wants("a", names...)); job.CodeOf(err) != job.CodeExhausted {
		t.Errorf("17 large secrets gave %v", err)
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "key")
	if _, err := secrets.OpenKeyFile(path, false); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there gave %v", err)
	}
	if _, err := secrets.OpenKeyFile(path, true); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", info, err)
	}
	db := memstore.New()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	set(t, keeper(t, db, string(text)), "a", "A", "value")
	again, err := secrets.OpenKeyFile(path, true)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := secrets.New(db, again, time.Now, nil).Values(context.Background(), wants("a", "A")); err != nil || string(got["A"]) != "value" {
		t.Errorf("the key that was made gave %q, %v", got, err)
	}
	for _, bad := range []string{"", "short", strings.Repeat("zz", 32), oneKey + "AA"} {
		if _, err := secrets.ParseKey(bad); err == nil || bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("the key %q gave %v", bad, err)
		}
	}
	if err := os.WriteFile(path, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := secrets.OpenKeyFile(path, true); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a damaged key gave %v", err)
	}
}
