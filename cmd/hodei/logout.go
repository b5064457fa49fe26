package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	hodei "github.com/hodei-jobs/hodei/clients/go"
)

func newLogout(g *global) *cobra.Command {
	var local bool
	cmd := &cobra.Command{
		Use: "logout", Short: "End a login, and remove its key, certificate and context",
		Long: `Logout ends the login of the current context, or of the one that --context names, at the server: its certificate is of no use any more,
wherever it is. Then it removes the files and the context.`,
		Example: "hodei logout\nhodei logout --context hodei.example.com",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			file, err := hodei.LoadConfigFile()
			if err != nil {
				return err
			}
			name := cmp.Or(g.config.Context, file.Current)
			config, ok := file.Contexts[name]
			switch {
			case name == "":
				return errors.New("no context is current; `hodei logout --context NAME` ends the login of another one")
			case !ok:
				return fmt.Errorf("there is no context %q; `hodei context list` shows those that are there", name)
			case config.Login == "":
				return fmt.Errorf("the context %s is not a login: its certificate or token was given otherwise", name)
			}
			if !local {
				if err := endLogin(cmd.Context(), config); err != nil {
					return fmt.Errorf("%w\nThe login %s goes on at the server, and nothing was removed; `hodei logout --local` removes the files alone",
						err, config.Login)
				}
			}
			return forgetLogin(file, name)
		},
	}
	cmd.Flags().BoolVar(&local, "local", false, "do not ask the server; the login goes on there until it ends by itself")
	return cmd
}

// endLogin ends a login at the server. One that has ended already is as good.
func endLogin(ctx context.Context, config hodei.Config) error {
	c, err := hodei.New(ctx, hodei.WithConfig(config))
	if err != nil {
		return err
	}
	defer c.Close()
	err = c.Logout(ctx)
	if errors.Is(err, hodei.ErrUnauthenticated) || errors.Is(err, hodei.ErrFailedPrecondition) || errors.Is(err, hodei.ErrNotFound) {
		fmt.Fprintln(os.Stderr, "hodei: the login had ended already:", err)
		return nil
	}
	return err
}

// forgetLogin removes a context with its folder, if that is one that login has made.
func forgetLogin(file *hodei.ConfigFile, name string) error {
	folder, err := loginFolder(name)
	if err != nil {
		return err
	}
	if filepath.Dir(file.Contexts[name].Cert) == folder {
		if err := os.RemoveAll(folder); err != nil {
			return fmt.Errorf("removing the key and the certificate: %w", err)
		}
	}
	delete(file.Contexts, name)
	if file.Current == name {
		file.Current = ""
	}
	return file.Save()
}
