package framing

import (
	"bytes"
	"encoding/binary"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Out is the way out of a connection. Frames are put into a buffer; who flushes first writes it, and takes along what others
// put there meanwhile, so that what is sent at the same time goes out in one piece, without a timer.
//
// All methods are called with the connection's lock held, which is not held while the network is written.
type Out struct {
	// Control puts frames that carry no data, beside headers; it does not fail.
	Control *http2.Framer
	// PeerFrame is the largest frame that the peer takes.
	PeerFrame int
	// Window is how many bytes of data the peer takes on the whole connection.
	Window Outflow
	// written is signaled when the buffer goes out, or never will.
	written sync.Cond

	net    net.Conn
	lock   *sync.Mutex
	aside  func(send func())
	broken func(error)

	buffer  *[]byte
	control int // frames of Control in buffer
	sending bool
	closed  bool
	limit   atomic.Int64 // nanoseconds for each write; 0: none
	turn    sync.Cond    // somebody waits for Window
	// Only who is sending uses the deadline that is set, and the limit by which it was.
	until   time.Time
	untilBy time.Duration

	encoder *hpack.Encoder
	block   bytes.Buffer // what encoder has made
}

// Init makes o, which is zero, the way out to connection. lock is the connection's lock. aside runs send on another goroutine, now; broken is
// called, with the lock held, when writing has failed. limit is for every write of up to FrameSize bytes; 0: none.
func (o *Out) Init(connection net.Conn, lock *sync.Mutex, limit time.Duration, aside func(send func()), broken func(error)) {
	o.net, o.lock, o.aside, o.broken = connection, lock, aside, broken
	o.PeerFrame, o.Window = InitialFrame, InitialWindow
	o.limit.Store(int64(limit))
	o.written.L, o.turn.L = lock, lock
	o.Control = http2.NewFramer((*control)(o), nil)
	o.encoder = hpack.NewEncoder(&o.block)
}

// LimitTable bounds the memory of the header encoder, whatever the peer allows.
func (o *Out) LimitTable(size uint32) { o.encoder.SetMaxDynamicTableSizeLimit(size) }

// SetTable is what the peer allows the header encoder to remember.
func (o *Out) SetTable(size uint32) { o.encoder.SetMaxDynamicTableSize(size) }

// control takes frames of Control.
type control Out

func (c *control) Write(frame []byte) (int, error) {
	if !c.closed {
		c.control++
	}
	(*Out)(c).Put(frame)
	return len(frame), nil
}

// Overrun says that the peer asks for answers and does not read them.
func (o *Out) Overrun() bool { return o.control > ControlBacklog }

// Put puts bytes as they are.
func (o *Out) Put(p []byte) {
	if !o.closed {
		o.buffer = withRoom(o.buffer, len(p))
		*o.buffer = append(*o.buffer, p...)
	}
}

// PutFrame puts a frame.
func (o *Out) PutFrame(kind http2.FrameType, flags http2.Flags, id uint32, payload []byte) {
	if o.closed {
		return
	}
	n := len(payload)
	o.buffer = withRoom(o.buffer, frameHeader+n)
	b := append(*o.buffer, byte(n>>16), byte(n>>8), byte(n), byte(kind), byte(flags))
	b = binary.BigEndian.AppendUint32(b, id)
	*o.buffer = append(b, payload...)
}

// Field adds a field to the header that EndHeader ends. All fields of a header are added under the lock without leaving it.
func (o *Out) Field(name, value string) {
	_ = o.encoder.WriteField(hpack.HeaderField{Name: name, Value: value}) // into memory
}

// EndHeader puts the header into as many frames as it needs. end: the stream ends with it.
func (o *Out) EndHeader(id uint32, end bool) {
	kind, flags, block := http2.FrameHeaders, endFlag(end), o.block.Bytes()
	for first := true; first || len(block) > 0; first = false {
		n := min(len(block), o.PeerFrame, FrameSize)
		if n == len(block) {
			flags |= http2.FlagHeadersEndHeaders
		}
		o.PutFrame(kind, flags, id, block[:n])
		block = block[n:]
		kind, flags = http2.FrameContinuation, 0
	}
	o.block.Reset()
}

func endFlag(end bool) http2.Flags {
	if end {
		return http2.FlagDataEndStream // the same bit as in HEADERS
	}
	return 0
}
