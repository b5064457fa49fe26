// Package oidclogin logs people in with an OIDC provider: in their browser on this machine, or, where there is none, in one on
// another device. The result is an ID token, which the server trades for a certificate.
package oidclogin

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/hodei-jobs/hodei/proto/issuer"
)

// Config says where to log in.
type Config struct {
	// Issuer is the provider's address exactly as its tokens name it: https, or http on this machine.
	Issuer string
	// ClientID is as what this client is known to the provider, which must take it for a public one: it has no secret. For Browser,
	// http://127.0.0.1/callback must be one of its redirect addresses, with any port.
	ClientID string
	// Scopes are what the provider is asked for; openid, email, profile and groups when there are none.
	Scopes []string
	// HTTPClient makes the requests to the provider; nil is http.DefaultClient. Timeouts and limits are added.
	HTTPClient *http.Client
}

// Errors to compare with by errors.Is.
var (
	// ErrDenied says that the person, or the provider, has said no.
	ErrDenied = errors.New("the login was denied")
	// ErrExpired says that nobody has logged in in time.
	ErrExpired = errors.New("nobody has logged in in time")
)

// login is one login with a provider.
type login struct {
	config   Config
	provider *gooidc.Provider
	oauth    oauth2.Config
}

// begin asks the provider for its addresses. The context that it returns is for the requests to the provider.
func begin(ctx context.Context, config Config) (context.Context, *login, error) {
	if err := issuer.Check(config.Issuer); err != nil {
		return nil, nil, err
	}
	if config.ClientID == "" {
		return nil, nil, errors.New("the OIDC client id is missing; it is as what this client is known to the provider")
	}
	if len(config.Scopes) == 0 {
		config.Scopes = []string{gooidc.ScopeOpenID, gooidc.ScopeEmail, gooidc.ScopeProfile, "groups"}
	}
	requests := gooidc.ClientContext(ctx, issuer.Client(config.HTTPClient))
	l := &login{config: config}
	var err error
	if l.provider, err = gooidc.NewProvider(requests, config.Issuer); err != nil {
		return nil, nil, l.failed(ctx, "cannot be asked how to log in", err)
	}
	l.oauth = oauth2.Config{ClientID: config.ClientID, Endpoint: l.provider.Endpoint(), Scopes: config.Scopes}
	l.oauth.Endpoint.AuthStyle = oauth2.AuthStyleInParams // a public client has nothing to put into a header
	return requests, l, nil
}

// failed says what the provider has answered, or why it has not. ctx is the caller's: once it has ended, that is the reason.
func (l *login) failed(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var answer *oauth2.RetrieveError
	if !errors.As(err, &answer) || answer.ErrorCode == "" {
		return fmt.Errorf("the OIDC provider %s %s: %s", l.config.Issuer, what, issuer.Text(err))
	}
	return l.answered(answer.ErrorCode, answer.ErrorDescription)
}

// answered says what the error of a provider means.
func (l *login) answered(code, description string) error {
	text := code
	if description != "" {
		text += ": " + description
	}
	text = issuer.Text(errors.New(text))
	switch code {
	case "access_denied":
		return fmt.Errorf("%w by the OIDC provider %s (%s)", ErrDenied, l.config.Issuer, text)
	case "expired_token":
		return fmt.Errorf("%w with the OIDC provider %s (%s); log in again", ErrExpired, l.config.Issuer, text)
	}
	return fmt.Errorf("the OIDC provider %s refuses the login (%s)", l.config.Issuer, text)
}

// idToken returns the ID token of an answer once it is known to be the provider's, for this client, and for this login. nonce is
// what it must repeat, if anything.
func (l *login) idToken(ctx, requests context.Context, answer *oauth2.Token, nonce string) (string, error) {
	raw, ok := answer.Extra("id_token").(string)
	if !ok || raw == "" {
		return "", fmt.Errorf("the OIDC provider %s gave no ID token; the client %s must be allowed the scope openid", l.config.Issuer, l.config.ClientID)
	}
	token, err := l.provider.Verifier(&gooidc.Config{ClientID: l.config.ClientID}).Verify(requests, raw)
	if err != nil {
		return "", l.failed(ctx, "gave an ID token that is not good", err)
	}
	if token.Nonce != nonce {
		return "", fmt.Errorf("the OIDC provider %s gave the ID token of another login (nonce); log in again", l.config.Issuer)
	}
	if token.AccessTokenHash != "" {
		if err := token.VerifyAccessToken(answer.AccessToken); err != nil {
			return "", l.failed(ctx, "gave an ID token that does not belong to its answer", err)
		}
	}
	return raw, nil
}
