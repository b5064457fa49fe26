// Command oidcprovider is an OIDC provider for tests: a real one, with which real clients log in over HTTP, and whose people say yes
// or no by sending a form. It knows two of them, ada and eve, and one client, hodei-cli.
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/zitadel/oidc/v3/pkg/op"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run serves until ctx ends. It prints {"url":"..."} once it is ready.
func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("oidcprovider", flag.ContinueOnError)
	port := flags.Int("port", 0, "port on 127.0.0.1; 0 takes a free one")
	codeLife := flags.Duration("code-life", 5*time.Minute, "how long the codes for other devices are good")
	tokenLife := flags.Duration("token-life", 5*time.Minute, "how long ID tokens are good")
	if err := flags.Parse(args); err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		return err
	}
	issuer := "http://" + listener.Addr().String()
	handler, err := newHandler(issuer, *codeLife, *tokenLife)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler, ReadTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })() // there is nothing to save
	if err := json.NewEncoder(os.Stdout).Encode(map[string]string{"url": issuer}); err != nil {
		return err
	}
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// newHandler puts the protocol and the pages for people together.
func newHandler(issuer string, codeLife, tokenLife time.Duration) (http.Handler, error) {
	s, err := newStore(tokenLife)
	if err != nil {
		return nil, err
	}
	config := &op.Config{
		CodeMethodS256: true,
		DeviceAuthorization: op.DeviceAuthorizationConfig{
			Lifetime: codeLife, PollInterval: time.Second, UserFormPath: devicePath, UserCode: op.UserCodeBase20,
		},
	}
	if _, err := rand.Read(config.CryptoKey[:]); err != nil {
		return nil, err
	}
	provider, err := op.NewProvider(config, s, op.StaticIssuer(issuer), op.WithAllowInsecure())
	if err != nil {
		return nil, err
	}
	p := &pages{store: s, provider: provider}
	mux := http.NewServeMux()
	mux.Handle("/", provider)
	mux.HandleFunc("GET "+loginPath, p.form)
	mux.Handle("POST "+loginPath, op.NewIssuerInterceptor(provider.IssuerFromRequest).HandlerFunc(p.login))
	mux.HandleFunc("GET "+devicePath, p.form)
	mux.HandleFunc("POST "+devicePath, p.device)
	mux.HandleFunc("POST /rotate", p.rotate)
	return mux, nil
}
