package main

import (
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	adminv1 "github.com/hodei-jobs/hodei/gen/hodei/admin/v1"
)

func newRole(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use: "role", Short: "Say what roles permit",
		Long: `A role is a set of permissions. viewer, submitter, operator, auditor and admin come with the server and cannot be changed; others are made
here. Who holds which role is said by "hodei admin binding".`,
	}
	cmd.AddCommand(
		newRoleList(g), newRoleSet(g),
		&cobra.Command{
			Use: "rm NAME", Aliases: []string{"delete"}, Short: "Remove a role that nobody holds", Args: exactly(1, "the name of a role"),
			RunE: g.withClient(func(cmd *cobra.Command, args []string, c *hodei.Client) error {
				return c.DeleteRole(cmd.Context(), args[0])
			}),
		},
	)
	return cmd
}

func newRoleList(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the roles, and all permissions that there are", Args: cobra.NoArgs,
		RunE: g.withClient(func(cmd *cobra.Command, _ []string, c *hodei.Client) error {
			res, err := c.Roles(cmd.Context())
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), res, func(w *tabwriter.Writer) {
				fmt.Fprintln(w, "NAME\tBUILT IN\tPERMISSIONS")
				for _, r := range res.GetRoles() {
					fmt.Fprintf(w, "%s\t%s\t%s\n", r.GetName(), yesNo(r.GetBuiltIn()), rolePermissions(r, res.GetPermissions()))
				}
				fmt.Fprintf(w, "\nAll permissions: %s\n", strings.Join(res.GetPermissions(), " "))
			})
		}),
	}
}

// rolePermissions are those of a role; of one with every permission, they are in the list below the table.
func rolePermissions(r *adminv1.Role, all []string) string {
	if len(all) > 0 && len(r.GetPermissions()) == len(all) {
		return "all"
	}
	return strings.Join(r.GetPermissions(), " ")
}

func newRoleSet(g *global) *cobra.Command {
	role := &adminv1.Role{}
	cmd := &cobra.Command{
		Use: "set NAME", Short: "Make a role, or give it other permissions", Args: exactly(1, "the name of a role"),
		Long:    "Set gives a role the permissions that are named, and takes away all others. You must hold all of them in all namespaces.",
		Example: "hodei admin role set deployer --permission jobs.submit,jobs.read,logs.read --description 'deploys, and sees how it goes'",
		RunE: g.withClient(func(cmd *cobra.Command, args []string, c *hodei.Client) error {
			if len(role.GetPermissions()) == 0 {
				return usageError{errors.New("expected a --permission; `hodei admin role list` shows those that there are")}
			}
			role.Name = args[0]
			role, err := c.SetRole(cmd.Context(), role)
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), role, func(w *tabwriter.Writer) {
				fmt.Fprintf(w, "role %s permits %s\n", role.GetName(), strings.Join(role.GetPermissions(), " "))
			})
		}),
	}
	cmd.Flags().StringSliceVar(&role.Permissions, "permission", nil, "permission, for example jobs.submit; may be repeated")
	cmd.Flags().StringVar(&role.Description, "description", "", "what it is for")
	return cmd
}
