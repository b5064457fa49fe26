// Package codec encodes messages for Connect: as the codec of Connect does, but without reflection for those messages that
// go through in numbers.
package codec

import (
	"bytes"
	"context"
	"io"
	"reflect"
	"sync"

	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/protobuf/proto"
)

// message is what generated code without reflection offers.
type message interface {
	SizeVT() int
	MarshalToSizedBufferVT(b []byte) (int, error)
	UnmarshalVT(b []byte) error
}

// Codec is a connect.Codec for the binary form. All its methods may be called from several goroutines at once.
//
// A message that takes the quick way may contain strings that are not UTF-8, which the usual one refuses; whoever keeps
// strings of such a message must check them.
type Codec struct {
	*connectproto.BinaryCodec
	quick map[reflect.Type]bool
}

// New makes a codec. Messages of the types of those given are encoded without reflection, if they have the code for it.
func New(quick ...proto.Message) *Codec {
	c := &Codec{BinaryCodec: connectproto.NewBinaryCodec(), quick: make(map[reflect.Type]bool)}
	for _, m := range quick {
		c.quick[reflect.TypeOf(m)] = true
	}
	return c
}

// pick returns a message if it takes the quick way, else nil.
func (c *Codec) pick(m any) message {
	if !c.quick[reflect.TypeOf(m)] {
		return nil
	}
	own, _ := m.(message) // nil for one without such code
	return own
}

// growing is what bytes.Buffer and the writers of Connect offer: room to encode in place.
type growing interface {
	io.Writer
	Grow(n int)
	AvailableBuffer() []byte
}

// MarshalWrite implements connect.Codec.
func (c *Codec) MarshalWrite(ctx context.Context, w io.Writer, m any) error {
	own := c.pick(m)
	if own == nil {
		return c.BinaryCodec.MarshalWrite(ctx, w, m)
	}
	size := own.SizeVT()
	var b []byte
	if g, ok := w.(growing); ok {
		g.Grow(size)
		b = g.AvailableBuffer()
	}
	if cap(b) < size {
		b = make([]byte, 0, size)
	}
	b = b[:size]
	if _, err := own.MarshalToSizedBufferVT(b); err != nil {
		return err
	}
	_, err := w.Write(b)
	return err
}

// keepBuffer is the size up to which a buffer is used again; larger ones are rare and would stay in memory.
const keepBuffer = 1 << 20

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// UnmarshalRead implements connect.Codec.
func (c *Codec) UnmarshalRead(ctx context.Context, r io.Reader, m any) error {
	own := c.pick(m)
	if own == nil {
		return c.BinaryCodec.UnmarshalRead(ctx, r, m)
	}
	b, ok := buffers.Get().(*bytes.Buffer)
	if !ok {
		b = new(bytes.Buffer)
	}
	b.Reset()
	_, err := b.ReadFrom(r)
	if err == nil {
		err = own.UnmarshalVT(b.Bytes()) // it copies what it keeps
	}
	if b.Cap() <= keepBuffer {
		buffers.Put(b)
	}
	return err
}
