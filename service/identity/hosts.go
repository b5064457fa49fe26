package identity

import (
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
)

// maxHostLength is the longest name that DNS knows.
const maxHostLength = 253

// serverHosts returns the names and addresses that the server's certificate is for, sorted: this machine's and extra.
func serverHosts(extra []string) ([]string, error) {
	all := []string{"localhost", "127.0.0.1", "::1"}
	if name, err := os.Hostname(); err == nil && validHost(name) {
		all = append(all, name)
	}
	for _, host := range extra {
		if ip := net.ParseIP(host); ip != nil {
			host = ip.String() // one spelling, so that the certificate of the last boot is known again
		} else if !validHost(host) {
			return nil, fmt.Errorf("the server's host %q is neither a DNS name nor an IP address; give it without scheme, port and brackets", host)
		}
		all = append(all, host)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// validHost reports whether a name can stand in a certificate. It is not strict: the resolver has the last word.
func validHost(name string) bool {
	strange := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-._*", r)
	}
	return name != "" && len(name) <= maxHostLength && strings.IndexFunc(name, strange) < 0
}

// certificateHosts returns what serverHosts returned when the certificate was made.
func certificateHosts(c *x509.Certificate) []string {
	hosts := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		hosts = append(hosts, ip.String())
	}
	slices.Sort(hosts)
	return hosts
}
