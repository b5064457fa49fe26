package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	adminv1 "github.com/hodei-jobs/hodei/gen/hodei/admin/v1"
)

func newAudit(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use: "audit", Short: "Read the audit trail, and prove that nobody has changed it",
		Long: `The trail has a record of each change and of each request that was denied. Each record has the hash of the one before, and once a minute
the server signs how far the trail goes, so that whoever has the public key finds any change in an export.`,
	}
	cmd.AddCommand(newAuditList(g), newAuditExport(g), newAuditVerify(g), &cobra.Command{
		Use: "key", Short: "Print the public key with which exports are verified", Args: cobra.NoArgs,
		Long:    "Key prints the public key in PEM. Keep it where whoever could change the trail cannot: then it proves something.",
		Example: "hodei admin audit key > audit-key.pem",
		RunE: g.withClient(func(cmd *cobra.Command, _ []string, c *hodei.Client) error {
			key, err := c.AuditKey(cmd.Context())
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), &adminv1.GetAuditKeyResponse{PublicKeyPem: key}, func(w *tabwriter.Writer) { fmt.Fprint(w, key) })
		}),
	})
	return cmd
}

func newAuditList(g *global) *cobra.Command {
	filter := &adminv1.ListAuditRecordsRequest{}
	var where namespaceFlags
	var since, until string
	var limit int32
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List records, the newest first", Args: cobra.NoArgs,
		Example: `hodei admin audit list --outcome denied --since 24h -A
hodei admin audit list --actor user/ada --action hodei.v1.JobService -n web -o json`,
		RunE: g.withClient(func(cmd *cobra.Command, _ []string, c *hodei.Client) (err error) {
			if filter.Namespace, err = where.value(); err != nil {
				return err
			}
			now := time.Now()
			if filter.Since, err = stamp("--since", since, now); err != nil {
				return err
			}
			if filter.Until, err = stamp("--until", until, now); err != nil {
				return err
			}
			if limit < 1 {
				return usageError{errors.New("--limit must be at least 1")}
			}
			filter.PageSize = min(limit, 1000)
			records, err := collect(c.AuditRecords(cmd.Context(), filter), int(limit))
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), &adminv1.ListAuditRecordsResponse{Records: records}, func(w *tabwriter.Writer) { auditTable(w, records) })
		}),
	}
	where.add(cmd)
	cmd.Flags().Lookup("all-namespaces").Usage = "all namespaces, and what belongs to none"
	flags := cmd.Flags()
	flags.StringVar(&filter.Actor, "actor", "", "by this one: user/NAME, agent/WORKER, anonymous or server")
	flags.StringVar(&filter.Action, "action", "", "whose action begins so, for example hodei.v1.JobService/SubmitJob")
	flags.StringVar(&filter.Outcome, "outcome", "", "ok or denied")
	flags.StringVar(&filter.Target, "target", "", "on this, for example the id of a job")
	flags.StringVar(&since, "since", "", "from this time (2026-01-31T12:00:00Z) or so long ago (10m) on")
	flags.StringVar(&until, "until", "", "before this time or so long ago")
	flags.Int32Var(&limit, "limit", 50, "at most this many")
	return cmd
}

func stamp(flag, text string, now time.Time) (*timestamppb.Timestamp, error) {
	t, err := moment(flag, text, now)
	if err != nil || t.IsZero() {
		return nil, err
	}
	return timestamppb.New(t), nil
}

func auditTable(w *tabwriter.Writer, records []*adminv1.AuditRecord) {
	fmt.Fprintln(w, "NUMBER\tTIME\tACTOR\tACTION\tNAMESPACE\tTARGETS\tOUTCOME\tFROM")
	for _, r := range records {
		outcome := r.GetOutcome()
		if r.GetReason() != "" {
			outcome += ": " + r.GetReason()
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.GetSequence(), r.GetTime().AsTime().Local().Format(time.DateTime), cell(r.GetActor()),
			cell(r.GetAction()), cell(r.GetNamespace()), cell(strings.Join(r.GetTargets(), " ")), cell(outcome), cell(r.GetAddress()))
	}
}

func newAuditExport(g *global) *cobra.Command {
	var from uint64
	var path string
	cmd := &cobra.Command{
		Use: "export", Short: "Write the trail as it is stored, one JSON document a line", Args: cobra.NoArgs,
		Long: `Export writes the records with the signed checkpoints in their places, and one at the end. "hodei admin audit verify" proves, without a
server, that nothing in it was changed or left out. --output makes no difference.`,
		Example: "hodei admin audit export -f trail.jsonl\nhodei admin audit export --from 1001 | gzip > more.jsonl.gz",
		RunE: g.withClient(func(cmd *cobra.Command, _ []string, c *hodei.Client) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			if path == "" || path == "-" {
				return c.ExportAudit(ctx, from, cmd.OutOrStdout())
			}
			return toFile(path, func(w io.Writer) error { return c.ExportAudit(ctx, from, w) })
		}),
	}
	cmd.Flags().Uint64Var(&from, "from", 0, "number of the first record (default: the oldest)")
	cmd.Flags().StringVarP(&path, "file", "f", "", "file to write, readable by you only (default: the standard output)")
	return cmd
}

// toFile writes a file, and says so when it is not whole.
func toFile(path string, write func(io.Writer) error) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("writing --file: %w", err)
	}
	if err := errors.Join(write(file), file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("%s is not whole: %w", path, err)
	}
	return nil
}
