package chain

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// MaxLine is how many bytes a line has at most, without its end.
const MaxLine = 4096

// usualLine is enough for most lines.
const usualLine = 512

// Limits of an Entry.
const (
	maxActor      = 160
	maxCredential = 128
	maxAddress    = 64
	maxAction     = 128
	maxNamespace  = 128
	maxTargets    = 16
	maxTarget     = 80
	maxOutcome    = 16
	maxReason     = 512
	maxDetails    = 8
	maxDetailName = 32
	maxDetail     = 96
)

// Record is a line of the trail.
type Record struct {
	Seq   uint64    `json:"seq"`
	Time  time.Time `json:"time"`
	Entry           // with the names of its fields
	Prev  Hash      `json:"prev"` // of the line before; zeros before the first one
}

// ParseRecord reads a line. It takes only what Append gives, to the byte: a capital digit, a space or a name that is there twice would
// otherwise change a line without changing what is read.
func ParseRecord(line []byte) (Record, error) {
	var r Record
	if err := decode(line, &r); err != nil {
		return Record{}, err
	}
	if r.Seq == 0 {
		return Record{}, errors.New("it has no number")
	}
	if !bytes.Equal(r.append(make([]byte, 0, len(line))), line) {
		return Record{}, errForm
	}
	return r, nil
}

var errForm = errors.New("it is not written exactly as the server writes it")

func decode(line []byte, to any) error {
	switch {
	case len(line) == 0:
		return errors.New("it is blank")
	case len(line) > MaxLine:
		return fmt.Errorf("it has more than %d bytes", MaxLine)
	}
	if err := json.Unmarshal(line, to); err != nil {
		return fmt.Errorf("it is not JSON of the trail: %w", err)
	}
	return nil
}

// append appends the line of a record.
func (r *Record) append(dst []byte) []byte {
	dst = strconv.AppendUint(append(dst, `{"seq":`...), r.Seq, 10)
	dst = appendTime(append(dst, `,"time":`...), r.Time)
	dst = quote(append(dst, `,"actor":`...), clean(r.Actor, maxActor))
	dst = appendText(dst, `,"credential":`, r.Credential, maxCredential)
	dst = appendText(dst, `,"address":`, r.Address, maxAddress)
	dst = quote(append(dst, `,"action":`...), clean(r.Action, maxAction))
	dst = appendText(dst, `,"namespace":`, r.Namespace, maxNamespace)
	dst = appendTargets(dst, r.Targets)
	dst = quote(append(dst, `,"outcome":`...), clean(r.Outcome, maxOutcome))
	dst = appendText(dst, `,"reason":`, r.Reason, maxReason)
	dst = appendDetails(dst, r.Details)
	dst = append(dst, `,"prev":"`...)
	return append(hex.AppendEncode(dst, r.Prev[:]), `"}`...)
}

func appendTime(dst []byte, at time.Time) []byte {
	at = at.UTC()
	if year := at.Year(); year < 0 || year > 9999 { // JSON has no form for them
		at = time.Time{}
	}
	return append(at.AppendFormat(append(dst, '"'), time.RFC3339Nano), '"')
}

// appendText appends a field that may be empty, and is left out then.
func appendText(dst []byte, name, text string, limit int) []byte {
	if text == "" {
		return dst
	}
	return quote(append(dst, name...), clean(text, limit))
}

func appendTargets(dst []byte, targets []string) []byte {
	if len(targets) == 0 {
		return dst
	}
	dst = append(dst, `,"targets":`...)
	sign := byte('[')
	for i, target := range targets {
		if rest := len(targets) - i; i == maxTargets-1 && rest > 1 {
			dst = append(dst, sign)
			dst = append(quote(dst, fmt.Sprintf("and %d more", rest)), ']')
			return dst
		}
		dst = quote(append(dst, sign), clean(target, maxTarget))
		sign = ','
	}
	return append(dst, ']')
}

// appendDetails appends details by name. Names that are the same once they are clean count once.
func appendDetails(dst []byte, details map[string]string) []byte {
	if len(details) == 0 {
		return dst
	}
	type detail struct{ name, text string }
	all := make([]detail, 0, maxDetails)
	for name, text := range details {
		all = append(all, detail{clean(name, maxDetailName), clean(text, maxDetail)})
	}
	slices.SortFunc(all, func(a, b detail) int { return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.text, b.text)) })
	all = slices.CompactFunc(all, func(a, b detail) bool { return a.name == b.name })
	dst = append(dst, `,"details":`...)
	sign := byte('{')
	for _, d := range all[:min(len(all), maxDetails)] {
		dst = quote(append(quote(append(dst, sign), d.name), ':'), d.text)
		sign = ','
	}
	return append(dst, '}')
}
