// Package secrets keeps the secrets of namespaces: named values that steps get and nobody else sees.
//
// They are stored encrypted, with a key that is not in the store. A value leaves this package only for a worker that was given an
// attempt whose spec names it.
package secrets
