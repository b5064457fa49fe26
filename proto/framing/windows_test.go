package framing

import (
	"testing"

	"pgregory.net/rapid"
)

// A peer that sends whatever its window allows never stands still while bytes are free: after each frame, as after each read,
// this side looks whether what it owes is to be announced, and a peer without a window then is one whose bytes nobody has
// read. It never gets more than was given.
func TestInflowNeverHoldsAPeerUp(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.SampledFrom([]int{1, 2, 3, 4, 5, 100, InitialWindow, 1 << 20}).Draw(t, "window")
		f := NewInflow(size)
		open, unread := size, 0 // as the peer and the reader see it
		given, announced := 0, 0
		give := func(n int) {
			more := f.Give(n)
			if more < 0 {
				t.Fatalf("%d bytes were announced", more)
			}
			given, announced, unread, open = given+n, announced+more, unread-n, open+more
			if announced > given {
				t.Fatalf("%d bytes were announced, and only %d are free", announced, given)
			}
			if open+unread > size {
				t.Fatalf("the peer may send %d bytes while %d are unread, more than %d", open, unread, size)
			}
			if open == 0 && unread < size {
				t.Fatalf("the peer stands still, and only %d of %d bytes are taken", unread, size)
			}
			if owed := given - announced; owed > 0 && owed >= size/4 {
				t.Fatalf("%d of %d free bytes are held back", owed, size)
			}
		}
		for range rapid.IntRange(0, 100).Draw(t, "length") {
			if rapid.Bool().Draw(t, "send") && open > 0 {
				n := rapid.OneOf(rapid.IntRange(1, open), rapid.IntRange(1, min(open, 20))).Draw(t, "sent")
				if f.Take(open + 1) {
					t.Fatalf("%d bytes are taken from a peer that may send %d", open+1, open)
				}
				if !f.Take(n) {
					t.Fatalf("%d bytes are refused of a peer that may send %d", n, open)
				}
				open, unread = open-n, unread+n
				give(0)
			} else if unread > 0 {
				give(rapid.OneOf(rapid.IntRange(1, unread), rapid.IntRange(1, min(unread, 20))).Draw(t, "read"))
			}
		}
		give(unread)
		if !f.Take(open) {
			t.Fatalf("%d bytes are refused", open)
		}
		open, unread = 0, open
		if give(0); given != announced { // what little was owed comes when the peer needs it
			t.Fatalf("%d bytes are held back from a peer that has none", given-announced)
		}
	})
}

func TestInflow(t *testing.T) {
	t.Parallel()
	f := NewInflow(100)
	step := func(what string, got, want any) {
		t.Helper()
		if got != want {
			t.Fatalf("%s gave %v, want %v", what, got, want)
		}
	}
	step("more than the window", f.Take(101), false)
	step("nothing", f.Take(0), true)
	step("some", f.Take(40), true)
	step("nothing to announce", f.Give(0), 0)
	step("a little", f.Give(24), 0)
	step("a quarter", f.Give(1), 25)
	step("a little again", f.Give(15), 0)
	step("more than is left", f.Take(86), false)
	step("all but a bit", f.Take(70), true)
	step("what was held back, since as much is left", f.Give(0), 15)
	step("the rest", f.Take(30), true)
	step("one more", f.Take(1), false)
	step("one byte for a peer that has none", f.Give(1), 1)
}

func TestOutflowHasALimit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		window Outflow
		add    int64
		ok     bool
	}{
		{0, 0, true},
		{0, MaxWindow, true},
		{0, MaxWindow + 1, false},
		{1, MaxWindow - 1, true},
		{1, MaxWindow, false},
		{MaxWindow, 0, true},
		{MaxWindow, 1, false},
		{MaxWindow, MaxWindow, false},
		{MaxWindow, -MaxWindow, true},
		{100, -200, true}, // a change of settings
		{-MaxWindow, -MaxWindow, true},
		{-100, MaxWindow, true},
		{-100, MaxWindow + 100, true},
		{-100, MaxWindow + 101, false},
	} {
		f := c.window
		if ok := f.Add(c.add); ok != c.ok {
			t.Errorf("%d and %d more: %t", c.window, c.add, ok)
		}
		if f != c.window+Outflow(c.add) {
			t.Errorf("%d and %d more are %d", c.window, c.add, f)
		}
	}
}
