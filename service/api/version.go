package api

import (
	"context"
	"regexp"
	"strings"

	"connectrpc.com/connect/v2"

	"github.com/hodei-jobs/hodei/service/job"
)

// clientHeader names the client and its version: "python/1.4.0". What does not send it is taken as it is, as curl is.
const clientHeader = "Hodei-Client"

// release is the version of a release, and its first group the major version. Builds in between have others.
var release = regexp.MustCompile(`^v?(\d{1,9})\.\d+\.\d+(?:[-+].*)?$`)

func major(version string) (string, bool) {
	groups := release.FindStringSubmatch(version)
	if groups == nil {
		return "", false
	}
	return groups[1], true
}

// sameMajor refuses clients of another major version than the server's: they would misunderstand each other later, and worse.
func sameMajor(version string) connect.ServerInterceptor {
	own, released := major(version)
	return func(next connect.ServerFunc) connect.ServerFunc {
		if !released {
			return next
		}
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			if info, ok := connect.CallInfoForServerContext(ctx); ok {
				client := info.RequestHeader().Get(clientHeader)
				_, theirs, _ := strings.Cut(client, "/")
				if its, ok := major(theirs); ok && its != own {
					return job.Errorf(job.CodePrecondition, job.ReasonVersionSkew,
						"the client %s is of another major version than this server, which has version %s; use a client of version %s, or another server",
						client, version, own)
				}
			}
			return next(ctx, spec, stream)
		}
	}
}
