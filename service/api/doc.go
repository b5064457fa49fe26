// Package api serves the protos: it is the only package of the server that knows the generated code and Connect.
//
// Each file holds one service; convert_*.go turn messages into the domain's types and back, errors.go turns errors.
package api
