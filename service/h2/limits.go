package h2

import (
	"net/http"
	"time"

	"github.com/hodei-jobs/hodei/proto/framing"
)

const (
	// fieldOverhead is what each field of a header counts beside its bytes.
	fieldOverhead, usualFields = 32, 10

	// waitForBody is the largest declared body for which a request waits before its handler starts.
	waitForBody = 32 << 10
	// blockBytes is what may be read before a frame is complete: one frame, or a header block with all that belongs to it.
	blockBytes = 1 << 20
	// settingsAtOnce is how many settings one frame may have.
	settingsAtOnce = 100
	// lingerTime is how long the peer has to read why it was cut off.
	lingerTime = time.Second
)

// limits are those of a server's connections.
type limits struct {
	streams, frame, headerList, decoderTable, encoderTable uint32
	streamWindow, connWindow                               int
	preface, frameTime                                     time.Duration
	idle, pingAfter, pingTimeout, write                    time.Duration
	readStream, writeStream                                time.Duration
	weakCiphers                                            bool
}

func limitsOf(s *http.Server) limits {
	var h http.HTTP2Config
	if s.HTTP2 != nil {
		h = *s.HTTP2
	}
	headerBytes := or(s.MaxHeaderBytes, http.DefaultMaxHeaderBytes)
	l := limits{
		streams:      uint32(or(h.MaxConcurrentStreams, 250)),
		frame:        uint32(min(max(or(h.MaxReadFrameSize, 1<<20), framing.InitialFrame), framing.MaxFrame)),
		headerList:   uint32(headerBytes + usualFields*fieldOverhead),
		decoderTable: uint32(or(h.MaxDecoderHeaderTableSize, 4096)),
		encoderTable: uint32(or(h.MaxEncoderHeaderTableSize, 4096)),
		streamWindow: min(max(or(h.MaxReceiveBufferPerStream, 1<<20), framing.InitialWindow), framing.MaxWindow),
		connWindow:   min(max(or(h.MaxReceiveBufferPerConnection, 1<<20), framing.InitialWindow), framing.MaxWindow),
		preface:      or(s.ReadHeaderTimeout, 10*time.Second),
		frameTime:    or(s.ReadHeaderTimeout, 10*time.Second),
		idle:         or(s.IdleTimeout, s.ReadTimeout),
		pingAfter:    h.SendPingTimeout,
		pingTimeout:  or(h.PingTimeout, 15*time.Second),
		write:        h.WriteByteTimeout,
		readStream:   s.ReadTimeout,
		writeStream:  s.WriteTimeout,
		weakCiphers:  h.PermitProhibitedCipherSuites,
	}
	return l
}

// Strangers are the limits of connections whose peer has shown no client certificate, where they are lower than those for all:
// what such a connection may cost, anybody may cause many times. A zero field lowers nothing.
type Strangers struct {
	Streams int           // at the same time
	Window  int           // bytes that the peer may send before a handler has read them, on all streams; at least 64 KiB
	Idle    time.Duration // without streams
}

func (l limits) lowered(s Strangers) limits {
	l.streams = uint32(min(int(l.streams), or(s.Streams, int(l.streams))))
	l.connWindow = min(l.connWindow, max(or(s.Window, l.connWindow), framing.InitialWindow))
	l.streamWindow = min(l.streamWindow, l.connWindow)
	if s.Idle > 0 && (l.idle <= 0 || s.Idle < l.idle) {
		l.idle = s.Idle
	}
	return l
}

// or is the value if it is set, else the usual one.
func or[T int | time.Duration](value, usual T) T {
	if value > 0 {
		return value
	}
	return usual
}
