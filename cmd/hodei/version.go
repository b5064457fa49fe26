package main

import (
	"fmt"
	"runtime"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

func newVersion(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			facts := map[string]string{"version": version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH}
			return g.print(cmd.OutOrStdout(), facts, func(w *tabwriter.Writer) {
				fmt.Fprintf(w, "hodei %s %s %s\n", facts["version"], facts["platform"], facts["go"])
			})
		},
	}
}
