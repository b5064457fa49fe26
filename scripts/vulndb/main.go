// Command vulndb makes a database for govulncheck of the reports of the Go vulnerability database, as its module has them: where modules
// come from is reached wherever this is built, and the database's own server is not.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// report is what the index needs of a report (OSV format).
type report struct {
	ID       string     `json:"id"`
	Modified time.Time  `json:"modified"`
	Affected []affected `json:"affected"`
}

type affected struct {
	Package struct {
		Name string `json:"name"`
	} `json:"package"`
	Ranges []struct {
		Events []struct {
			Fixed string `json:"fixed"`
		} `json:"events"`
	} `json:"ranges"`
}

// fixed is the version in which the last of the ranges ends; empty: none has it fixed.
func (a *affected) fixed() string {
	version := ""
	for _, r := range a.Ranges {
		for _, e := range r.Events {
			version = e.Fixed
		}
	}
	return version
}

// module is a module with the reports about it, as govulncheck reads them.
type module struct {
	Path  string `json:"path"`
	Vulns []vuln `json:"vulns"`
}

type vuln struct {
	ID       string    `json:"id"`
	Modified time.Time `json:"modified"`
	Fixed    string    `json:"fixed,omitempty"`
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: vulndb REPORTS DATABASE")
		os.Exit(2)
	}
	if err := build(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "vulndb:", err)
		os.Exit(1)
	}
}

func build(reports, database string) error {
	files, err := filepath.Glob(filepath.Join(reports, "GO-*.json"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("%s has no reports (%w)", reports, err)
	}
	for _, dir := range []string{"ID", "index"} {
		if err := os.MkdirAll(filepath.Join(database, dir), 0o755); err != nil {
			return err
		}
	}
	modules := make(map[string][]vuln)
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var r report
		if err := json.Unmarshal(data, &r); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		for i := range r.Affected {
			name := r.Affected[i].Package.Name
			modules[name] = append(modules[name], vuln{r.ID, r.Modified, r.Affected[i].fixed()})
		}
		if err := os.WriteFile(filepath.Join(database, "ID", r.ID+".json"), data, 0o644); err != nil {
			return err
		}
	}
	var index []module
	for path, vulns := range modules {
		index = append(index, module{path, vulns})
	}
	slices.SortFunc(index, func(a, b module) int { return strings.Compare(a.Path, b.Path) })
	for name, content := range map[string]any{"modules": index, "db": map[string]time.Time{"modified": {}}} {
		data, err := json.Marshal(content)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(database, "index", name+".json"), data, 0o644); err != nil {
			return err
		}
	}
	fmt.Printf("%d reports about %d modules\n", len(files), len(index))
	return nil
}
