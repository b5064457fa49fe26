package mask

import (
	"syscall"
	"testing"
)

// Nothing behind a text is read: there may be no memory.
func TestLeapEndsWithTheText(t *testing.T) {
	t.Parallel()
	withVectors(t)
	page := syscall.Getpagesize()
	memory, err := syscall.Mmap(-1, 0, 2*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Munmap(memory)
	if err := syscall.Mprotect(memory[page:], syscall.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	c := new(class)
	c.add('x')
	for length := vector; length <= 300; length++ {
		if got := leapVectors(memory[page-length:page], &c.rows); got != length {
			t.Fatalf("of %d bytes with nothing: got %d", length, got)
		}
	}
}
