package main

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	adminv1 "github.com/hodei-jobs/hodei/gen/hodei/admin/v1"
)

func newAdminLogin(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use: "login", Short: "Let people log in, and see who is logged in",
		Long: `Whoever runs "hodei login --request NAME" is shown a code. Somebody who knows them compares it with the one that the server shows, and
approves it; the code is that of their key. "hodei admin revoke login/ID" ends a login.`,
	}
	cmd.AddCommand(newLoginList(g), newLoginRequests(g), newLoginApprove(g), &cobra.Command{
		Use: "deny CODE", Short: "Refuse a request for a login", Args: exactly(1, "the code of a request"),
		RunE: g.withClient(func(cmd *cobra.Command, args []string, c *hodei.Client) error {
			return c.DenyLogin(cmd.Context(), args[0])
		}),
	})
	return cmd
}

func newLoginList(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the logins that last", Args: cobra.NoArgs,
		RunE: g.withClient(func(cmd *cobra.Command, _ []string, c *hodei.Client) error {
			logins, err := collect(c.Logins(cmd.Context()), 0)
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), &adminv1.ListLoginsResponse{Logins: logins}, func(w *tabwriter.Writer) {
				fmt.Fprintln(w, "ID\tUSER\tBY\tSINCE\tEXPIRES\tLAST USED")
				for _, l := range logins {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", l.GetId(), cell(l.GetUser()), cell(l.GetBy()),
						date(l.GetCreateTime()), date(l.GetExpireTime()), ago(l.GetLastUseTime()))
				}
			})
		}),
	}
}

func newLoginRequests(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "requests", Short: "List the requests for logins that wait for a decision", Args: cobra.NoArgs,
		RunE: g.withClient(func(cmd *cobra.Command, _ []string, c *hodei.Client) error {
			requests, err := c.LoginRequests(cmd.Context())
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), &adminv1.ListLoginRequestsResponse{Requests: requests}, func(w *tabwriter.Writer) {
				fmt.Fprintln(w, "CODE\tUSER\tFROM\tASKED\tEXPIRES")
				for _, r := range requests {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.GetCode(), cell(r.GetUser()), cell(r.GetAddress()), ago(r.GetCreateTime()), date(r.GetExpireTime()))
				}
			})
		}),
	}
}

func newLoginApprove(g *global) *cobra.Command {
	var ttl time.Duration
	cmd := &cobra.Command{
		Use: "approve CODE", Short: "Let the one who has told you this code log in", Args: exactly(1, "the code of a request"),
		Long: `Approve lets whoever has the key of this code act as the user that they have named. Approve only what somebody has told you whom you know.
You must hold all that this user holds.`,
		Example: "hodei admin login requests\nhodei admin login approve ABCD-EFGH --ttl 24h",
		RunE: g.withClient(func(cmd *cobra.Command, args []string, c *hodei.Client) error {
			login, err := c.ApproveLogin(cmd.Context(), args[0], ttl)
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), login, func(w *tabwriter.Writer) {
				fmt.Fprintf(w, "user/%s is logged in until %s, as %s\n", cell(login.GetUser()), date(login.GetExpireTime()), login.GetId())
			})
		}),
	}
	cmd.Flags().DurationVar(&ttl, "ttl", 0, "how long the login lasts (default 720h)")
	return cmd
}
