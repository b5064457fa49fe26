package agent

import (
	"cmp"
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"hash"
	"slices"

	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
)

// streamKey names a stream of a step.
type streamKey struct {
	step   int32
	stream hwpv1.LogStream
}

// checkpoint is the stream of the records that hold totals, and no output.
const checkpoint = hwpv1.LogStream_LOG_STREAM_UNSPECIFIED

// totals is what every stream came to: the proof for readers that they have all of it.
type totals map[streamKey]*streamTotal

type streamTotal struct {
	bytes uint64
	hash  hash.Hash // SHA-256
}

func (t totals) add(r record) {
	total := t[r.key]
	if total == nil {
		total = &streamTotal{hash: sha256.New()}
		t[r.key] = total
	}
	total.bytes += uint64(len(r.data))
	_, _ = total.hash.Write(r.data) // never fails
}

// keys returns the streams in order.
func (t totals) keys() []streamKey {
	keys := make([]streamKey, 0, len(t))
	for key := range t {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b streamKey) int { return cmp.Or(cmp.Compare(a.step, b.step), cmp.Compare(a.stream, b.stream)) })
	return keys
}

func (t totals) toProto() []*hwpv1.StreamTotal {
	var out []*hwpv1.StreamTotal
	for _, key := range t.keys() {
		out = append(out, &hwpv1.StreamTotal{
			Step: key.step, Stream: key.stream, TotalBytes: t[key].bytes, Sha256: t[key].hash.Sum(nil),
		})
	}
	return out
}

// totalHeader is: step (4), stream (1), bytes (8), length of the hash's state (2); the state follows.
const totalHeader = 15

// encode writes the totals so that restore can go on with them.
func (t totals) encode() []byte {
	var b []byte
	for _, key := range t.keys() {
		state, err := t[key].hash.(encoding.BinaryMarshaler).MarshalBinary()
		if err != nil {
			return nil // never: hashes of the standard library can do it
		}
		b = binary.BigEndian.AppendUint32(b, uint32(key.step))
		b = append(b, byte(key.stream))
		b = binary.BigEndian.AppendUint64(b, t[key].bytes)
		b = binary.BigEndian.AppendUint16(b, uint16(len(state)))
		b = append(b, state...)
	}
	return b
}

// restore reads what encode wrote, and reports whether it could.
func (t totals) restore(b []byte) bool {
	for len(b) > 0 {
		if len(b) < totalHeader {
			return false
		}
		key := streamKey{int32(binary.BigEndian.Uint32(b)), hwpv1.LogStream(b[4])}
		total := &streamTotal{bytes: binary.BigEndian.Uint64(b[5:]), hash: sha256.New()}
		n := int(binary.BigEndian.Uint16(b[13:]))
		if b = b[totalHeader:]; n > len(b) || total.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(b[:n]) != nil {
			return false
		}
		t[key], b = total, b[n:]
	}
	return true
}
