package main

import (
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	adminv1 "github.com/hodei-jobs/hodei/gen/hodei/admin/v1"
)

func newBinding(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use: "binding", Short: "Say who holds which role, and where",
		Long: `A binding gives a role to user/NAME, or to everybody in group/NAME, in one namespace or in all. Nobody gives a role that permits more
than they hold there themselves.`,
	}
	cmd.AddCommand(newBindingList(g), newBindingAdd(g), newBindingRemove(g))
	return cmd
}

// namespaceFlags name one namespace, or all of them.
type namespaceFlags struct {
	namespace string
	all       bool
}

func (f *namespaceFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&f.namespace, "namespace", "n", "", "namespace (default: default)")
	cmd.Flags().BoolVarP(&f.all, "all-namespaces", "A", false, "all namespaces, those to come included")
}

// value is what the API takes.
func (f *namespaceFlags) value() (string, error) {
	switch {
	case f.all && f.namespace != "":
		return "", usageError{errors.New("--namespace and --all-namespaces both say where; keep one")}
	case f.all:
		return "*", nil
	}
	return f.namespace, nil
}

func newBindingList(g *global) *cobra.Command {
	var where namespaceFlags
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List who holds which role, everywhere, or in the namespace that is named", Args: cobra.NoArgs,
		RunE: g.withClient(func(cmd *cobra.Command, _ []string, c *hodei.Client) error {
			namespace, err := where.value()
			if err != nil {
				return err
			}
			bindings, err := collect(c.Bindings(cmd.Context(), namespace), 0)
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), &adminv1.ListBindingsResponse{Bindings: bindings}, func(w *tabwriter.Writer) {
				fmt.Fprintln(w, "NAMESPACE\tSUBJECT\tROLE\tGRANTED BY\tSINCE")
				for _, b := range bindings {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", b.GetNamespace(), cell(b.GetSubject()), b.GetRole(), cell(b.GetCreatedBy()), date(b.GetCreateTime()))
				}
			})
		}),
	}
	where.add(cmd)
	cmd.Flags().Lookup("namespace").Usage = "only those of this namespace"
	cmd.Flags().Lookup("all-namespaces").Usage = "only those of all namespaces at once"
	return cmd
}

func newBindingAdd(g *global) *cobra.Command {
	var where namespaceFlags
	cmd := &cobra.Command{
		Use: "add SUBJECT ROLE", Short: "Give a role to a user or a group", Args: exactly(2, "user/NAME or group/NAME, and the name of a role"),
		Example: "hodei admin binding add user/ada operator -n web\nhodei admin binding add group/devs viewer --all-namespaces",
		RunE: g.withClient(func(cmd *cobra.Command, args []string, c *hodei.Client) error {
			namespace, err := where.value()
			if err != nil {
				return err
			}
			b, err := c.CreateBinding(cmd.Context(), args[0], args[1], namespace)
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), b, func(w *tabwriter.Writer) {
				fmt.Fprintf(w, "%s has the role %s in %s\n", cell(b.GetSubject()), b.GetRole(), namespaceText(b.GetNamespace()))
			})
		}),
	}
	where.add(cmd)
	return cmd
}

func namespaceText(namespace string) string {
	if namespace == "*" {
		return "all namespaces"
	}
	return "namespace " + namespace
}

func newBindingRemove(g *global) *cobra.Command {
	var where namespaceFlags
	cmd := &cobra.Command{
		Use: "rm SUBJECT ROLE", Aliases: []string{"delete"}, Short: "Take a role away again; what it let in is cut",
		Args:    exactly(2, "user/NAME or group/NAME, and the name of a role"),
		Example: "hodei admin binding rm user/ada operator -n web",
		RunE: g.withClient(func(cmd *cobra.Command, args []string, c *hodei.Client) error {
			namespace, err := where.value()
			if err != nil {
				return err
			}
			return c.DeleteBinding(cmd.Context(), args[0], args[1], namespace)
		}),
	}
	where.add(cmd)
	return cmd
}
