package mask

import (
	"bytes"
	"encoding/binary"
	"slices"
)

const (
	// gram is how many bytes the filters look at.
	gram = 4
	// filterBits is the size of a filter; it has room in the processor's first cache.
	filterBits = 17
	// longestStride bounds how many entries of the filter a needle takes.
	longestStride = 8
	// How much is looked up in a filter before a leap is tried, in strides. Looking up costs more, so that trying costs little.
	shortestStretch, longestStretch = 16, 4096
)

// filter says which texts of gram bytes may be part of a needle. It may say so of others too.
type filter [1 << filterBits / 64]uint64

func (f *filter) add(text []byte) {
	h := hash(text)
	f[h/64] |= 1 << (h % 64)
}

func (f *filter) has(text []byte) bool {
	h := hash(text)
	return f[h/64]&(1<<(h%64)) != 0
}

func hash(text []byte) uint32 {
	return binary.LittleEndian.Uint32(text) * 0x9e3779b1 >> (32 - filterBits)
}

// needle is a text to look for, and the secrets of which it is a form.
type needle struct {
	text    []byte
	secrets []int
}

// matcher finds needles. It does not change once it is made.
//
// Where every needle has m bytes, each holds a gram at one of m-gram+1 places in a row; so only every so manieth place of a text is
// looked up in a filter, which is wide enough that nearly all of a text is passed over. What is left is compared.
type matcher struct {
	needles []needle // in the order of their texts
	root    node
	longest int
	stride  int
	inside  filter // grams at the first stride places of needles
	starts  filter // grams with which needles begin
	begins  class  // bytes with which needles or ANSI sequences begin
	escapes bool   // a needle has an escape character
}

// newMatcher makes a matcher of texts, each with the secret that it is a form of. It is nil when there are none.
func newMatcher(all []needle) *matcher {
	if len(all) == 0 {
		return nil
	}
	slices.SortFunc(all, func(a, b needle) int { return bytes.Compare(a.text, b.text) })
	m := &matcher{stride: longestStride}
	m.begins.add(escape)
	for _, n := range all {
		if last := len(m.needles) - 1; last >= 0 && bytes.Equal(m.needles[last].text, n.text) {
			m.needles[last].secrets = union(m.needles[last].secrets, n.secrets)
			continue
		}
		m.needles = append(m.needles, needle{n.text, slices.Clone(n.secrets)})
		m.longest = max(m.longest, len(n.text))
		m.stride = min(m.stride, len(n.text)-gram+1)
		m.begins.add(n.text[0])
		m.escapes = m.escapes || bytes.IndexByte(n.text, escape) >= 0
	}
	m.root = m.tree(0, len(m.needles), 0)
	for _, n := range m.needles {
		m.starts.add(n.text)
		for at := range m.stride {
			m.inside.add(n.text[at:])
		}
	}
	return m
}

func union(a, b []int) []int {
	for _, n := range b {
		if !slices.Contains(a, n) {
			a = append(a, n)
		}
	}
	return a
}

// match is a needle in a text.
type match struct {
	start, end int
	needle     int
}

// find appends, for each place of a text where needles begin, the longest of them that is whole. None begins before from.
//
// Bytes that begin no needle are passed over in leaps. Between two leaps a stretch is looked up in the filter, a longer one each
// time that a leap was short: in most texts bytes that may begin a needle are everywhere.
func (m *matcher) find(text []byte, from int, found []match) []match {
	end := len(text) - m.stride - gram + 2 // where there is no room for a needle any more
	for at, stretch := from, shortestStretch*m.stride; at < end; {
		leap := m.begins.leap(text[at:end])
		if leap < stretch {
			stretch = min(4*stretch, longestStretch*m.stride)
		} else {
			stretch = shortestStretch * m.stride
		}
		at += leap
		until := min(at+stretch, end)
		found = m.lookUp(text, at, until, found)
		at = until
	}
	return found
}

// lookUp is find for the places before until, which is whole strides further or where there is no room for a needle any more.
func (m *matcher) lookUp(text []byte, from, until int, found []match) []match {
	stride := m.stride
	part := text[:until+stride+gram-2]
	for at := from + stride - 1; at+gram <= len(part); at += stride {
		h := binary.LittleEndian.Uint32(part[at:at+gram]) * 0x9e3779b1 >> (32 - filterBits)
		if m.inside[h/64]&(1<<(h%64)) != 0 {
			found = m.confirm(text, at, found)
		}
	}
	return found
}

// confirm looks at the places of which the filter has said something.
func (m *matcher) confirm(text []byte, at int, found []match) []match {
	for start := at - m.stride + 1; start <= at; start++ {
		if !m.starts.has(text[start:]) {
			continue
		}
		if n, _ := m.walk(text[start:]); n >= 0 {
			found = append(found, match{start, start + len(m.needles[n].text), n})
		}
	}
	return found
}

// node is a place at which needles part, or one ends.
type node struct {
	label  []byte // what stands between the node before and this one
	needle int    // the one that ends here; -1: none
	next   []node // in the order of their labels' first bytes
}

// tree makes the node of the needles from low to high, which are equal up to depth.
func (m *matcher) tree(low, high, depth int) node {
	first, last := m.needles[low].text, m.needles[high-1].text
	parting := depth
	for parting < len(first) && parting < len(last) && first[parting] == last[parting] {
		parting++
	}
	n := node{label: first[depth:parting], needle: -1}
	if len(first) == parting { // the shortest comes first
		n.needle = low
		low++
	}
	for low < high {
		end := low + 1
		for end < high && m.needles[end].text[parting] == m.needles[low].text[parting] {
			end++
		}
		n.next = append(n.next, m.tree(low, end, parting))
		low = end
	}
	return n
}

// walk returns the longest needle with which a text begins, -1 when there is none, and whether all of the text is the beginning
// of a longer one.
func (m *matcher) walk(text []byte) (longest int, open bool) {
	longest = -1
	for n := &m.root; ; {
		if !bytes.HasPrefix(text, n.label) {
			return longest, bytes.HasPrefix(n.label, text)
		}
		text = text[len(n.label):]
		if n.needle >= 0 {
			longest = n.needle
		}
		if len(text) == 0 {
			return longest, len(n.next) > 0
		}
		i, found := slices.BinarySearchFunc(n.next, text[0], func(n node, b byte) int { return int(n.label[0]) - int(b) })
		if !found {
			return longest, false
		}
		n = &n.next[i]
	}
}

// hold returns where the part of a text begins that may be the beginning of a needle: its length when nothing is.
func (m *matcher) hold(text []byte) int {
	at := max(0, len(text)-m.longest+1)
	for at += m.begins.leap(text[at:]); at < len(text); at++ {
		rest := text[at:]
		if !m.begins.has[rest[0]] || len(rest) >= gram && !m.starts.has(rest) {
			continue
		}
		if _, open := m.walk(rest); open {
			return at
		}
	}
	return len(text)
}
