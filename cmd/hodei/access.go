package main

import (
	"cmp"
	"encoding/csv"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	adminv1 "github.com/hodei-jobs/hodei/gen/hodei/admin/v1"
)

func newAccess(g *global) *cobra.Command {
	cmd := &cobra.Command{Use: "access", Short: "Review who may do what"}
	cmd.AddCommand(&cobra.Command{
		Use: "review", Short: "List every binding, API token and login, with what it permits and when it was used last", Args: cobra.NoArgs,
		Long: `Review lists who may do what, for somebody who has to confirm that it is right: whom a role was given, by whom and when, and which tokens
and logins are good still. With -o csv it is a file for a spreadsheet.`,
		Example: "hodei admin access review\nhodei admin access review -o csv > access.csv",
		RunE: g.withClient(func(cmd *cobra.Command, _ []string, c *hodei.Client) error {
			entries, err := collect(c.ReviewAccess(cmd.Context()), 0)
			if err != nil {
				return err
			}
			if g.output == "csv" {
				return writeReview(cmd.OutOrStdout(), entries)
			}
			return g.print(cmd.OutOrStdout(), &adminv1.ReviewAccessResponse{Entries: entries}, func(w *tabwriter.Writer) {
				fmt.Fprintln(w, "SUBJECT\tWHAT\tROLE\tNAMESPACE\tBY\tSINCE\tEXPIRES\tLAST USED")
				for _, e := range entries {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", cell(e.GetSubject()), cmp.Or(e.GetCredential(), e.GetKind()), orDash(e.GetRole()),
						orDash(e.GetNamespace()), cell(e.GetCreatedBy()), date(e.GetCreateTime()), date(e.GetExpireTime()), ago(e.GetLastUseTime()))
				}
			})
		}),
	})
	return cmd
}

// writeReview writes a line of CSV for each entry, with times as in RFC 3339.
func writeReview(w io.Writer, entries []*adminv1.AccessEntry) error {
	out := csv.NewWriter(w)
	lines := [][]string{{
		"subject", "kind", "role", "namespace", "permissions", "credential", "created_by", "create_time", "expire_time", "last_use_time",
	}}
	at := func(t *timestamppb.Timestamp) string {
		if t == nil {
			return ""
		}
		return t.AsTime().Format(time.RFC3339)
	}
	for _, e := range entries {
		lines = append(lines, []string{
			e.GetSubject(), e.GetKind(), e.GetRole(), e.GetNamespace(), strings.Join(e.GetPermissions(), " "), e.GetCredential(), e.GetCreatedBy(),
			at(e.GetCreateTime()), at(e.GetExpireTime()), at(e.GetLastUseTime()),
		})
	}
	for _, line := range lines {
		for i, field := range line {
			line[i] = inertField(field)
		}
	}
	return out.WriteAll(lines)
}

// inertField keeps a spreadsheet from taking a name for a formula.
func inertField(field string) string {
	if field != "" && strings.ContainsRune("=+-@\t\r", rune(field[0])) {
		return "'" + field
	}
	return field
}
