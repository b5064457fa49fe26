package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	adminv1 "github.com/hodei-jobs/hodei/gen/hodei/admin/v1"
)

func newAuthority(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use: "authority", Short: "Show the server's certificate authority, and change its root",
		Long: `A rotation makes a new root, which signs everything from then on. Agents get certificates of it by themselves. The old root is trusted
beside it, and clients that know only that one go on, until it is retired.`,
	}
	var force bool
	retire := g.authorityCommand("retire", "End the trust in the old root", func(ctx context.Context, c *hodei.Client) (*authority, error) {
		return c.RetireAuthority(ctx, force)
	})
	retire.Flags().BoolVar(&force, "force", false, "although workers depend on it, which must enrol again then")
	cmd.AddCommand(
		g.authorityCommand("show", "Show the roots and how many workers depend on each", func(ctx context.Context, c *hodei.Client) (*authority, error) {
			return c.Authority(ctx)
		}),
		g.authorityCommand("rotate", "Make a new root", func(ctx context.Context, c *hodei.Client) (*authority, error) {
			return c.RotateAuthority(ctx)
		}),
		retire,
	)
	return cmd
}

type authority = adminv1.GetAuthorityResponse

// authorityCommand makes a command that shows the authority after what it does.
func (g *global) authorityCommand(
	name, short string, do func(context.Context, *hodei.Client) (*authority, error),
) *cobra.Command {
	return &cobra.Command{
		Use: name, Short: short, Args: cobra.NoArgs,
		RunE: g.withClient(func(cmd *cobra.Command, _ []string, c *hodei.Client) error {
			a, err := do(cmd.Context(), c)
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), a, func(w *tabwriter.Writer) {
				fmt.Fprintln(w, "PIN\tEXPIRES\tWORKERS\tSIGNS")
				for i, root := range a.GetRoots() {
					signs := "yes"
					if i > 0 {
						signs = "no, until it is retired"
					}
					fmt.Fprintf(w, "%s\t%s\t%d\t%s\n", root.GetPin(), root.GetExpireTime().AsTime().Local().Format(time.DateOnly), root.GetWorkers(), signs)
				}
				fmt.Fprintf(w, "\nThe server's certificate is for %s, until %s; it renews itself.\n",
					strings.Join(a.GetHosts(), ", "), a.GetServerExpireTime().AsTime().Local().Format(time.DateOnly))
			})
		}),
	}
}
