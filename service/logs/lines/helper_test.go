package lines

import (
	"strings"
	"time"

	"pgregory.net/rapid"
)

// said is a part of a log, of one channel.
type said struct {
	channel
	text string
}

// pieces cuts a log: where say is true of a place, a piece ends there. Each piece has the time of its offset in nanoseconds, so that
// what has the time of its piece can be compared only with other cuts if they are the same; see drawPieces.
func pieces(log []said, cut func(at int) bool) []Piece {
	var all []Piece
	offset := 0
	for _, part := range log {
		for text := part.text; text != ""; {
			n := 1
			for n < len(text) && !cut(offset+n) {
				n++
			}
			p := Piece{uint64(offset), part.step, part.stream, time.Unix(0, int64(offset)), []byte(text[:n])}
			all, text, offset = append(all, p), text[n:], offset+n
		}
	}
	return all
}

func whole(log []said) []Piece       { return pieces(log, func(int) bool { return false }) }
func byteByByte(log []said) []Piece  { return pieces(log, func(int) bool { return true }) }
func stdout(text string) []said      { return []said{{channel{0, 1}, text}} }
func stderr(step int32) channel      { return channel{step, 2} }
func (c channel) says(t string) said { return said{c, t} }

// drawLog draws a log of a few channels, whose parts are made of some texts.
func drawLog(t *rapid.T, texts *rapid.Generator[string]) []said {
	var log []said
	channels := rapid.SampledFrom([]channel{{0, 1}, {0, 1}, {0, 1}, {0, 2}, {1, 1}})
	for range rapid.IntRange(0, 12).Draw(t, "parts") {
		text := strings.Join(rapid.SliceOfN(texts, 0, 20).Draw(t, "texts"), "")
		log = append(log, channels.Draw(t, "channel").says(text))
	}
	return log
}

// drawPieces cuts a log somewhere.
func drawPieces(t *rapid.T, log []said) []Piece {
	often := rapid.SampledFrom([]int{1, 2, 5, 50}).Draw(t, "often")
	seed := rapid.Uint32().Draw(t, "seed")
	return pieces(log, func(at int) bool { return (uint32(at)*2654435761^seed)>>7%uint32(often) == 0 })
}
