package oidclogin

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"golang.org/x/oauth2"

	"github.com/hodei-jobs/hodei/proto/issuer"
)

const (
	// deviceTime is how long a code is good when the provider does not say.
	deviceTime = 15 * time.Minute
	// maxFailures is how many times the provider may be away while a person logs in.
	maxFailures = 5
	// pollInterval is how often the provider is asked when it does not say, in seconds.
	pollInterval = 5
	// maxPollInterval bounds how the waits between questions grow, in seconds.
	maxPollInterval = 60
)

// Device logs a person in by the browser of another device (RFC 8628). It calls show once with the address to open there and the code
// to enter, then waits until the person has done so, and returns the ID token. Both texts are printable.
//
// The error is ErrDenied when the person declines, ErrExpired when the code ends first, that of ctx when ctx ends, or says what the
// provider has answered or that it is away. While it waits, the provider may be away for a short time.
func Device(ctx context.Context, config Config, show func(verificationURI, userCode string)) (string, error) {
	requests, l, err := begin(ctx, config)
	if err != nil {
		return "", err
	}
	if l.oauth.Endpoint.DeviceAuthURL == "" {
		return "", fmt.Errorf("the OIDC provider %s offers no login by another device; log in with the browser of this machine", config.Issuer)
	}
	code, err := l.oauth.DeviceAuth(requests)
	if err != nil {
		return "", l.failed(ctx, "gives no code for another device", err)
	}
	if code.Expiry.IsZero() {
		code.Expiry = time.Now().Add(deviceTime)
	}
	if err := l.checkShown(code); err != nil {
		return "", err
	}
	show(code.VerificationURI, code.UserCode)
	token, err := l.poll(requests, code)
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case errors.Is(err, context.DeadlineExceeded) && !time.Now().Before(code.Expiry):
		return "", fmt.Errorf("%w: the code was good until %s; log in again", ErrExpired, code.Expiry.Local().Format(time.TimeOnly))
	case err != nil:
		return "", l.failed(ctx, "does not say whether the login is done", err)
	}
	return l.idToken(ctx, requests, token, "")
}

// checkShown refuses what is no address and no code: both go to somebody's terminal.
func (l *login) checkShown(code *oauth2.DeviceAuthResponse) error {
	if issuer.Check(code.VerificationURI) != nil || !showable(code.VerificationURI) {
		return fmt.Errorf("the OIDC provider %s gives an address to log in that is none: %.100q", l.config.Issuer, code.VerificationURI)
	}
	if code.UserCode == "" || code.DeviceCode == "" || !showable(code.UserCode) {
		return fmt.Errorf("the OIDC provider %s gives a code that nobody can enter: %.100q", l.config.Issuer, code.UserCode)
	}
	return nil
}

// showable reports whether a text can be shown in one line as it is.
func showable(text string) bool { return issuer.Text(errors.New(text)) == text }

// poll asks the provider until the person is done. A provider that is away meanwhile is asked again, ever more slowly.
func (l *login) poll(ctx context.Context, code *oauth2.DeviceAuthResponse) (*oauth2.Token, error) {
	for failures := 1; ; failures++ {
		token, err := l.oauth.DeviceAccessToken(ctx, code)
		if err == nil || failures > maxFailures || !away(err) || ctx.Err() != nil {
			return token, err
		}
		if code.Interval <= 0 {
			code.Interval = pollInterval
		}
		code.Interval = min(2*code.Interval, max(maxPollInterval, code.Interval))
	}
}

// away reports whether the provider may answer later.
func away(err error) bool {
	var answer *oauth2.RetrieveError
	if errors.As(err, &answer) {
		return answer.ErrorCode == "" && answer.Response.StatusCode >= 500
	}
	var request *url.Error // there was no answer
	return errors.As(err, &request)
}
