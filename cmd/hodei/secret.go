package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

func newSecret(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use: "secret", Short: "Keep secrets for jobs",
		Long: `Secrets are kept encrypted, for one namespace. A job gets those that its spec names, as variables or files, and their values
are replaced by **** in everything that it writes. No command shows a value.`,
	}
	var namespace string
	cmd.PersistentFlags().StringVar(&namespace, "namespace", "", "namespace of the secrets (default: default)")
	cmd.AddCommand(newSecretSet(g, &namespace), newSecretList(g, &namespace), newSecretRemove(g, &namespace))
	return cmd
}

func newSecretSet(g *global, namespace *string) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "set NAME", Short: "Make a secret, or give it another value", Args: exactly(1, "the name of a secret"),
		Long: `Set reads the value from the standard input, without the line end at its end, or asks for it when that is a terminal. With
--from-file the value is the file's content as it is. A value in an argument would be seen in the list of processes.`,
		Example: "printf %s \"$TOKEN\" | hodei secret set TOKEN\nhodei secret set --from-file key.pem DEPLOY_KEY",
		RunE: g.withClient(func(cmd *cobra.Command, args []string, c *hodei.Client) error {
			value, err := secretValue(cmd.InOrStdin(), args[0], file)
			if err != nil {
				return err
			}
			res, err := c.SetSecret(cmd.Context(), *namespace, args[0], value)
			if err != nil {
				return err
			}
			for _, warning := range res.GetWarnings() {
				fmt.Fprintln(os.Stderr, "hodei:", warning)
			}
			return g.print(cmd.OutOrStdout(), res.GetSecret(), func(w *tabwriter.Writer) {
				s := res.GetSecret()
				fmt.Fprintf(w, "secret %s of namespace %s has version %d\n", s.GetName(), s.GetNamespace(), s.GetVersion())
			})
		}),
	}
	cmd.Flags().StringVar(&file, "from-file", "", "file with the value")
	return cmd
}

// maxSecretBytes is more than the server takes, so that it says what is too much.
const maxSecretBytes = 1 << 20

// secretValue reads a value from a file, a terminal without showing it, or the standard input.
func secretValue(stdin io.Reader, name, file string) ([]byte, error) {
	if file != "" {
		value, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("reading --from-file: %w", err)
		}
		return value, nil
	}
	if f, ok := stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprintf(os.Stderr, "Value of %s: ", name)
		value, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(os.Stderr)
		return value, err
	}
	value, err := io.ReadAll(io.LimitReader(stdin, maxSecretBytes))
	if err != nil {
		return nil, fmt.Errorf("reading the value from the standard input: %w", err)
	}
	return bytes.TrimSuffix(bytes.TrimSuffix(value, []byte("\n")), []byte("\r")), nil
}

func newSecretList(g *global, namespace *string) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the secrets of a namespace, without their values", Args: cobra.NoArgs,
		RunE: g.withClient(func(cmd *cobra.Command, _ []string, c *hodei.Client) error {
			secrets, err := c.ListSecrets(cmd.Context(), *namespace)
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), &hodeiv1.ListSecretsResponse{Secrets: secrets}, func(w *tabwriter.Writer) {
				fmt.Fprintln(w, "NAME\tVERSION\tUPDATED")
				for _, s := range secrets {
					fmt.Fprintf(w, "%s\t%d\t%s\n", s.GetName(), s.GetVersion(), age(s.GetUpdateTime())+" ago")
				}
			})
		}),
	}
}

func newSecretRemove(g *global, namespace *string) *cobra.Command {
	return &cobra.Command{
		Use: "rm NAME", Aliases: []string{"delete"}, Short: "Remove a secret", Args: exactly(1, "the name of a secret"),
		Long: "Rm removes a secret. Jobs that run keep it; those that name it and have not started fail when they do.",
		RunE: g.withClient(func(cmd *cobra.Command, args []string, c *hodei.Client) error {
			return c.DeleteSecret(cmd.Context(), *namespace, args[0])
		}),
	}
}
