package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	hodei "github.com/hodei-jobs/hodei/clients/go"
)

func newLogin(g *global) *cobra.Command {
	var f loginFlags
	cmd := &cobra.Command{
		Use: "login [URL]", Short: "Log in to a server, and make it the current context",
		Long: `Login makes a key on this machine, has the server issue a certificate for it, and writes a context that uses both. The certificate
lives for a day and renews itself for as long as the login lasts. "hodei logout" ends it.

Without flags it logs in with the server's OIDC provider: in the browser, or, where there is none, with a code for a browser elsewhere.
With --token-file it takes an API token. With --request it asks for a user's name and waits for an administrator to approve.

The server is known by --ca-pin, which "hodei admin authority show" prints, by --ca, or by what the context had before.`,
		Example: `hodei login https://hodei.example.com:7443 --ca-pin sha256:...
hodei login https://hodei.example.com:7443 --ca ca.pem --request ada
hodei login --token-file - < token               # again, to the server of the current context`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{fmt.Errorf("expected at most the address of a server, got %d arguments", len(args))}
			}
			return f.check()
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			target, err := g.loginTarget(args)
			if err != nil {
				return err
			}
			config, err := f.login(ctx, cmd.InOrStdin(), target.options)
			if err != nil {
				return err
			}
			if err := target.save(config); err != nil {
				return err
			}
			return g.welcome(ctx, cmd, target.context, config)
		},
	}
	f.add(cmd.Flags())
	return cmd
}

// welcome says who one is now. It is the first call with the new certificate, too.
func (g *global) welcome(ctx context.Context, cmd *cobra.Command, name string, config hodei.Config) error {
	c, err := hodei.New(ctx, hodei.WithConfig(config))
	if err != nil {
		return err
	}
	defer c.Close()
	who, err := c.WhoAmI(ctx)
	if err != nil {
		return fmt.Errorf("logged in, but the server does not say as whom: %w", err)
	}
	until := date(who.GetExpireTime())
	if t, err := time.Parse(time.RFC3339, config.RenewableUntil); err == nil {
		until = dateOf(t)
	}
	return g.print(cmd.OutOrStdout(), who, func(w *tabwriter.Writer) {
		fmt.Fprintf(w, "logged in to %s as %s until %s; the context %s is the current one\n", config.URL, cell(who.GetPrincipal()), until, name)
		if len(who.GetGrants()) == 0 {
			fmt.Fprintln(w, "you hold no role yet: an administrator gives you one with `hodei admin binding add`")
		}
	})
}

// loginTarget is where one logs in, and the context that this becomes.
type loginTarget struct {
	context string
	options hodei.LoginOptions
}

// contextName is what a context may be called that gets a folder.
var contextName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// loginTarget finds the server and the context: those that are named, or those that are current.
func (g *global) loginTarget(args []string) (*loginTarget, error) {
	file, err := hodei.LoadConfigFile()
	if err != nil {
		return nil, err
	}
	override := hodei.Config{URL: g.config.URL, Context: g.config.Context}
	if len(args) > 0 {
		override.URL = args[0]
	}
	if _, known := file.Contexts[override.Context]; !known {
		override.Context = "" // it is to be made
	}
	now, err := hodei.ResolveConfig(override)
	if errors.Is(err, hodei.ErrNoServer) {
		return nil, usageError{errors.New("expected the address of a server, for example https://hodei.example.com:7443")}
	}
	if err != nil {
		return nil, err
	}
	t := &loginTarget{context: g.config.Context, options: hodei.LoginOptions{URL: now.URL, CA: g.config.CA, CAPin: g.config.CAPin}}
	if now.Context != "" && g.config.CA == "" && g.config.CAPin == "" { // the server of a context is known already
		t.options.CA, t.options.CAPin = now.CA, now.CAPin
	}
	if t.context == "" && now.Login != "" && now.Context != "" {
		t.context = now.Context
	} else if t.context == "" {
		t.context = hostName(now.URL)
	}
	if !contextName.MatchString(t.context) {
		return nil, usageError{fmt.Errorf("--context %q: use up to 64 letters, digits, dots, dashes and underscores", t.context)}
	}
	if old, there := file.Contexts[t.context]; there && (old.Login == "" || old.URL != now.URL) {
		return nil, fmt.Errorf("the context %s is there already, for %s, and not a login to %s; choose another name with --context",
			t.context, old.URL, now.URL)
	}
	t.options.Dir, err = loginFolder(t.context)
	return t, err
}

// hostName names a context after its server: its host, and its port if that is not the usual one.
func hostName(server string) string {
	u, err := url.Parse(server)
	if err != nil {
		return ""
	}
	name := strings.Trim(regexp.MustCompile(`[^A-Za-z0-9._-]+`).ReplaceAllString(u.Hostname(), "-"), "-._")
	if port := u.Port(); port != "" && port != "7443" {
		name += "-" + port
	}
	return name
}

// loginFolder is where the key and the certificate of a context lie.
func loginFolder(name string) (string, error) {
	path, err := hodei.ConfigPath()
	return filepath.Join(filepath.Dir(path), "contexts", name), err
}

// save writes the context and makes it the current one. What else it says of the server stays.
func (t *loginTarget) save(config hodei.Config) error {
	file, err := hodei.LoadConfigFile()
	if err != nil {
		return err
	}
	config.Namespace = file.Contexts[t.context].Namespace
	if file.Current != "" && file.Current != t.context {
		fmt.Fprintf(os.Stderr, "hodei: the current context was %q; go back to it with `hodei context use %s`\n", file.Current, file.Current)
	}
	file.Contexts[t.context], file.Current = config, t.context
	return file.Save()
}
