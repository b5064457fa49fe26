package job

import "maps"

// Resources is an amount of what workers have. A value in use is never changed; methods return new ones.
type Resources struct {
	MilliCPU  int32            // thousandths of a CPU
	MemoryMiB int32            // mebibytes
	Extras    map[string]int32 // named extras, for example "gpu"
}

func (r Resources) validate() error {
	if r.MilliCPU < 0 || r.MemoryMiB < 0 {
		return invalid("resources: milli_cpu and memory_mib must not be negative")
	}
	if len(r.Extras) > maxExtras {
		return invalid("resources.extras: %d of them; at most %d are allowed", len(r.Extras), maxExtras)
	}
	for _, name := range names(r.Extras) {
		if !isExtraName(name) {
			return invalid("resources.extras: %q is no name; use up to 63 lower-case letters, digits, '.', '/' and '-', a letter or digit first", name)
		}
		if r.Extras[name] < 0 {
			return invalid("resources.extras[%q] must not be negative", name)
		}
	}
	return nil
}

func isExtraName(s string) bool {
	return len(s) <= 63 && s != "" && isLowerOrDigit(s[0]) && all(s, func(c byte) bool {
		return isLowerOrDigit(c) || c == '.' || c == '/' || c == '-'
	})
}

// Add returns r and other together.
func (r Resources) Add(other Resources) Resources { return r.combine(other, 1) }

// Sub returns r without other. The result may be negative where other is larger.
func (r Resources) Sub(other Resources) Resources { return r.combine(other, -1) }

func (r Resources) combine(other Resources, sign int32) Resources {
	r.MilliCPU += sign * other.MilliCPU
	r.MemoryMiB += sign * other.MemoryMiB
	if len(other.Extras) == 0 {
		return r
	}
	extras := make(map[string]int32, len(r.Extras)+len(other.Extras))
	maps.Copy(extras, r.Extras)
	for name, n := range other.Extras {
		extras[name] += sign * n
	}
	r.Extras = extras
	return r
}

// Covers reports whether r has at least as much of everything as need asks for.
func (r Resources) Covers(need Resources) bool {
	if r.MilliCPU < need.MilliCPU || r.MemoryMiB < need.MemoryMiB {
		return false
	}
	for name, n := range need.Extras {
		if r.Extras[name] < n {
			return false
		}
	}
	return true
}
