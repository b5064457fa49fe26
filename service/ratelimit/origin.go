package ratelimit

import "net/netip"

// Origin is what counts as one address: an IPv4 address, or the /64 of an IPv6 one, of which whoever has one has all.
func Origin(address netip.Addr) netip.Prefix {
	address = address.Unmap().WithZone("")
	bits := address.BitLen()
	if address.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(address, bits).Masked()
}

// OriginOf is the key in a table of rates for whoever calls from "host:port", as an http.Request has it, or from a host. All that is no
// address has one key.
func OriginOf(remote string) string {
	if both, err := netip.ParseAddrPort(remote); err == nil {
		return Origin(both.Addr()).Addr().String()
	}
	address, err := netip.ParseAddr(remote)
	if err != nil {
		return "unknown"
	}
	return Origin(address).Addr().String()
}
