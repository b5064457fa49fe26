package hodei

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
	"github.com/hodei-jobs/hodei/gen/hodei/v1/hodeiv1connect"
)

// fakeExchange answers exchanges without a network, so that a test has a clock of its own.
type fakeExchange struct {
	hodeiv1connect.AuthServiceClient
	life  time.Duration
	takes time.Duration

	mu      sync.Mutex
	count   int
	failing bool
}

func (f *fakeExchange) ExchangeToken(ctx context.Context, _ *hodeiv1.ExchangeTokenRequest) (*hodeiv1.ExchangeTokenResponse, error) {
	f.mu.Lock()
	f.count++
	n, failing, takes := f.count, f.failing, f.takes
	f.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if failing {
		return nil, connect.NewError(connect.CodeUnavailable, "the server stops")
	}
	return &hodeiv1.ExchangeTokenResponse{AccessToken: fmt.Sprint("t", n), ExpireTime: timestamppb.New(time.Now().Add(f.life))}, nil
}

func (f *fakeExchange) set(failing bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failing = failing
}

func (f *fakeExchange) source(t *testing.T) *accessToken {
	t.Helper()
	a, err := newAccessToken(Config{Token: "secret"}, f)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// expect gets a token, which must be there at once unless an exchange is waited for.
func expectToken(t *testing.T, a *accessToken, want string, wait time.Duration) {
	t.Helper()
	start := time.Now()
	got, err := a.get(t.Context())
	if err != nil || got != want || time.Since(start) != wait {
		t.Errorf("got %q, %v after %v; want %q after %v", got, err, time.Since(start), want, wait)
	}
	synctest.Wait()
}

func TestOneExchangeServesAllCallsThatWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeExchange{life: 15 * time.Minute, takes: time.Second}
		a := f.source(t)
		var calls sync.WaitGroup
		for range 100 {
			calls.Go(func() {
				if got, err := a.get(t.Context()); got != "t1" || err != nil {
					t.Errorf("got %q, %v", got, err)
				}
			})
		}
		calls.Wait()
		if f.count != 1 {
			t.Errorf("100 calls made %d exchanges", f.count)
		}
	})
}

// No call waits for a renewal as long as the token is good.
func TestTokenIsRenewedBehindCallsWhenTwoThirdsOfItsLifeAreOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeExchange{life: 15 * time.Minute, takes: time.Second}
		a := f.source(t)
		expectToken(t, a, "t1", time.Second)
		time.Sleep(10*time.Minute - 2*time.Second)
		expectToken(t, a, "t1", 0)
		if f.count != 1 {
			t.Errorf("the token was renewed before two thirds of its life were over: %d exchanges", f.count)
		}
		time.Sleep(2 * time.Second)
		expectToken(t, a, "t1", 0)
		expectToken(t, a, "t1", 0)
		time.Sleep(2 * time.Second)
		expectToken(t, a, "t2", 0)
		if f.count != 2 {
			t.Errorf("a renewal made %d exchanges", f.count-1)
		}
		time.Sleep(time.Hour)
		expectToken(t, a, "t3", time.Second)
	})
}

func TestTokenIsUsedOnWhileItCannotBeRenewed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeExchange{life: 15 * time.Minute}
		a := f.source(t)
		expectToken(t, a, "t1", 0)
		f.set(true)
		time.Sleep(10 * time.Minute)
		for range 60 { // a call each second
			expectToken(t, a, "t1", 0)
			time.Sleep(time.Second)
		}
		if f.count < 5 || f.count > 8 {
			t.Errorf("%d exchanges were tried in a minute", f.count-1)
		}
		time.Sleep(10 * time.Minute)
		if _, err := a.get(t.Context()); connect.CodeOf(err) != connect.CodeUnavailable {
			t.Errorf("without a token that is good the error is %v", err)
		}
		f.set(false)
		if got, err := a.get(t.Context()); err != nil || !strings.HasPrefix(got, "t") {
			t.Errorf("when the server is back: %q, %v", got, err)
		}
	})
}

// A call that ends does not take the exchange with it, for which others wait.
func TestExchangeGoesOnWithoutTheCallThatBeganIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeExchange{life: 15 * time.Minute, takes: 2 * time.Second}
		a := f.source(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := a.get(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		expectToken(t, a, "t1", time.Second)
		if f.count != 1 {
			t.Errorf("%d exchanges", f.count)
		}
	})
}

func TestExchangeThatHangsEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeExchange{life: 15 * time.Minute, takes: time.Hour}
		start := time.Now()
		if _, err := f.source(t).get(t.Context()); err == nil || time.Since(start) != exchangeLimit {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
	})
}

// With a clock that goes an hour ahead every token seems to have ended; it is used all the same, for a while.
func TestClocksMayDiffer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeExchange{life: -time.Hour}
		a := f.source(t)
		expectToken(t, a, "t1", 0)
		expectToken(t, a, "t1", 0)
		time.Sleep(leastLife)
		expectToken(t, a, "t2", 0)
	})
}

func TestOnlyTheTokenThatWasRefusedIsForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeExchange{life: 15 * time.Minute}
		a := f.source(t)
		expectToken(t, a, "t1", 0)
		if !a.discard("t1") {
			t.Error("no other token can be had")
		}
		expectToken(t, a, "t2", 0)
		a.discard("t1") // a call that took longer
		expectToken(t, a, "t2", 0)
		if f.count != 2 {
			t.Errorf("%d exchanges", f.count)
		}
	})
}

func TestWhatIsNoTokenIsNotSent(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		" \n":                       "holds no token",
		"hidden-one\nhidden-two":    "something else than one token",
		"hidden\x00":                "something else than one token",
		"hidden\u00e9":              "something else than one token",
		strings.Repeat("a", 20_000): "too much for a token",
	} {
		path := writeFile(t, filepath.Join(t.TempDir(), "token"), text)
		for _, config := range []Config{{Token: text}, {TokenFile: path}} {
			config.URL = "https://127.0.0.1:1"
			if _, err := New(t.Context(), WithConfig(config)); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hidden") {
				t.Errorf("%.20q gave %v, want %q", text, err, want)
			}
		}
	}
	if _, err := New(t.Context(), WithConfig(Config{URL: "https://127.0.0.1:1", TokenFile: filepath.Join(t.TempDir(), "none")})); err == nil {
		t.Error("a file that is not there is no error")
	}
}

func FuzzToken(f *testing.F) {
	for _, seed := range []string{"", "hat_1", " hat_1\n", "eyJhbGciOiJFUzI1NiJ9.e30.x", "a b", "a\x00b", "\ufeffhat"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		token, err := cleanToken(text, "the file")
		if err != nil {
			return
		}
		again, err := cleanToken(token, "the file")
		if err != nil || again != token || strings.ContainsAny(token, "\r\n \x00") || !strings.Contains(text, token) {
			t.Errorf("%q became %q, then %q, %v", text, token, again, err)
		}
	})
}
