package main

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	hodei "github.com/hodei-jobs/hodei/clients/go"
)

func newToken(g *global) *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Make tokens with which agents join"}
	var ttl time.Duration
	var uses int32
	var labels []string
	create := &cobra.Command{
		Use: "create", Short: "Make a token and print the command for the new machine", Args: cobra.NoArgs,
		Example: "hodei token create\nhodei token create --ttl 24h --uses 10 --label pool=build",
		RunE: g.withClient(func(cmd *cobra.Command, _ []string, c *hodei.Client) error {
			fixed, err := pairs("--label", labels)
			if err != nil {
				return err
			}
			token, err := c.CreateToken(cmd.Context(), ttl, uses, fixed)
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), token, func(w *tabwriter.Writer) {
				fmt.Fprintf(w, "Run this on the new machine, before %s:\n\n  hodei-agent --server %s --token %s --ca-pin %s\n",
					token.GetExpireTime().AsTime().Local().Format(time.DateTime), c.Config().URL, token.GetSecret(), token.GetCaPin())
			})
		}),
	}
	create.Flags().DurationVar(&ttl, "ttl", 0, "how long the token may be used (default 1h)")
	create.Flags().Int32Var(&uses, "uses", 0, "how many agents may join with it (default 1)")
	create.Flags().StringArrayVar(&labels, "label", nil, "label that these agents get, KEY=VALUE; may be repeated")
	cmd.AddCommand(create)
	return cmd
}
