package mask

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"strings"
)

// MinLength is the length in bytes of the shortest text that is looked for: a shorter one would be found everywhere, and tell by
// where it is found what it is.
const MinLength = 6

// forms are the texts by which a value shows itself.
func forms(value []byte) [][]byte {
	var all [][]byte
	add := func(text string) { all = append(all, []byte(text)) }
	for _, v := range values(value) {
		text := string(v)
		add(text)
		add(hex.EncodeToString(v))
		add(strings.ToUpper(hex.EncodeToString(v)))
		for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
			all = append(all, aligned(encoding, v)...)
			if len(v) > 0 {
				add(encoding.EncodeToString(append(v[:len(v):len(v)], '\n'))) // as echo writes it
			}
		}
		for _, width := range []int{64, 76} { // the lines of openssl and of base64, which begin anew where the value does
			all = append(all, pieces([]byte(base64.StdEncoding.EncodeToString(v)), width)...)
		}
		query, path := url.QueryEscape(text), url.PathEscape(text)
		for _, escaped := range []string{query, path, lowerEscapes(query), lowerEscapes(path)} {
			add(escaped)
		}
		add(inJSON(text, true))
		add(inJSON(text, false))
		add(strings.ReplaceAll(text, "'", `'\''`))
		add(strings.ReplaceAll(text, "'", `'"'"'`))
		add(backslashed(text, "\"$`\\"))
		add(backslashed(text, shellSpecial))
	}
	return all
}

// values are a value without the line ends that editors add, the same as a terminal shows it, and its lines.
func values(value []byte) [][]byte {
	trimmed := bytes.TrimRight(value, "\r\n")
	all := [][]byte{trimmed}
	unix := bytes.ReplaceAll(trimmed, []byte("\r\n"), []byte("\n"))
	if bytes.ContainsAny(unix, "\r\n") {
		all = append(all, unix, bytes.ReplaceAll(unix, []byte("\n"), []byte("\r\n")))
		for line := range bytes.SplitSeq(unix, []byte("\n")) {
			all = append(all, bytes.Trim(line, "\r"))
		}
	}
	return all
}

// aligned is what of the base64 of a value does not depend on what stands before and after it, for each of the three ways in
// which its bytes can lie in groups of three; and the whole of a value that stands alone.
func aligned(encoding *base64.Encoding, v []byte) [][]byte {
	all := [][]byte{[]byte(encoding.EncodeToString(v)), []byte(encoding.WithPadding(base64.NoPadding).EncodeToString(v))}
	for before := range 3 {
		padded := append(make([]byte, before), v...)
		encoded := encoding.EncodeToString(padded)
		first := (before*8 + 5) / 6 // characters with bits of what stands before
		last := len(padded) * 8 / 6 // characters without bits of what comes after
		if first < last {
			all = append(all, []byte(encoded[first:last]))
		}
	}
	return all
}

// pieces cuts a text into lines.
func pieces(text []byte, width int) [][]byte {
	if len(text) <= width {
		return nil
	}
	var all [][]byte
	for ; len(text) > width; text = text[width:] {
		all = append(all, text[:width])
	}
	return append(all, text)
}

// lowerEscapes writes %2F as %2f.
func lowerEscapes(escaped string) string {
	b := []byte(escaped)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i+1:], bytes.ToLower(b[i+1:i+3]))
			i += 2
		}
	}
	return string(b)
}

// inJSON is a text as it stands between the quotes of JSON.
func inJSON(text string, forHTML bool) string {
	var out strings.Builder
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(forHTML)
	if encoder.Encode(text) != nil {
		return ""
	}
	return strings.TrimSuffix(strings.TrimPrefix(strings.TrimSuffix(out.String(), "\n"), `"`), `"`)
}

// shellSpecial are the characters that shells quote one by one.
const shellSpecial = " \t!\"#$&'()*,;<>?[\\]^`{|}~"

func backslashed(text, special string) string {
	var out strings.Builder
	for _, b := range []byte(text) {
		if strings.IndexByte(special, b) >= 0 {
			out.WriteByte('\\')
		}
		out.WriteByte(b)
	}
	return out.String()
}
