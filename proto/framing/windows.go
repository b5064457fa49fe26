package framing

// Inflow is how many bytes the peer may still send, on a stream or on the connection. What was used is announced again late,
// in large pieces. After each Take there is a Give, of nothing perhaps, which looks whether the time has come.
type Inflow struct {
	open, owed int // owed was used and is not yet announced again
	size       int
}

// NewInflow returns a window of a size.
func NewInflow(size int) Inflow { return Inflow{open: size, size: size} }

// Take counts bytes that came in; false: the peer was not allowed to send them.
func (f *Inflow) Take(n int) bool {
	if n > f.open {
		return false
	}
	f.open -= n
	return true
}

// Give counts bytes that are used up, and returns how many are to be announced now. Nothing is held back when the peer has
// less left than it would be given, so it never stands still for bytes that are free.
func (f *Inflow) Give(n int) int {
	f.owed += n
	if f.owed == 0 || f.owed < f.size/4 && f.owed < f.open {
		return 0
	}
	n = f.owed
	f.open, f.owed = f.open+n, 0
	return n
}

// Outflow is how many bytes the peer takes; a change of its settings can make it negative.
type Outflow int64

// Add lets n more bytes go out; false: that is more than a window may have.
func (f *Outflow) Add(n int64) bool {
	*f += Outflow(n)
	return *f <= MaxWindow
}
