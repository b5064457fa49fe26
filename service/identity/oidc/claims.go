package oidc

import (
	"encoding/json"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
)

// Claims are what an ID token says of a person.
type Claims struct {
	// Subject is as what the provider knows the person: 1 to 255 bytes, never given to anybody else.
	Subject string
	// Name is what the person is called here, 1 to 260 printable characters without spaces and "/".
	//
	// It is the email address when the provider has verified that it is this person's. An address that is not verified never
	// names anybody: everybody could claim to have it. Then the name is "oidc:" and the subject, or "oidc:" and the claim that
	// Config.NameClaim names. With that beginning nobody can choose, at the provider, the name of a user of this server ("admin")
	// or somebody's address. With the NameClaim "email", people without a verified address are refused.
	Name string
	// Groups are the person's groups, at most 256, each like a name but with spaces and "/" allowed; none when the token says nothing.
	Groups []string
	// Expires is when the token ends.
	Expires time.Time
}

const (
	maxSubjectBytes = 255
	maxNameLength   = len(otherPrefix) + maxSubjectBytes // characters, also of a group
	maxGroups       = 256
	// clockSkew is how far the provider's clock may be ahead.
	clockSkew = 5 * time.Minute
	// maxLife is what no ID token's life comes near: one that is longer was counted in other units than seconds.
	maxLife = 31 * 24 * time.Hour
	// otherPrefix begins the names that are no email addresses.
	otherPrefix = "oidc:"
)

// claims are those of a token by their exact names. Go would take a struct's fields in any case, so that "SUB" would do for "sub".
type claims map[string]json.RawMessage

// read returns what a token that the provider has signed for this audience says, or what is wrong with it.
func (v *Verifier) read(token *gooidc.IDToken) (Claims, error) {
	var all claims
	if err := token.Claims(&all); err != nil {
		return Claims{}, explain(err)
	}
	expires, err := v.times(all)
	if err != nil {
		return Claims{}, err
	}
	if err := v.party(all, token.Audience); err != nil {
		return Claims{}, err
	}
	subject, ok := all.text("sub")
	if !ok || subject == "" || len(subject) > maxSubjectBytes {
		return Claims{}, refused("it does not say whose it is: sub must be a text of 1 to %d bytes", maxSubjectBytes)
	}
	name, err := v.name(all, subject)
	if err != nil {
		return Claims{}, err
	}
	groups, err := v.groups(all)
	if err != nil {
		return Claims{}, err
	}
	return Claims{Subject: subject, Name: name, Groups: groups, Expires: expires}, nil
}

// times checks when the token begins and ends, as far as go-oidc does not, and returns the end.
func (v *Verifier) times(all claims) (time.Time, error) {
	now := v.config.Clock()
	var expires, issued float64
	if !all.get("exp", &expires) {
		return time.Time{}, refused("it does not say when it expires (exp)")
	}
	if !all.get("iat", &issued) {
		return time.Time{}, refused("it does not say when it was issued (iat)")
	}
	switch left := expires - float64(now.Unix()); {
	case left < 0:
		return time.Time{}, refused("it has expired (exp)")
	case left > maxLife.Seconds():
		return time.Time{}, refused("it would be good for more than %v (exp)", maxLife)
	}
	if ahead := issued - float64(now.Unix()); ahead > clockSkew.Seconds() {
		return time.Time{}, refused("it was issued in the future (iat), more than %v ahead; set this server's clock or the provider's", clockSkew)
	}
	return time.Unix(int64(expires), 0).UTC(), nil
}

// party checks who has asked for the token. One for several audiences could come from another of them.
func (v *Verifier) party(all claims, audience []string) error {
	_, named := all["azp"]
	if !named && len(audience) == 1 && v.config.Audience == v.config.ClientID {
		return nil
	}
	if party, _ := all.text("azp"); party != v.config.ClientID {
		return refused("it is for several audiences or was given to another program: azp is %.100q and should be %.100q", party, v.config.ClientID)
	}
	return nil
}

// name returns what the person is called.
func (v *Verifier) name(all claims, subject string) (string, error) {
	claim, name := v.config.NameClaim, otherPrefix+subject
	switch claim {
	case "", "email":
		if email, ok := all.verifiedEmail(); ok {
			name = email
		} else if claim == "email" {
			return "", refused("the provider has not verified that its email address is this person's")
		}
	default:
		value, ok := all.text(claim)
		if !ok || value == "" {
			return "", refused("it has no text in the claim %.100q, which names people", claim)
		}
		name = otherPrefix + value
	}
	if strings.ContainsFunc(name, func(r rune) bool { return r == '/' || unicode.IsSpace(r) }) || !printable(name) {
		return "", refused("the name in it must have at most %d printable characters without spaces and \"/\"; "+
			"let the server take names from another claim", maxNameLength)
	}
	return name, nil
}

// verifiedEmail returns an address that the provider vouches for. Some write true as a text. One with a colon could be mistaken
// for another kind of name.
func (c claims) verifiedEmail() (string, bool) {
	email, ok := c.text("email")
	user, host, at := strings.Cut(email, "@")
	verified := string(c["email_verified"])
	return email, ok && (verified == "true" || verified == `"true"`) && at && user != "" && host != "" && !strings.ContainsAny(email, ":")
}

// groups returns the person's groups.
func (v *Verifier) groups(all claims) ([]string, error) {
	raw, ok := all[v.config.GroupsClaim]
	if !ok || string(raw) == "null" {
		return nil, nil
	}
	var groups []*string
	if err := json.Unmarshal(raw, &groups); err != nil {
		return nil, refused("its claim %.100q is not a list of texts", v.config.GroupsClaim)
	}
	if len(groups) > maxGroups {
		return nil, refused("it has %d groups and may have %d; let the provider send those only that matter here", len(groups), maxGroups)
	}
	names := make([]string, len(groups))
	for i, group := range groups {
		if group == nil || !printable(*group) {
			return nil, refused("the groups in its claim %.100q must have 1 to %d printable characters each", v.config.GroupsClaim, maxNameLength)
		}
		names[i] = *group
	}
	return names, nil
}

// printable reports whether a text is fit to name something.
func printable(text string) bool {
	strange := strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError })
	return text != "" && !strange && utf8.RuneCountInString(text) <= maxNameLength
}

// text returns a claim that is a text.
func (c claims) text(name string) (string, bool) {
	var value string
	ok := c.get(name, &value)
	return value, ok
}

// get reads a claim and reports whether it is there and of the right kind.
func (c claims) get(name string, value any) bool {
	raw, ok := c[name]
	return ok && string(raw) != "null" && json.Unmarshal(raw, value) == nil
}
