// Package h2 serves HTTP/2 for an http.Server, in place of the implementation that net/http brings. It is made for many
// small calls: the goroutine of a handler writes its answer itself, all of it at once; handlers run on goroutines that are
// used again; a small request reaches its handler when all of it is there.
//
// One goroutine per connection reads (conn.go, frames.go, headers.go) and never writes. Frames to send are put into a
// buffer of the connection, and whoever put something there writes what has gathered, unless somebody else is writing
// already (write.go). One lock per connection guards its streams, windows and that buffer; it is never held during input or
// output.
package h2
