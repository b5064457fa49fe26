// Package lines tells what a log says by lines: which of them match a query, and which of them build scripts have put into groups.
//
// A log comes in pieces, in the order of the attempt's bytes. A line belongs to one channel, which is a stream of a step: it may be
// cut over many pieces, and pieces of other channels may lie between its parts. It ends with '\n'; a '\r' before that is not part
// of it, and what stands after the last '\n' of a channel is a line too. So a progress bar that is drawn with '\r' is one line.
//
// Lines are numbered by the line ends of the whole attempt: the number of a line is how many '\n' there are, in all channels,
// before its first byte, which for an empty line is its '\n'. In a log with one channel line N begins after the Nth '\n'. Where
// channels mix, lines that begin between the same two line ends have the same number; their offsets tell them apart.
//
// Bytes are taken as they are: text need not be UTF-8, and ANSI sequences are bytes like others. Memory is bounded whatever the
// pieces: see the limits of Search and Groups.
package lines
