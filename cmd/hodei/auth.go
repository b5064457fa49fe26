package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

func newAuth(g *global) *cobra.Command {
	cmd := &cobra.Command{Use: "auth", Short: "See who you are to the server, and what you may do"}
	cmd.AddCommand(newWhoAmI(g), newCanI(g))
	return cmd
}

func newWhoAmI(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "whoami", Short: "Show whom the server takes you for, and the roles that you hold", Args: cobra.NoArgs,
		Example: "hodei auth whoami\nHODEI_TOKEN=... hodei auth whoami -o json",
		RunE: g.withClient(func(cmd *cobra.Command, _ []string, c *hodei.Client) error {
			who, err := c.WhoAmI(cmd.Context())
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), who, func(w *tabwriter.Writer) { whoDetails(w, who) })
		}),
	}
}

func whoDetails(w *tabwriter.Writer, who *hodeiv1.WhoAmIResponse) {
	line := func(name, value string) { fmt.Fprintf(w, "%s:\t%s\n", name, value) }
	line("Principal", cell(who.GetPrincipal()))
	line("Groups", cell(strings.Join(who.GetGroups(), " ")))
	line("Proved by", cell(strings.TrimSpace(who.GetProof()+" "+who.GetProofId())))
	line("Until", date(who.GetExpireTime()))
	fmt.Fprintln(w, "\nROLE\tNAMESPACE\tGRANTED TO\tPERMISSIONS")
	for _, grant := range who.GetGrants() {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", grant.GetRole(), grant.GetNamespace(), cell(grant.GetSubject()), strings.Join(grant.GetPermissions(), " "))
	}
}

func newCanI(g *global) *cobra.Command {
	var namespace string
	var quiet bool
	cmd := &cobra.Command{
		Use: "can-i PERMISSION", Short: "Say whether you hold a permission, and why; exit with 1 if not",
		Args:    exactly(1, "a permission, for example jobs.submit"),
		Example: "hodei auth can-i jobs.submit\nhodei auth can-i queues.write -n web --quiet && hodei queue pause --namespace web builds",
		RunE: g.withClient(func(cmd *cobra.Command, args []string, c *hodei.Client) error {
			allowed, reason, err := c.CheckAccess(cmd.Context(), args[0], namespace)
			if err != nil {
				return err
			}
			if !quiet {
				answer := map[string]any{"allowed": allowed, "reason": reason}
				if err := g.print(cmd.OutOrStdout(), answer, func(w *tabwriter.Writer) {
					fmt.Fprintf(w, "%s: %s\n", yesNo(allowed), cell(reason))
				}); err != nil {
					return err
				}
			}
			if !allowed {
				return &exitError{exitFailure, ""}
			}
			return nil
		}),
	}
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "", `namespace; "*" for all at once (default: default)`)
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "only the exit code")
	return cmd
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
