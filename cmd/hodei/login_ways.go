package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

// loginFlags say how to log in.
type loginFlags struct {
	tokenFile, user       string
	oidc, device, browser bool
}

func (f *loginFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.tokenFile, "token-file", "", "log in with the API token in this file; - for the standard input (HODEI_TOKEN_FILE)")
	flags.StringVar(&f.user, "request", "", "ask for a login as this user, and wait until an administrator has approved it")
	flags.BoolVar(&f.oidc, "oidc", false, "log in with the server's OIDC provider")
	flags.BoolVar(&f.device, "device", false, "log in with the provider in a browser on another machine, by a code")
	flags.BoolVar(&f.browser, "browser", false, "log in with the provider in the browser of this machine")
}

func (f *loginFlags) byProvider() bool { return f.oidc || f.device || f.browser }

// check refuses two ways at once.
func (f *loginFlags) check() error {
	var ways []string
	for way, given := range map[string]bool{
		"--token-file": f.tokenFile != "", "--request": f.user != "", "--oidc": f.byProvider(),
	} {
		if given {
			ways = append(ways, way)
		}
	}
	if len(ways) > 1 || f.device && f.browser {
		return usageError{errors.New("--token-file, --request, --device and --browser are different ways to log in; keep one")}
	}
	return nil
}

// login goes the way that the flags name, or the first one that there is.
func (f *loginFlags) login(ctx context.Context, stdin io.Reader, options hodei.LoginOptions) (config hodei.Config, err error) {
	switch {
	case f.user != "":
		return requestLogin(ctx, options, f.user)
	case f.tokenFile != "" && !f.byProvider(): // a variable may name a file although a flag names another way
		options.APIToken, err = readAPIToken(f.tokenFile, stdin)
	default:
		options.IDToken, err = f.providerToken(ctx, options)
	}
	if err != nil {
		return config, err
	}
	return hodei.Login(ctx, options)
}

// maxTokenFile is more than any token has.
const maxTokenFile = 64 << 10

func readAPIToken(path string, stdin io.Reader) (string, error) {
	in := stdin
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return "", fmt.Errorf("reading --token-file: %w", err)
		}
		defer file.Close() //nolint:errcheck // only read
		in = file
	}
	data, err := io.ReadAll(io.LimitReader(in, maxTokenFile))
	if err != nil {
		return "", fmt.Errorf("reading --token-file %s: %w", path, err)
	}
	token := string(bytes.TrimSpace(data))
	if token == "" {
		return "", fmt.Errorf("--token-file %s holds no token", path)
	}
	return token, nil
}

func requestLogin(ctx context.Context, options hodei.LoginOptions, user string) (hodei.Config, error) {
	pending, err := hodei.RequestLogin(ctx, options, user)
	if err != nil {
		return hodei.Config{}, err
	}
	fmt.Fprintf(os.Stderr, `Tell an administrator this code; they let you in with

  hodei admin login approve %s

Waiting until %s. Ctrl-C gives up.
`, cell(pending.Code), dateOf(pending.Expires))
	config, err := pending.CollectLogin(ctx)
	if ctx.Err() != nil {
		return config, &exitError{exitInterrupted, "gave up; nobody is logged in"}
	}
	return config, err
}

// The flows of an OIDC provider. Both return an ID token.
type (
	deviceFlow  func(ctx context.Context, p *hodeiv1.OidcProvider, show func(verificationURI, userCode string)) (string, error)
	browserFlow func(ctx context.Context, p *hodeiv1.OidcProvider, open func(url string) error) (string, error)
)

// providerToken logs in with the provider that the server names.
func (f *loginFlags) providerToken(ctx context.Context, options hodei.LoginOptions) (string, error) {
	provider, err := hodei.LoginProvider(ctx, options)
	if err != nil {
		return "", err
	}
	if provider == nil {
		return "", fmt.Errorf("%s has no OIDC provider. Log in with an API token (--token-file FILE; `hodei token create --api` makes one), "+
			"or ask an administrator (--request YOUR-NAME)", options.URL)
	}
	if f.browser || !f.device && hasBrowser() {
		return logInByBrowser(ctx, provider, openBrowser)
	}
	return logInByDevice(ctx, provider, func(verificationURI, userCode string) {
		fmt.Fprintf(os.Stderr, "Open %s in a browser, on any machine, and enter the code %s\n", cell(verificationURI), cell(userCode))
	})
}

// hasBrowser reports whether somebody sits here, before a screen.
func hasBrowser() bool {
	if !term.IsTerminal(int(os.Stdin.Fd())) || os.Getenv("SSH_CONNECTION") != "" {
		return false
	}
	return runtime.GOOS == "darwin" || os.Getenv("DISPLAY") != "" || os.Getenv("WAYLAND_DISPLAY") != ""
}

// openBrowser shows a page. Where that does not work, people can do it themselves.
func openBrowser(page string) error {
	if !strings.HasPrefix(page, "https://") && !strings.HasPrefix(page, "http://") { // others may start programs
		return fmt.Errorf("the provider's page %q is not one of the web", page)
	}
	fmt.Fprintf(os.Stderr, "Opening %s\nIf no browser shows it, go there yourself.\n", cell(page))
	program := "xdg-open"
	if runtime.GOOS == "darwin" {
		program = "open"
	}
	opener := exec.Command(program, page)
	if opener.Start() == nil {
		go opener.Wait() //nolint:errcheck // so that it does not stay behind as a zombie
	}
	return nil
}
