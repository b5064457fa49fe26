// Package job is the domain: jobs, their steps and attempts, what they ask for, and the workers they run on.
//
// It is pure. It has no clock, no input or output and no goroutine: time is an argument, a transition is a method that
// returns the job as it stands afterwards, and a transition that the rules forbid returns an error and changes nothing.
package job
