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
	var labels, queues []string
	create := &cobra.Command{
		Use: "create", Short: "Make a token and print the command for the new machine", Args: cobra.NoArgs,
		Example: "hodei token create\nhodei token create --ttl 24h --uses 10 --label pool=build --queue default/build",
		RunE: g.withClient(func(cmd *cobra.Command, _ []string, c *hodei.Client) error {
			fixed, err := pairs("--label", labels)
			if err != nil {
				return err
			}
			token, err := c.CreateToken(cmd.Context(), ttl, uses, fixed, queues...)
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), token, func(w *tabwriter.Writer) {
				// Through a pipe, because everybody on the machine can see the arguments of a program.
				fmt.Fprintf(w, "Run this on the new machine, before %s:\n\n  echo %s | hodei-agent --server %s --ca-pin %s --token-file -\n",
					token.GetExpireTime().AsTime().Local().Format(time.DateTime), token.GetSecret(), c.Config().URL, token.GetCaPin())
			})
		}),
	}
	create.Flags().DurationVar(&ttl, "ttl", 0, "how long the token may be used (default 1h)")
	create.Flags().Int32Var(&uses, "uses", 0, "how many agents may join with it (default 1)")
	create.Flags().StringArrayVar(&labels, "label", nil, "label that these agents get, KEY=VALUE; may be repeated")
	create.Flags().StringArrayVar(&queues, "queue", nil, "queue whose jobs alone these agents get, NAMESPACE/QUEUE or NAMESPACE/*; may be repeated")
	cmd.AddCommand(create)
	return cmd
}
