package identity

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// create makes a token that must be made.
func create(t testing.TB, tokens *Tokens, options CreateOptions) (Token, string) {
	t.Helper()
	token, secret, err := tokens.Create(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	return token, secret
}

// redeem uses a token for a record that says nothing.
func redeem(ctx context.Context, tokens *Tokens, secret string) error {
	return tokens.redeem(ctx, secret, func(t Token) (store.Record, error) {
		return store.Record{Kind: "use", Key: t.ID, Value: []byte("x")}, nil
	})
}

// wantRefused checks that an error refuses a token and says why and what to do.
func wantRefused(t testing.TB, err error, why string) {
	t.Helper()
	var e *job.Error
	if !errors.As(err, &e) || e.Code != job.CodeUnauthenticated || e.Reason != job.ReasonTokenRefused {
		t.Fatalf("the error is %v, want a refusal", err)
	}
	if !strings.Contains(e.Message, why) || !strings.Contains(e.Message, "`hodei token create`") {
		t.Errorf("the message %q does not say %q and what to do", e.Message, why)
	}
}

func TestCreate(t *testing.T) {
	t.Parallel()
	db, now := newRecords(), newClock()
	tokens := NewTokens(db, now.Now)
	token, secret := create(t, tokens, CreateOptions{})
	if !strings.HasPrefix(token.ID, "tok_") || strings.ToLower(token.ID) != token.ID || len(token.ID) != 4+26 {
		t.Errorf("the id is %q", token.ID)
	}
	if want := now.Now().Add(time.Hour); !token.Expires.Equal(want) || token.UsesLeft != 1 {
		t.Errorf("the token has %d uses until %v, want 1 until %v", token.UsesLeft, token.Expires, want)
	}
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(secret, "hat_"))
	if err != nil || len(raw) != 32 || !strings.HasPrefix(secret, "hat_") {
		t.Fatalf("the secret %q has %d random bytes (error %v)", secret, len(raw), err)
	}
	for key, value := range db.values {
		stored := key + string(value)
		if strings.Contains(stored, secret) || strings.Contains(stored, secret[4:]) || bytes.Contains([]byte(stored), raw) {
			t.Errorf("the secret is stored: %s", stored)
		}
	}
	if _, second := create(t, tokens, CreateOptions{}); second == secret {
		t.Error("two tokens have the same secret")
	}
}

func TestCreateOptions(t *testing.T) {
	t.Parallel()
	const month = 30 * 24 * time.Hour
	tests := []struct {
		options CreateOptions
		good    bool
	}{
		{CreateOptions{TTL: time.Nanosecond}, true},
		{CreateOptions{TTL: month, MaxUses: 100_000}, true},
		{CreateOptions{TTL: month + 1}, false},
		{CreateOptions{TTL: -1}, false},
		{CreateOptions{TTL: -1 << 63}, false},
		{CreateOptions{MaxUses: -1}, false},
	}
	for _, tt := range tests {
		db := newRecords()
		token, secret, err := NewTokens(db, newClock().Now).Create(t.Context(), tt.options)
		if tt.good != (err == nil) || tt.good != (secret != "") || tt.good != (db.count(t, tokenRecord) == 1) {
			t.Errorf("Create(%+v) = %+v, %q, %v", tt.options, token, secret, err)
		}
		if err != nil && job.CodeOf(err) != job.CodeInvalid {
			t.Errorf("Create(%+v) gives %v, which is not the caller's fault", tt.options, err)
		}
	}
}

func TestCreateFails(t *testing.T) {
	t.Parallel()
	db := newRecords()
	db.setFail(errors.New("the disk is gone"))
	token, secret, err := NewTokens(db, newClock().Now).Create(t.Context(), CreateOptions{})
	if err == nil || secret != "" || token.ID != "" {
		t.Errorf("Create on a store that fails = %+v, %q, %v", token, secret, err)
	}
}

func TestRedeemRefuses(t *testing.T) {
	t.Parallel()
	now := newClock()
	tokens := NewTokens(newRecords(), now.Now)
	token, secret := create(t, tokens, CreateOptions{})
	for _, wrong := range []string{
		"", "hat_", secret[4:], secret + "=", " " + secret, strings.ToUpper(secret), token.ID, tokenKey(secret),
		strings.Repeat("x", 1<<20), "\xff",
	} {
		wantRefused(t, redeem(t.Context(), tokens, wrong), "not known here")
	}
	if err := redeem(t.Context(), tokens, secret); err != nil {
		t.Fatalf("the right secret after wrong ones: %v", err)
	}
	wantRefused(t, redeem(t.Context(), tokens, secret), "used up")
}

func TestTokenExpires(t *testing.T) {
	t.Parallel()
	db, now := newRecords(), newClock()
	tokens := NewTokens(db, now.Now)
	_, secret := create(t, tokens, CreateOptions{TTL: time.Minute, MaxUses: 5})
	now.advance(time.Minute - 1)
	if err := redeem(t.Context(), tokens, secret); err != nil {
		t.Fatalf("in the last nanosecond: %v", err)
	}
	now.advance(1)
	for range 2 { // nothing is written: what is refused changes nothing
		wantRefused(t, redeem(t.Context(), tokens, secret), "expired on 2031-05-17T09:31:00Z")
	}
}

func TestCreateForgetsExpired(t *testing.T) {
	t.Parallel()
	db, now := newRecords(), newClock()
	tokens := NewTokens(db, now.Now)
	create(t, tokens, CreateOptions{TTL: time.Minute})
	_, long := create(t, tokens, CreateOptions{TTL: time.Hour})
	db.values[tokenRecord+"/damaged"] = []byte("{")
	now.advance(time.Minute)
	create(t, tokens, CreateOptions{})
	if got := db.count(t, tokenRecord); got != 3 {
		t.Errorf("%d tokens are stored, want the long, the new and the damaged one", got)
	}
	if err := redeem(t.Context(), tokens, long); err != nil {
		t.Errorf("the long token: %v", err)
	}
}

// TestRedeemTogether lets many use a token at the same moment.
func TestRedeemTogether(t *testing.T) {
	t.Parallel()
	for _, uses := range []int{1, 7} {
		db := newRecords()
		tokens := NewTokens(db, newClock().Now)
		_, secret := create(t, tokens, CreateOptions{MaxUses: uses})
		var won, refused atomic.Int32
		var group sync.WaitGroup
		start := make(chan struct{})
		for i := range 50 {
			group.Go(func() {
				<-start
				err := tokens.redeem(t.Context(), secret, func(Token) (store.Record, error) {
					return store.Record{Kind: "use", Key: fmt.Sprint(i), Value: []byte("x")}, nil
				})
				switch {
				case err == nil:
					won.Add(1)
				case job.CodeOf(err) == job.CodeUnauthenticated:
					refused.Add(1)
				}
			})
		}
		close(start)
		group.Wait()
		if int(won.Load()) != uses || int(refused.Load()) != 50-uses || db.count(t, "use") != uses {
			t.Errorf("a token for %d was used by %d (%d stored), %d were refused", uses, won.Load(), db.count(t, "use"), refused.Load())
		}
	}
}

func TestRedeemOnTroubledStore(t *testing.T) {
	t.Parallel()
	broken := errors.New("the disk is gone")
	db := newRecords()
	tokens := NewTokens(db, newClock().Now)
	_, secret := create(t, tokens, CreateOptions{})
	before := maps.Clone(db.values)
	db.setFail(broken)
	if err := redeem(t.Context(), tokens, secret); !errors.Is(err, broken) {
		t.Errorf("a store that cannot read gives %v", err)
	}
	db.setFail(nil)
	err := tokens.redeem(t.Context(), secret, func(Token) (store.Record, error) {
		db.setFail(broken)
		return store.Record{}, nil
	})
	if !errors.Is(err, broken) {
		t.Errorf("a store that cannot commit gives %v", err)
	}
	db.setFail(nil)
	refusal := errors.New("no")
	err = tokens.redeem(t.Context(), secret, func(Token) (store.Record, error) { return store.Record{}, refusal })
	if !errors.Is(err, refusal) {
		t.Errorf("a use that is refused gives %v", err)
	}
	if !maps.EqualFunc(before, db.values, bytes.Equal) {
		t.Error("something was stored although nothing was used")
	}
	if err := redeem(t.Context(), tokens, secret); err != nil {
		t.Errorf("after the trouble: %v", err)
	}
}

func TestDamagedToken(t *testing.T) {
	t.Parallel()
	db := newRecords()
	tokens := NewTokens(db, newClock().Now)
	_, secret := create(t, tokens, CreateOptions{})
	for _, damage := range []string{"{", "null", `{"expires":7}`, `{"uses_left":"x"}`, "\x00"} {
		db.values[tokenRecord+"/"+tokenKey(secret)] = []byte(damage)
		if err := redeem(t.Context(), tokens, secret); err == nil {
			t.Errorf("the damaged record %q was redeemed", damage)
		}
	}
}

// TestTokensModel plays random use, waiting and restarts against a count in memory.
func TestTokensModel(t *testing.T) {
	t.Parallel()
	type known struct {
		secret  string
		expires time.Time
		left    int
	}
	rapid.Check(t, func(r *rapid.T) {
		db, now := newRecords(), newClock()
		tokens := NewTokens(db, now.Now)
		var all []*known
		r.Repeat(map[string]func(*rapid.T){
			"create": func(r *rapid.T) {
				ttl := time.Duration(rapid.IntRange(1, 100).Draw(r, "seconds")) * time.Second
				uses := rapid.IntRange(1, 3).Draw(r, "uses")
				token, secret, err := tokens.Create(context.Background(), CreateOptions{TTL: ttl, MaxUses: uses})
				if err != nil {
					r.Fatal(err)
				}
				all = append(all, &known{secret, token.Expires, uses})
			},
			"redeem": func(r *rapid.T) {
				if len(all) == 0 {
					r.Skip("there is no token")
				}
				k := rapid.SampledFrom(all).Draw(r, "token")
				want := k.left > 0 && now.Now().Before(k.expires)
				err := redeem(context.Background(), tokens, k.secret)
				if want != (err == nil) {
					r.Fatalf("with %d uses left, %v before its end: %v", k.left, k.expires.Sub(now.Now()), err)
				}
				if err == nil {
					k.left--
				} else if job.CodeOf(err) != job.CodeUnauthenticated {
					r.Fatal(err)
				}
			},
			"wait":    func(r *rapid.T) { now.advance(time.Duration(rapid.IntRange(1, 50).Draw(r, "seconds")) * time.Second) },
			"restart": func(*rapid.T) { tokens = NewTokens(db, now.Now) },
		})
	})
}
