package h2

import (
	"net/http"
	"time"
)

const (
	// initialWindow and initialFrame hold until the peer has said otherwise (RFC 9113, 6.5.2).
	initialWindow = 65_535
	initialFrame  = 16 << 10
	maxWindow     = 1<<31 - 1
	maxFrame      = 1<<24 - 1
	maxStreamID   = 1<<31 - 1
	// fieldOverhead is what each field of a header counts beside its bytes.
	fieldOverhead, usualFields = 32, 10

	// waitForBody is the largest declared body for which a request waits before its handler starts.
	waitForBody = 32 << 10
	// frameSize is the largest DATA frame that is sent, as large as a TLS record.
	frameSize = 16 << 10
	// backlog is how many bytes may wait for a connection to be written before handlers have to wait.
	backlog = 64 << 10
	// controlBacklog is how many frames that answer the peer may wait; a peer that asks and does not read is cut off.
	controlBacklog = 5000
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
	preface, idle, pingAfter, pingTimeout, write           time.Duration
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
		frame:        uint32(min(max(or(h.MaxReadFrameSize, 1<<20), initialFrame), maxFrame)),
		headerList:   uint32(headerBytes + usualFields*fieldOverhead),
		decoderTable: uint32(or(h.MaxDecoderHeaderTableSize, 4096)),
		encoderTable: uint32(or(h.MaxEncoderHeaderTableSize, 4096)),
		streamWindow: min(max(or(h.MaxReceiveBufferPerStream, 1<<20), initialWindow), maxWindow),
		connWindow:   min(max(or(h.MaxReceiveBufferPerConnection, 1<<20), initialWindow), maxWindow),
		preface:      or(s.ReadHeaderTimeout, 10*time.Second),
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

// or is the value if it is set, else the usual one.
func or[T int | time.Duration](value, usual T) T {
	if value > 0 {
		return value
	}
	return usual
}
