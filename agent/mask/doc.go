// Package mask replaces secrets in streams of bytes, whatever way the bytes are cut into pieces.
//
// A Set holds the secrets of one job. Each is looked for as it is and in the forms in which programs print it: lines of a value
// of several lines, base64 in every alignment, hexadecimal, escaped for URLs, JSON and shells, with the line ends of a terminal, and
// with ANSI sequences between its bytes. A Stream writes "****" in their place. What cannot be found is a secret whose bytes
// other bytes separate, such as one that a program folds.
package mask
