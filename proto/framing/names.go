package framing

import "net/http"

// keptNames and keptName bound what a peer can make this side keep: so many, so long.
const keptNames, keptName = 64, 64

// Names are names of headers in another form. Few are in use, so they are kept.
type Names struct {
	form  func(string) string
	known map[string]string
}

// CanonicalNames are names as an http.Header has them.
func CanonicalNames() Names { return Names{form: http.CanonicalHeaderKey} }

// LowerNames are names as they are sent.
func LowerNames() Names { return Names{form: lowerCase} }

// Of returns a name in the other form.
func (n *Names) Of(name string) string {
	if made, ok := n.known[name]; ok {
		return made
	}
	made := n.form(name)
	if len(n.known) < keptNames && len(name) <= keptName {
		if n.known == nil {
			n.known = make(map[string]string)
		}
		n.known[name] = made
	}
	return made
}

func lowerCase(name string) string {
	b := []byte(name)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
