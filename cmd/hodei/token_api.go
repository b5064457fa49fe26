package main

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	adminv1 "github.com/hodei-jobs/hodei/gen/hodei/admin/v1"
)

// apiTokenFlags say what an API token is good for.
type apiTokenFlags struct {
	api, agents       bool
	user, description string
	grants            []string
}

// withAPITokens has `hodei token create` make API tokens too, and adds the commands for tokens of all kinds.
func withAPITokens(g *global, token *cobra.Command) *cobra.Command {
	token.Short = "Make, list and revoke tokens, with which agents join and scripts log in"
	create := token.Commands()[slices.IndexFunc(token.Commands(), func(c *cobra.Command) bool { return c.Name() == "create" })]
	var f apiTokenFlags
	flags := create.Flags()
	flags.BoolVar(&f.agents, "agents", false, "make a token with which agents join; the default")
	flags.BoolVar(&f.api, "api", false, "make a token with which a script or a person logs in")
	flags.StringVar(&f.user, "user", "", "with --api: whose it is (default: yours)")
	flags.StringVar(&f.description, "description", "", "with --api: what it is for")
	flags.StringArrayVar(&f.grants, "grant", nil,
		"with --api: permit this role, ROLE@NAMESPACE, and no more; may be repeated (default: all that its user holds)")
	flags.Lookup("ttl").Usage = "how long the token may be used (default 1h, or 720h with --api)"
	create.Short = "Make a token for agents, or with --api for scripts and people"
	create.Long = `The secret of a token is shown this once; the server keeps its hash only. An API token permits what its user holds whenever it is
used, and no more than its grants: who loses a role loses it in all tokens.`
	create.Example += "\nhodei token create --api --user ci --description nightly --ttl 2160h --grant submitter@web"
	makeAgents := create.RunE
	makeAPI := g.withClient(func(cmd *cobra.Command, _ []string, c *hodei.Client) error { return f.create(g, cmd, c) })
	create.RunE = func(cmd *cobra.Command, args []string) error {
		if err := f.check(cmd); err != nil {
			return err
		}
		if f.api {
			return makeAPI(cmd, args)
		}
		return makeAgents(cmd, args)
	}
	token.AddCommand(newTokenList(g), newTokenRevoke(g))
	return token
}

// check refuses flags of one kind of tokens for the other.
func (f *apiTokenFlags) check(cmd *cobra.Command) error {
	if f.api && f.agents {
		return usageError{fmt.Errorf("--api and --agents are different kinds of tokens; keep one")}
	}
	wrong, kind := []string{"user", "description", "grant"}, "--api"
	if f.api {
		wrong, kind = []string{"uses", "label", "queue"}, "--agents"
	}
	for _, name := range wrong {
		if flag := cmd.Flags().Lookup(name); flag != nil && flag.Changed {
			return usageError{fmt.Errorf("--%s is for %s only", name, kind)}
		}
	}
	return nil
}

func (f *apiTokenFlags) create(g *global, cmd *cobra.Command, c *hodei.Client) error {
	ttl, err := cmd.Flags().GetDuration("ttl")
	if err != nil {
		return err
	}
	options := hodei.APITokenOptions{User: f.user, Description: f.description, TTL: ttl}
	for _, text := range f.grants {
		role, namespace, ok := strings.Cut(text, "@")
		if !ok || role == "" || namespace == "" {
			return usageError{fmt.Errorf("--grant %q is not ROLE@NAMESPACE; NAMESPACE may be * for all", text)}
		}
		options.Grants = append(options.Grants, &adminv1.TokenGrant{Role: role, Namespace: namespace})
	}
	res, err := c.CreateAPIToken(cmd.Context(), options)
	if err != nil {
		return err
	}
	return g.print(cmd.OutOrStdout(), res, func(w *tabwriter.Writer) {
		server := "HODEI_URL=" + c.Config().URL
		login := c.Config().URL
		if pin := c.CAPin(); pin != "" {
			server += " HODEI_CA_PIN=" + pin
			login += " --ca-pin " + pin
		}
		fmt.Fprintf(w, `The token %s of user/%s is good until %s. Its secret is shown this once:

  %s

A script uses it by its environment, a person logs in with it once:

  %s HODEI_TOKEN=%s hodei auth whoami
  hodei login %s --token-file FILE
`, res.GetToken().GetId(), cell(res.GetToken().GetUser()), date(res.GetToken().GetExpireTime()), res.GetSecret(), server, res.GetSecret(), login)
	})
}

func newTokenList(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the tokens that are good still: all of them, or your own", Args: cobra.NoArgs,
		Long: "List shows the tokens of everybody to who holds tokens.list in all namespaces, and their own API tokens to others. No secret is shown.",
		RunE: g.withClient(func(cmd *cobra.Command, _ []string, c *hodei.Client) error {
			tokens, err := collect(c.Tokens(cmd.Context()), 0)
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), &adminv1.ListTokensResponse{Tokens: tokens}, func(w *tabwriter.Writer) {
				fmt.Fprintln(w, "ID\tKIND\tFOR\tPERMITS\tMADE BY\tEXPIRES\tLAST USED\tDESCRIPTION")
				for _, t := range tokens {
					user, permits := cell(t.GetUser()), tokenGrants(t)
					if t.GetKind() == adminv1.TokenKind_TOKEN_KIND_AGENT {
						user, permits = orDash(strings.Join(t.GetQueues(), " ")), fmt.Sprintf("%d agents", t.GetUsesLeft())
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", t.GetId(), short(t.GetKind(), "TOKEN_KIND_"), user, permits,
						cell(t.GetCreatedBy()), date(t.GetExpireTime()), ago(t.GetLastUseTime()), cell(t.GetDescription()))
				}
			})
		}),
	}
}

func tokenGrants(t *adminv1.Token) string {
	if len(t.GetGrants()) == 0 {
		return "all that its user holds"
	}
	texts := make([]string, len(t.GetGrants()))
	for i, grant := range t.GetGrants() {
		texts[i] = grantText(grant.GetRole(), grant.GetNamespace())
	}
	return strings.Join(texts, " ")
}

func newTokenRevoke(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID", Aliases: []string{"rm"}, Short: "Make a token, and the logins that were got with it, useless at once",
		Args: exactly(1, "the id of a token"), Example: "hodei token revoke tok_01...",
		RunE: g.withClient(func(cmd *cobra.Command, args []string, c *hodei.Client) error {
			return c.RevokeToken(cmd.Context(), args[0])
		}),
	}
}
