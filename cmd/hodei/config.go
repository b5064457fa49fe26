package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	hodei "github.com/hodei-jobs/hodei/clients/go"
)

func newConfig(g *global) *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Look at the settings"}
	cmd.AddCommand(&cobra.Command{
		Use: "view", Short: "Show the settings that commands use, wherever they come from", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := hodei.ResolveConfig(g.config)
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), config, func(w *tabwriter.Writer) {
				for _, line := range [][2]string{
					{"Context", config.Context},
					{"URL", config.URL},
					{"CA", cmp.Or(config.CAPin, config.CA)},
					{"Certificate", config.Cert},
					{"Key", config.Key},
					{"Token", tokenText(config)},
					{"Login", loginText(config)},
					{"Namespace", config.Namespace},
				} {
					fmt.Fprintf(w, "%s:\t%s\n", line[0], orDash(line[1]))
				}
			})
		},
	})
	return cmd
}

// tokenText says where a token comes from, and never what it is.
func tokenText(config hodei.Config) string {
	if config.Token != "" {
		return "given"
	}
	return config.TokenFile
}

func loginText(config hodei.Config) string {
	if config.RenewableUntil == "" {
		return config.Login
	}
	return config.Login + ", until " + config.RenewableUntil
}

func newContext(g *global) *cobra.Command {
	cmd := &cobra.Command{Use: "context", Short: "Choose between servers"}
	cmd.AddCommand(
		&cobra.Command{
			Use: "list", Aliases: []string{"ls"}, Short: "List contexts", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				file, err := hodei.LoadConfigFile()
				if err != nil {
					return err
				}
				return g.print(cmd.OutOrStdout(), file.Contexts, func(w *tabwriter.Writer) {
					fmt.Fprintln(w, "CURRENT\tNAME\tURL")
					for _, name := range slices.Sorted(maps.Keys(file.Contexts)) {
						mark := ""
						if name == file.Current {
							mark = "*"
						}
						fmt.Fprintf(w, "%s\t%s\t%s\n", mark, name, file.Contexts[name].URL)
					}
				})
			},
		},
		&cobra.Command{
			Use: "use NAME", Short: "Make a context the current one", Args: exactly(1, "the name of a context"),
			RunE: func(_ *cobra.Command, args []string) error {
				file, err := hodei.LoadConfigFile()
				if err != nil {
					return err
				}
				if _, ok := file.Contexts[args[0]]; !ok {
					return fmt.Errorf("there is no context %q; `hodei context list` shows those that are there", args[0])
				}
				file.Current = args[0]
				return file.Save()
			},
		},
	)
	return cmd
}
