package main

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	adminv1 "github.com/hodei-jobs/hodei/gen/hodei/admin/v1"
)

func newAdmin(g *global) *cobra.Command {
	cmd := &cobra.Command{Use: "admin", Short: "Run a server's affairs"}
	retention := &cobra.Command{
		Use: "retention", Short: "Say how long the logs of namespaces are kept",
		Long: `Logs go with their jobs, after the server's --keep-ended. Limits of a namespace remove them earlier: those that are too old, and
the oldest of too many. The jobs stay, and whoever reads such a log is told when and why it was removed.`,
	}
	retention.AddCommand(newRetentionSet(g), newRetentionList(g))
	authority := newAuthority(g)
	authority.Aliases = []string{"ca"}
	cmd.AddCommand(retention, authority, newRole(g), newBinding(g), newAccess(g), newAdminLogin(g), newAudit(g))
	cmd.AddCommand(revocationCommands(g)...)
	return cmd
}

func newRetentionSet(g *global) *cobra.Command {
	var age time.Duration
	var size string
	cmd := &cobra.Command{
		Use: "set NAMESPACE", Short: "Give a namespace limits for its logs; without any flag, take them away",
		Args:    exactly(1, "a namespace"),
		Example: "hodei admin retention set default --max-age 168h --max-size 10Gi",
		RunE: g.withClient(func(cmd *cobra.Command, args []string, c *hodei.Client) error {
			r := &adminv1.LogRetention{Namespace: args[0]}
			if age != 0 {
				r.MaxAge = durationpb.New(age)
			}
			if size != "" {
				var err error
				if r.MaxMib, err = hodei.ParseMemoryMiB(size); err != nil {
					return usageError{fmt.Errorf("--max-size: %w", err)}
				}
			}
			return c.SetLogRetention(cmd.Context(), r)
		}),
	}
	cmd.Flags().DurationVar(&age, "max-age", 0, "remove logs so long after the end of their job")
	cmd.Flags().StringVar(&size, "max-size", "", "remove the oldest logs when all have more than this, as they were written, for example 10Gi")
	return cmd
}

func newRetentionList(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the namespaces with limits", Args: cobra.NoArgs,
		RunE: g.withClient(func(cmd *cobra.Command, _ []string, c *hodei.Client) error {
			retentions, err := c.LogRetentions(cmd.Context())
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), &adminv1.ListLogRetentionsResponse{Retentions: retentions}, func(w *tabwriter.Writer) {
				fmt.Fprintln(w, "NAMESPACE\tMAX AGE\tMAX SIZE")
				for _, r := range retentions {
					age, size := "-", "-"
					if r.GetMaxAge() != nil {
						age = r.GetMaxAge().AsDuration().String()
					}
					if r.GetMaxMib() > 0 {
						size = fmt.Sprintf("%dMi", r.GetMaxMib())
					}
					fmt.Fprintf(w, "%s\t%s\t%s\n", r.GetNamespace(), age, size)
				}
			})
		}),
	}
}
