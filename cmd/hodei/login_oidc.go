package main

import (
	"context"

	"github.com/hodei-jobs/hodei/clients/go/oidclogin"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

// These are variables so that tests can log in without a provider.
var (
	logInByDevice deviceFlow = func(ctx context.Context, p *hodeiv1.OidcProvider, show func(verificationURI, userCode string)) (string, error) {
		return oidclogin.Device(ctx, oidcConfig(p), show)
	}
	logInByBrowser browserFlow = func(ctx context.Context, p *hodeiv1.OidcProvider, open func(url string) error) (string, error) {
		return oidclogin.Browser(ctx, oidcConfig(p), open)
	}
)

func oidcConfig(p *hodeiv1.OidcProvider) oidclogin.Config {
	return oidclogin.Config{Issuer: p.GetIssuer(), ClientID: p.GetClientId(), Scopes: p.GetScopes()}
}
