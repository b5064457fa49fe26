// Package framing is what both ends of an HTTP/2 connection have in common: the way out, the windows, what has come in and was
// not read, and names of headers. It knows neither requests nor answers.
//
// Its types have no locks of their own: each belongs to one connection and is used under that connection's lock.
package framing

const (
	// InitialWindow is the window in bytes until the peer has said otherwise (RFC 9113, 6.5.2).
	InitialWindow = 65_535
	// InitialFrame is the largest frame in bytes until the peer has said otherwise.
	InitialFrame = 16 << 10
	// MaxWindow is the largest window that there is, in bytes.
	MaxWindow = 1<<31 - 1
	// MaxFrame is the largest frame that there is, in bytes.
	MaxFrame = 1<<24 - 1
	// MaxStreamID is the last stream of a connection.
	MaxStreamID = 1<<31 - 1

	// FrameSize is the largest DATA frame that is sent, as large as a TLS record.
	FrameSize = 16 << 10
	// ControlBacklog is how many frames that answer the peer may wait; a peer that asks and does not read is to be cut off.
	ControlBacklog = 5000
	// frameHeader is the size of what comes before each frame's payload.
	frameHeader = 9
	// backlog is how many bytes may wait for a connection to be written before those wait who want to send more.
	backlog = 64 << 10
	// smallWindow is a window that a peer opens only to cost more than it gets.
	smallWindow = 256
	// rounds is how often who flushes writes: what is there, and then what others have put there meanwhile.
	rounds = 2
)
