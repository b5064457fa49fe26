// Package storerecord is the binary form in which stores keep the domain's values.
//
// A record is one byte with the version of the form, then fields in the wire format of protocol buffers: a reader skips
// fields that it does not know, so that a newer program of the same version can add some. Decoding never panics and never
// takes more memory than a few times the record's size.
package storerecord

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Version is the form that this program writes, and the newest one that it reads.
const Version = 1

// errCut is the error for every record that ends too early or has a field of the wrong type.
var errCut = errors.New("the record is damaged")

// fields visits the fields of a record after its version.
func fields(record []byte, visit func(num protowire.Number, v value) error) error {
	if len(record) == 0 {
		return errCut
	}
	if record[0] != Version {
		return fmt.Errorf("the record has form %d and this program reads form %d; run the version of hodei that wrote it", record[0], Version)
	}
	return message(record[1:], visit)
}

// value is one field: a number or bytes, by the wire type.
type value struct {
	number uint64
	bytes  []byte
}

// message visits the fields of a message.
func message(b []byte, visit func(num protowire.Number, v value) error) error {
	for len(b) > 0 {
		num, wire, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errCut
		}
		b = b[n:]
		var v value
		switch wire {
		case protowire.VarintType:
			v.number, n = protowire.ConsumeVarint(b)
		case protowire.Fixed64Type:
			v.number, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			v.bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, wire, b)
		}
		if n < 0 {
			return errCut
		}
		b = b[n:]
		if err := visit(num, v); err != nil {
			return err
		}
	}
	return nil
}

func (v value) time() time.Time { return time.Unix(0, int64(v.number)).UTC() }

func (v value) duration() time.Duration { return time.Duration(v.number) }
func (v value) int32() int32            { return int32(v.number) }

func appendString(b []byte, num protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), s)
}

func appendBytes(b []byte, num protowire.Number, p []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), p)
}

func appendNumber[T ~int32 | ~int64 | ~uint64 | ~uint8](b []byte, num protowire.Number, n T) []byte {
	if n == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), uint64(n))
}

// appendTime writes nanoseconds, so years from 1678 to 2262.
func appendTime(b []byte, num protowire.Number, t time.Time) []byte {
	if t.IsZero() {
		return b
	}
	return protowire.AppendFixed64(protowire.AppendTag(b, num, protowire.Fixed64Type), uint64(t.UnixNano()))
}

// appendMessage writes a nested message. It leaves one byte for the length, which is enough for most, and moves the
// message when it is not.
func appendMessage(b []byte, num protowire.Number, write func([]byte) []byte) []byte {
	b = append(protowire.AppendTag(b, num, protowire.BytesType), 0)
	start := len(b)
	b = write(b)
	n := len(b) - start
	if n < 0x80 {
		b[start-1] = byte(n)
		return b
	}
	extra := protowire.SizeVarint(uint64(n)) - 1
	b = append(b, make([]byte, extra)...)
	copy(b[start+extra:], b[start:start+n])
	protowire.AppendVarint(b[:start-1], uint64(n))
	return b
}

// appendStrings writes a map in the order of its keys, so that equal values have equal records.
func appendStrings(b []byte, num protowire.Number, m map[string]string) []byte {
	if len(m) == 0 {
		return b
	}
	for _, key := range slices.Sorted(maps.Keys(m)) {
		b = appendMessage(b, num, func(b []byte) []byte { return appendString(appendString(b, 1, key), 2, m[key]) })
	}
	return b
}

// appendNumbers is appendStrings for numbers.
func appendNumbers[T int32 | uint64](b []byte, num protowire.Number, m map[string]T) []byte {
	if len(m) == 0 {
		return b
	}
	for _, key := range slices.Sorted(maps.Keys(m)) {
		b = appendMessage(b, num, func(b []byte) []byte { return appendNumber(appendString(b, 1, key), 2, m[key]) })
	}
	return b
}

// addNumber reads one entry of a map.
func addNumber[T int32 | uint64](m *map[string]T, b []byte) error {
	var key string
	var n T
	err := message(b, func(num protowire.Number, v value) error {
		switch num {
		case 1:
			key = string(v.bytes)
		case 2:
			n = T(v.number)
		}
		return nil
	})
	if *m == nil {
		*m = make(map[string]T)
	}
	(*m)[key] = n
	return err
}

// addString reads one entry of a map.
func addString(m *map[string]string, b []byte) error {
	var key, val string
	err := message(b, func(num protowire.Number, v value) error {
		switch num {
		case 1:
			key = string(v.bytes)
		case 2:
			val = string(v.bytes)
		}
		return nil
	})
	if *m == nil {
		*m = make(map[string]string)
	}
	(*m)[key] = val
	return err
}
