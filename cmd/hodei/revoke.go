package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	adminv1 "github.com/hodei-jobs/hodei/gen/hodei/admin/v1"
)

// revocable is what can be revoked.
const revocable = "user/NAME, agent/WORKER, certificate/SHA256, token/ID or login/ID"

// revocationCommands end the trust in what has come into wrong hands.
func revocationCommands(g *global) []*cobra.Command {
	var reason string
	revoke := &cobra.Command{
		Use: "revoke SUBJECT", Short: "Make a user, an agent, a certificate, a token or a login useless at once", Args: exactly(1, revocable),
		Long: `Revoke ends the trust in a subject, on every connection, and cuts what it has open. It lasts until "hodei admin reinstate". A user who is
revoked can neither log in nor use a token.`,
		Example: `hodei admin revoke user/eve --reason "left the company"
hodei admin revoke agent/wkr_01... --reason "the machine was stolen"
hodei admin revoke certificate/$(openssl x509 -in cert.pem -outform der | sha256sum | cut -d' ' -f1)`,
		RunE: g.withClient(func(cmd *cobra.Command, args []string, c *hodei.Client) error {
			r, err := c.Revoke(cmd.Context(), args[0], reason)
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), r, func(w *tabwriter.Writer) { fmt.Fprintf(w, "%s is revoked\n", cell(r.GetSubject())) })
		}),
	}
	revoke.Flags().StringVar(&reason, "reason", "", "why, for people")
	return []*cobra.Command{
		revoke,
		{
			Use: "reinstate SUBJECT", Short: "Take a revocation back", Args: exactly(1, revocable), Example: "hodei admin reinstate user/eve",
			RunE: g.withClient(func(cmd *cobra.Command, args []string, c *hodei.Client) error {
				return c.Reinstate(cmd.Context(), args[0])
			}),
		},
		{
			Use: "revocations", Short: "List what is revoked", Args: cobra.NoArgs,
			RunE: g.withClient(func(cmd *cobra.Command, _ []string, c *hodei.Client) error {
				revocations, err := collect(c.Revocations(cmd.Context()), 0)
				if err != nil {
					return err
				}
				return g.print(cmd.OutOrStdout(), &adminv1.ListRevocationsResponse{Revocations: revocations}, func(w *tabwriter.Writer) {
					fmt.Fprintln(w, "SUBJECT\tREVOKED\tBY\tREASON")
					for _, r := range revocations {
						fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", cell(r.GetSubject()), date(r.GetRevokeTime()), cell(r.GetRevokedBy()), cell(r.GetReason()))
					}
				})
			}),
		},
	}
}
