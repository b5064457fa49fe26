// Command testsummary reads the events of `go test -json`, prints a line for each package and the whole output of tests that
// failed, and ends with how many passed and failed. It fails when a test or a package did.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

func main() {
	passed, failed, skipped := 0, 0, 0
	output := map[string]*strings.Builder{}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 64<<20)
	broken := false
	for in.Scan() {
		var e event
		if json.Unmarshal(in.Bytes(), &e) != nil {
			fmt.Println(in.Text()) // the build's own words
			continue
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "output", "build-output":
			if output[key] == nil {
				output[key] = new(strings.Builder)
			}
			output[key].WriteString(e.Output)
		case "build-fail":
			broken = true
			fmt.Print(output[key])
		case "pass", "fail", "skip":
			if e.Test == "" && e.Action != "skip" { // a package without tests
				fmt.Printf("%-5s %s (%.1f s)\n", e.Action, e.Package, e.Elapsed)
				broken = broken || e.Action == "fail"
			}
			if e.Action == "fail" && output[key] != nil {
				fmt.Print(output[key])
			}
			if e.Test != "" {
				passed, failed, skipped = passed+count(e, "pass"), failed+count(e, "fail"), skipped+count(e, "skip")
			}
			delete(output, key)
		}
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped)
	if failed > 0 || broken || passed == 0 || in.Err() != nil {
		os.Exit(1)
	}
}

func count(e event, action string) int {
	if e.Action == action {
		return 1
	}
	return 0
}
