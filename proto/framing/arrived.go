package framing

// Arrived are bytes of a stream that have come and were not read. The zero value has none.
type Arrived struct {
	data *[]byte // nil: none
	used int     // of data
}

// Empty says that there are none.
func (a *Arrived) Empty() bool { return a.data == nil }

// Add keeps a copy of p.
func (a *Arrived) Add(p []byte) {
	if len(p) == 0 {
		return
	}
	if a.used > 0 && 2*a.used >= len(*a.data) && len(*a.data)+len(p) > cap(*a.data) { // else moving costs more than room
		n := copy(*a.data, (*a.data)[a.used:])
		*a.data, a.used = (*a.data)[:n], 0
	}
	a.data = withRoom(a.data, len(p))
	*a.data = append(*a.data, p...)
}

// Read moves bytes to p, and returns how many.
func (a *Arrived) Read(p []byte) int {
	if a.data == nil {
		return 0
	}
	n := copy(p, (*a.data)[a.used:])
	a.used += n
	if a.used == len(*a.data) {
		a.Drop()
	}
	return n
}

// Drop forgets all, and returns how many bytes they were.
func (a *Arrived) Drop() int {
	if a.data == nil {
		return 0
	}
	n := len(*a.data) - a.used
	PutBuffer(a.data)
	a.data, a.used = nil, 0
	return n
}
