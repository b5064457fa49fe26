package storelog

import (
	"slices"

	"github.com/klauspost/compress/s2"

	"github.com/hodei-jobs/hodei/service/store/storerecord"
)

// Values are packed: the version, then the content compressed. What is in them repeats itself, and smaller values are less
// for the engine to log, sync, flush and move.

// maxUnpacked bounds what a damaged value can make us take of memory. A page is much smaller, but for one job with a huge
// spec, and so is a block.
const maxUnpacked = 64 << 20

// pack appends a packed value.
func pack(b, content []byte) []byte {
	b = slices.Grow(append(b, storerecord.Version), s2.MaxEncodedLen(len(content)))
	return b[:len(b)+len(s2.Encode(b[len(b):cap(b)], content))]
}

// unpack returns the content of a packed value.
func unpack(value []byte) ([]byte, error) {
	if len(value) == 0 || value[0] != storerecord.Version {
		return nil, errDamaged
	}
	if n, err := s2.DecodedLen(value[1:]); err != nil || n > maxUnpacked {
		return nil, errDamaged
	}
	content, err := s2.Decode(nil, value[1:])
	if err != nil {
		return nil, errDamaged
	}
	return content, nil
}
