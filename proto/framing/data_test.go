package framing

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
	"pgregory.net/rapid"
)

// open lets the peer take more on the connection.
func (w *way) open(n int64) {
	w.locked(func() { must(w.t, "the window has a limit", w.Open(n), true) })
}

// Data that the windows let out go at once, in frames that the peer takes, of which the last may be the end.
func TestDataAreDivided(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name              string
		conn, stream      Outflow
		peer, n           int
		end               bool
		want              []string
		leftConn, leftOwn Outflow
	}{
		{"small", 1000, 500, InitialFrame, 200, false, []string{"DATA 1 200"}, 800, 300},
		{"small, the end", 1000, 500, InitialFrame, 200, true, []string{"DATA 1 200 end"}, 800, 300},
		{"all of both windows", 100, 100, InitialFrame, 100, true, []string{"DATA 1 100 end"}, 0, 0},
		{"nothing but the end", 0, -10, InitialFrame, 0, true, []string{"DATA 1 0 end"}, 0, -10},
		{
			"frames that the peer takes", 1000, 900, 300, 700, true,
			[]string{"DATA 1 300", "DATA 1 300", "DATA 1 100 end"},
			300, 200,
		},
		{"one frame exactly", 1000, 1000, 300, 300, true, []string{"DATA 1 300 end"}, 700, 700},
		{"two frames exactly", 1000, 1000, 300, 600, true, []string{"DATA 1 300", "DATA 1 300 end"}, 400, 400},
		{
			"no larger than a record", 1 << 20, 1 << 20, MaxFrame, 2*FrameSize + 1, true,
			[]string{"DATA 1 16384", "DATA 1 16384", "DATA 1 1 end"},
			1<<20 - 2*FrameSize - 1, 1<<20 - 2*FrameSize - 1,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWay(t, 0)
				w.Window, w.PeerFrame = c.conn, c.peer
				s := w.sender(1, c.stream)
				must(t, "the error", <-s.send(c.n, c.end), nil)
				w.expect(c.want...)
				must(t, "the window of the connection", w.Window, c.leftConn)
				must(t, "the window of the stream", s.window, c.leftOwn)
				must(t, "waits", s.forTurn+s.forOwn+s.trickles, 0)
			})
		})
	}
}

func TestRoom(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		n            int
		conn, stream Outflow
		peer, want   int
	}{
		{0, 100, 100, InitialFrame, 0},
		{10, 100, 100, InitialFrame, 10},
		{1000, 100, 200, InitialFrame, 100},
		{1000, 200, 100, InitialFrame, 100},
		{1000, 0, 100, InitialFrame, 0},
		{1000, 100, 0, InitialFrame, 0},
		{1000, -5, 100, InitialFrame, 0},
		{1000, 100, -5, InitialFrame, 0},
		{1000, 500, 500, 300, 300},
		{1 << 20, MaxWindow, MaxWindow, MaxFrame, FrameSize},
	} {
		w := newWay(t, 0)
		w.Window, w.PeerFrame = c.conn, c.peer
		w.locked(func() {
			must(t, fmt.Sprintf("room in %+v", c), w.Room(c.n, c.stream), c.want)
			w.Put(pattern(0, backlog-1))
			must(t, fmt.Sprintf("room in %+v with much that waits", c), w.Room(c.n, c.stream), c.want)
			w.Put([]byte{0})
			must(t, fmt.Sprintf("room in %+v with too much that waits", c), w.Room(c.n, c.stream), 0)
		})
	}
}

// A stream waits for the window that is missing, and goes on when it opens.
func TestDataWaitForWindows(t *testing.T) {
	t.Parallel()
	t.Run("of the connection", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			w := newWay(t, 0)
			w.Window = 1000
			s := w.sender(1, 5000)
			ended := s.send(2500, true)
			w.expect("DATA 1 1000") // which is not kept until there is more
			w.open(700)
			w.expect("DATA 1 700")
			s.grow(1) // is no help
			w.expect()
			w.open(5000)
			w.expect("DATA 1 800 end")
			must(t, "the error", <-ended, nil)
			must(t, "waits for the stream", s.forOwn, 0)
		})
	})
	t.Run("of the stream", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			w := newWay(t, 0)
			s := w.sender(1, 1000)
			ended := s.send(2500, true)
			w.expect("DATA 1 1000")
			s.grow(-300)
			w.open(1)
			s.grow(300)
			w.expect()
			s.grow(600)
			w.expect("DATA 1 600")
			s.grow(5000)
			w.expect("DATA 1 900 end")
			must(t, "the error", <-ended, nil)
			must(t, "waits for the connection", s.forTurn, 0)
		})
	})
	t.Run("of both", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			w := newWay(t, 0)
			w.Window = 0
			s := w.sender(1, 0)
			ended := s.send(500, true)
			w.open(300)
			w.expect()
			s.grow(400)
			w.expect("DATA 1 300")
			s.grow(100)
			w.open(100)
			w.expect("DATA 1 100")
			w.open(1000)
			w.expect("DATA 1 100 end")
			must(t, "the error", <-ended, nil)
		})
	})
	t.Run("too large", func(t *testing.T) {
		t.Parallel()
		w := newWay(t, 0)
		w.locked(func() {
			must(t, "the largest window", w.Open(MaxWindow-InitialWindow), true)
			must(t, "a larger one", w.Open(1), false)
		})
	})
}

// Streams wait in line for the connection's window. One that needs less than there is wakes the next.
func TestStreamsPassOnWhatTheyDoNotNeed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(first *sender) // while both wait
		want   []string
	}{
		{"it needs little", func(*sender) {}, []string{"DATA 1 300 end", "DATA 3 400"}},
		// It is woken as the first in line; that its reason has changed is seen only then.
		{"it has ended", func(s *sender) { s.way.locked(func() { s.err = errTest }) }, []string{"DATA 3 700"}},
		{"it has no window of its own any more", func(s *sender) { s.grow(-5000) }, []string{"DATA 3 700"}},
		{"it has little window of its own", func(s *sender) { s.grow(-4700) }, []string{"DATA 1 300 end", "DATA 3 400"}},
		{"it has less window than it needs", func(s *sender) { s.grow(-4900) }, []string{"DATA 1 100", "DATA 3 600"}},
		{"it ends by a small window", func(s *sender) {
			s.grow(-4900)
			s.endsByTrickle = errTest
		}, []string{"DATA 3 700"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWay(t, 0)
				w.Window = 0
				first, second := w.sender(1, 5000), w.sender(3, 5000)
				ended := first.send(300, true)
				synctest.Wait()
				others := second.send(1000, true)
				synctest.Wait()
				c.change(first)
				w.open(700)
				w.expect(c.want...)
				first.end(errTest)
				second.end(errTest)
				<-ended
				<-others
			})
		})
	}
}

// A stream without a window of its own does not keep what others can use.
func TestWhoHasNoWindowStandsInNobodysWay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWay(t, 0)
		w.Window = 100
		first, second, third := w.sender(1, 5000), w.sender(3, 0), w.sender(5, 5000)
		a := first.send(1000, true)
		synctest.Wait()
		b := second.send(1000, true)
		c := third.send(1000, true)
		w.expect("DATA 1 100")
		w.open(1000)
		w.expect("DATA 1 900 end", "DATA 5 100")
		w.open(5000)
		w.expect("DATA 5 900 end")
		second.grow(1000)
		w.expect("DATA 3 1000 end")
		for _, ended := range []<-chan error{a, b, c} {
			must(t, "the error", <-ended, nil)
		}
	})
}

// A stream that ends while its data wait says why, and takes no window.
func TestDataOfAStreamThatEnds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ conn, stream Outflow }{
		"waiting for the connection": {0, 1000}, "waiting for the stream": {1000, 0}, "waiting for both": {0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWay(t, 0)
				w.Window = c.conn
				s := w.sender(1, c.stream)
				ended := s.send(500, true)
				must(t, "ended", done(ended), false)
				s.end(errTest)
				must(t, "the error", <-ended, errTest)
				must(t, "the error of the next", <-s.send(500, true), errTest)
				w.expect()
				must(t, "the window of the connection", w.Window, c.conn)
				must(t, "the window of the stream", s.window, c.stream)
			})
		})
	}
	t.Run("waiting for room", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			w := newWay(t, 0)
			w.Window = 1 << 20
			w.conn.hold()
			go w.put(1, 10)
			synctest.Wait()
			s := w.sender(3, 1<<20)
			ended := s.send(200_000, true)
			must(t, "ended", done(ended), false)
			must(t, "the window of the stream", s.window, 1<<20-backlog)
			w.locked(func() { must(t, "what waits", len(*w.buffer), backlog+backlog/FrameSize*frameHeader) })
			s.end(errTest)
			must(t, "the error", <-ended, errTest)
			w.conn.open()
			synctest.Wait()
		})
	})
	t.Run("when the connection is closed", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			w := newWay(t, 0)
			w.Window = 0
			s := w.sender(1, 1000)
			ended := s.send(500, true)
			synctest.Wait()
			w.locked(func() { s.err = errTest; w.Close() }) // which wakes it
			must(t, "the error", <-ended, errTest)
		})
	})
}

// A window of a few bytes is told, unless they are all that is to be sent.
func TestSmallWindowsAreTold(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		conn, stream Outflow
		n, want      int
	}{
		{1, 1000, 1000, 1},
		{1000, 1, 1000, 1},
		{255, 1000, 1000, 1},
		{256, 1000, 1000, 0},
		{1000, 256, 1000, 0},
		{10, 10, 11, 1},
		{10, 10, 10, 0},
		{1000, 1000, 5, 0},
		{1000, 1000, 1000, 0},
		{0, 0, 1000, 0},
		{512 + 10, 1000, 1000, 0}, // goes out in one piece
	} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWay(t, 0)
				w.Window = c.conn
				s := w.sender(1, c.stream)
				ended := s.send(c.n, true)
				synctest.Wait()
				w.locked(func() { must(t, "told", s.trickles, c.want) })
				s.end(errTest)
				<-ended
			})
		})
	}
	t.Run("and may end the stream", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			w := newWay(t, 0)
			s := w.sender(1, 100)
			s.endsByTrickle = errTest
			must(t, "the error", <-s.send(1000, true), errTest)
			w.expect()
			must(t, "the window of the stream", s.window, 100)
			must(t, "the window of the connection", w.Window, InitialWindow)
		})
	})
}

// bubbled is a test in a bubble, where rapid must not ask for its deadline.
type bubbled struct{ *testing.T }

// crowd is a connection with streams that send, and what the peer knows of them.
type crowd struct {
	*way
	conn    Outflow // what the peer has left
	streams []*member
}

type member struct {
	*sender
	size  int
	ended <-chan error
	left  Outflow // what the peer has left
	got   []byte
	over  bool
}

// Whatever windows open and close, whoever ends and however slow the network is: every stream sends its bytes in order and
// not beyond a window, and none stands still that has one.
func TestStreamsShareAConnection(t *testing.T) {
	bubble(t, func(t *testing.T) {
		rapid.Check(bubbled{t}, func(rt *rapid.T) {
			c := &crowd{way: newWay(t, 0), conn: InitialWindow}
			defer c.leave()
			slow := false
			for range rapid.IntRange(0, 40).Draw(rt, "length") {
				switch event := rapid.IntRange(0, 9).Draw(rt, "event"); {
				case event < 3:
					c.begin(rapid.IntRange(0, 100_000).Draw(rt, "size"), Outflow(rapid.IntRange(0, 70_000).Draw(rt, "window")))
				case event < 5:
					n := rapid.IntRange(1, 50_000).Draw(rt, "opened")
					c.conn += Outflow(n)
					c.open(int64(n))
				case event == 5:
					if slow = !slow; slow {
						c.way.conn.hold()
					} else {
						c.way.conn.open()
					}
				case len(c.streams) > 0:
					m := c.streams[rapid.IntRange(0, len(c.streams)-1).Draw(rt, "stream")]
					switch n := int64(rapid.IntRange(1, 50_000).Draw(rt, "grown")); {
					case event < 8:
						m.left += Outflow(n)
						m.grow(n)
					case event == 8:
						m.left -= Outflow(n)
						m.grow(-n)
					default:
						m.end(errTest)
					}
				}
				if rapid.Bool().Draw(rt, "settled") { // else all happens at the same time
					c.look(rt, slow)
				}
			}
			c.way.conn.open()
			c.look(rt, false)
			c.finish(rt)
		})
	})
}

// begin has another stream send.
func (c *crowd) begin(n int, window Outflow) {
	m := &member{sender: c.sender(uint32(2*len(c.streams)+1), window), size: n, left: window}
	m.ended = m.send(n, true)
	c.streams = append(c.streams, m)
}

// look looks at what the peer has got, and at who waits.
func (c *crowd) look(t *rapid.T, slow bool) {
	synctest.Wait()
	frames, err := c.way.conn.frames()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range frames {
		m := c.streams[f.StreamID/2]
		m.got = append(m.got, f.data...)
		m.left -= Outflow(f.Length)
		c.conn -= Outflow(f.Length)
		if f.Length > FrameSize || m.over {
			t.Fatalf("the peer got %v after %d bytes of %d", f, len(m.got), m.size)
		}
		m.over = f.Flags.Has(http2.FlagDataEndStream)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn < c.Window || !slow && c.conn != c.Window {
		t.Fatalf("the peer has left %d bytes on the connection, and this side %d", c.conn, c.Window)
	}
	for _, m := range c.streams {
		waits := len(m.ended) == 0
		switch {
		case !bytes.Equal(m.got, pattern(0, m.size)[:min(len(m.got), m.size)]) || len(m.got) > m.size:
			t.Fatalf("stream %d of %d bytes has sent %d others", m.id, m.size, len(m.got))
		case m.left < m.window || !slow && m.left != m.window:
			t.Fatalf("the peer has left %d bytes of stream %d, and this side %d", m.left, m.id, m.window)
		case m.over != (len(m.got) == m.size) && (!slow && m.err == nil || m.over):
			t.Fatalf("the end of stream %d has come after %d bytes of %d: %t", m.id, len(m.got), m.size, m.over)
		case waits && m.err != nil && !slow:
			t.Fatalf("stream %d waits though it has ended", m.id)
		case waits && !slow && min(c.Window, m.window) > 0:
			t.Fatalf("stream %d waits with windows of %d and %d", m.id, c.Window, m.window)
		case !waits && m.err == nil && !slow && !m.over:
			t.Fatalf("stream %d has sent %d bytes of %d and waits no more", m.id, len(m.got), m.size)
		}
	}
}

// finish opens all windows, so that all streams end.
func (c *crowd) finish(t *rapid.T) {
	more := int64(len(c.streams))*100_000 + 10_000_000
	c.conn += Outflow(more)
	c.open(more)
	for _, m := range c.streams {
		m.left += Outflow(more)
		m.grow(more)
	}
	c.look(t, false)
	for _, m := range c.streams {
		if err := <-m.ended; m.err == nil && (err != nil || !m.over) || err != nil && !errors.Is(err, errTest) {
			t.Fatalf("stream %d has sent %d bytes of %d: %v", m.id, len(m.got), m.size, err)
		}
	}
}

// leave ends all streams, so that none is left when the property does not hold.
func (c *crowd) leave() {
	c.way.conn.open()
	for _, m := range c.streams {
		m.end(errTest)
	}
	synctest.Wait()
}
