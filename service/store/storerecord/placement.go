package storerecord

import (
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hodei-jobs/hodei/service/job"
)

func appendPlacement(b []byte, p *job.Placement) []byte {
	for i := range p.Affinities {
		b = appendMessage(b, 1, func(b []byte) []byte { return appendAffinity(b, &p.Affinities[i]) })
	}
	b = appendString(b, 2, p.Spread)
	b = appendString(b, 3, p.Apart)
	for _, t := range p.Tolerations {
		b = appendBytes(b, 4, []byte(t))
	}
	for _, name := range p.Requires {
		b = appendBytes(b, 7, []byte(name))
	}
	if c := p.Concurrency; c != nil {
		b = appendMessage(b, 5, func(b []byte) []byte {
			return appendNumber(appendNumber(appendString(b, 1, c.Key), 2, c.Limit), 3, c.Policy)
		})
	}
	if g := p.Gang; g != nil {
		b = appendMessage(b, 6, func(b []byte) []byte { return appendNumber(appendString(b, 1, g.Name), 2, g.Size) })
	}
	return b
}

func decodePlacement(b []byte) (*job.Placement, error) {
	p := new(job.Placement)
	return p, message(b, func(num protowire.Number, v value) (err error) {
		switch num {
		case 1:
			err = addAffinity(p, v.bytes)
		case 2:
			p.Spread = string(v.bytes)
		case 3:
			p.Apart = string(v.bytes)
		case 4:
			p.Tolerations = append(p.Tolerations, string(v.bytes))
		case 5:
			p.Concurrency, err = decodeConcurrency(v.bytes)
		case 6:
			p.Gang, err = decodeGang(v.bytes)
		case 7:
			p.Requires = append(p.Requires, string(v.bytes))
		}
		return err
	})
}

func appendAffinity(b []byte, a *job.Affinity) []byte {
	b = appendMessage(b, 1, func(b []byte) []byte { return appendConstraint(b, &a.Constraint) })
	return appendNumber(b, 2, a.Weight)
}

func addAffinity(p *job.Placement, b []byte) error {
	var a job.Affinity
	err := message(b, func(num protowire.Number, v value) (err error) {
		switch num {
		case 1:
			a.Constraint, err = decodeConstraint(v.bytes)
		case 2:
			a.Weight = v.int32()
		}
		return err
	})
	p.Affinities = append(p.Affinities, a)
	return err
}

func decodeConcurrency(b []byte) (*job.Concurrency, error) {
	c := new(job.Concurrency)
	return c, message(b, func(num protowire.Number, v value) error {
		switch num {
		case 1:
			c.Key = string(v.bytes)
		case 2:
			c.Limit = v.int32()
		case 3:
			c.Policy = job.ConcurrencyPolicy(v.number)
		}
		return nil
	})
}

func decodeGang(b []byte) (*job.Gang, error) {
	g := new(job.Gang)
	return g, message(b, func(num protowire.Number, v value) error {
		switch num {
		case 1:
			g.Name = string(v.bytes)
		case 2:
			g.Size = v.int32()
		}
		return nil
	})
}
