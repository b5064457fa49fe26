package chain

import "fmt"

// Inputs of Verify, in which problems are.
const (
	InRecords     = "records"
	InCheckpoints = "checkpoints"
)

// maxProblems bounds the list of problems; what comes after is only counted.
const maxProblems = 100

// Report is what Verify found.
type Report struct {
	First, Last uint64 // numbers of the first and of the last record that are in order; zeros: there is none
	Records     uint64 // that could be read
	Checkpoints uint64 // that are signed and agree with the records
	Vouched     uint64 // the last record that a checkpoint vouches for, together with all before it
	Problems    []Problem
	More        uint64   // problems beyond the list
	Warnings    []string // what cannot be said of the trail although there is no problem
}

// Problem is a trace of somebody's, or of a defect.
type Problem struct {
	Input string // InRecords or InCheckpoints
	Line  uint64 // in the input, from 1; behind the last one when something is missing at the end
	Seq   uint64 // of the record that it is about, as far as that is known; 0: none
	Text  string // a plain sentence
}

// OK reports whether there is no problem.
func (r *Report) OK() bool { return len(r.Problems) == 0 }

func (r *Report) problem(p Problem) {
	if len(r.Problems) == maxProblems {
		r.More++
		return
	}
	r.Problems = append(r.Problems, p)
}

// records names a range of records.
func records(first, last uint64) string {
	if first == last {
		return fmt.Sprintf("record %d is", first)
	}
	return fmt.Sprintf("records %d-%d are", first, last)
}
