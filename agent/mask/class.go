package mask

// class is a set of bytes.
type class struct {
	has [256]bool
	// rows has a bit for each byte: its highest bit and its lowest four say in which row, the three between which bit of that.
	rows [2][16]uint8
}

func (c *class) add(b byte) {
	c.has[b] = true
	c.rows[b>>7][b&15] |= 1 << (b >> 4 & 7)
}
