package main

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/hodei-jobs/hodei/service/audit/chain"
)

func newAuditVerify(g *global) *cobra.Command {
	var checkpoints string
	var keys []string
	cmd := &cobra.Command{
		Use: "verify FILE", Short: "Prove without a server that nobody has changed an export; exit with 1 if somebody has",
		Args: exactly(1, "the file of an export, or - for the standard input"),
		Long: `Verify follows the chain of hashes through an export, and checks the server's signatures. It finds records that were changed, added,
removed or moved. With the checkpoints that the server appends to a file of its own, of which there should be a copy elsewhere, it finds also
that the end was cut off.`,
		Example: `hodei admin audit verify trail.jsonl --public-key audit-key.pem
hodei admin audit verify trail.jsonl --public-key audit-key.pem --checkpoints /backup/checkpoints.jsonl`,
		RunE: func(cmd *cobra.Command, args []string) error {
			public, err := readAuditKeys(keys)
			if err != nil {
				return err
			}
			records, err := openInput(args[0], cmd.InOrStdin())
			if err != nil {
				return err
			}
			defer records.Close() //nolint:errcheck // only read
			var apart io.Reader
			if checkpoints != "" {
				file, err := os.Open(checkpoints)
				if err != nil {
					return fmt.Errorf("reading --checkpoints: %w", err)
				}
				defer file.Close() //nolint:errcheck // only read
				apart = file
			}
			report, err := chain.Verify(records, apart, public...)
			if err != nil {
				return err
			}
			return g.printReport(cmd.OutOrStdout(), &report)
		},
	}
	cmd.Flags().StringVar(&checkpoints, "checkpoints", "", "file with checkpoints that were kept elsewhere")
	cmd.Flags().StringArrayVar(&keys, "public-key", nil, "file with the server's public key in PEM; may be repeated, when there was another one before")
	return cmd
}

func openInput(path string, stdin io.Reader) (io.ReadCloser, error) {
	if path == "-" {
		return io.NopCloser(stdin), nil
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the export: %w", err)
	}
	return file, nil
}

// readAuditKeys reads public keys, as `hodei admin audit key` prints them.
func readAuditKeys(paths []string) ([]ed25519.PublicKey, error) {
	if len(paths) == 0 {
		return nil, usageError{errors.New("expected --public-key with the file that `hodei admin audit key` has printed")}
	}
	var keys []ed25519.PublicKey
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("reading --public-key: %w", err)
		}
		block, _ := pem.Decode(data)
		if block == nil {
			return nil, fmt.Errorf("%s has no PEM block; `hodei admin audit key` prints the right one", path)
		}
		parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s holds no public key: %w", path, err)
		}
		key, ok := parsed.(ed25519.PublicKey)
		if !ok {
			return nil, fmt.Errorf("%s holds a %T instead of an Ed25519 key", path, parsed)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// printReport says what was found, each problem on a line of its own.
func (g *global) printReport(w io.Writer, r *chain.Report) error {
	err := g.print(w, reportDocument(r), func(t *tabwriter.Writer) {
		for _, p := range r.Problems {
			fmt.Fprintf(t, "%s, line %d: %s\n", p.Input, p.Line, cell(p.Text))
		}
		if r.More > 0 {
			fmt.Fprintf(t, "and %d problems more\n", r.More)
		}
		for _, warning := range r.Warnings {
			fmt.Fprintf(t, "warning: %s\n", cell(warning))
		}
		verdict := "nothing was changed"
		if !r.OK() {
			verdict = "THE TRAIL WAS CHANGED"
		}
		fmt.Fprintf(t, "%s: %d records (%d to %d), %d checkpoints, vouched for up to record %d\n",
			verdict, r.Records, r.First, r.Last, r.Checkpoints, r.Vouched)
	})
	if err != nil || r.OK() {
		return err
	}
	return &exitError{exitFailure, ""}
}

// reportDocument is a report for programs.
func reportDocument(r *chain.Report) map[string]any {
	problems := make([]map[string]any, 0, len(r.Problems))
	for _, p := range r.Problems {
		problems = append(problems, map[string]any{"input": p.Input, "line": p.Line, "sequence": p.Seq, "text": p.Text})
	}
	return map[string]any{
		"ok": r.OK(), "first": r.First, "last": r.Last, "records": r.Records, "checkpoints": r.Checkpoints, "vouched": r.Vouched,
		"problems": problems, "more_problems": r.More, "warnings": append([]string{}, r.Warnings...),
	}
}
