package agent

import (
	"slices"
	"strings"
	"testing"
)

func TestWhatAMachineOffers(t *testing.T) {
	t.Parallel()
	base := Config{ServerURL: "https://x", StateDir: "d"}
	for _, tc := range []struct {
		taints []string
		extras map[string]int32
		want   string
	}{
		{nil, nil, ""},
		{[]string{"batch", "x/Y_z-1.2", "a"}, map[string]int32{"gpu": 2, "nvidia.com/gpu": 0}, ""},
		{[]string{"ok", ""}, nil, `taint ""`},
		{[]string{"-a"}, nil, `taint "-a"`},
		{[]string{"a."}, nil, `taint "a."`},
		{[]string{"a b"}, nil, `taint "a b"`},
		{[]string{strings.Repeat("a", 129)}, nil, "taint"},
		{slices.Repeat([]string{"a"}, 33), nil, "33 taints"},
		{nil, map[string]int32{"GPU": 1}, `extra "GPU"`},
		{nil, map[string]int32{"": 1}, `extra ""`},
		{nil, map[string]int32{strings.Repeat("a", 64): 1}, "extra"},
		{nil, map[string]int32{"gpu": -1}, "extra gpu=-1"},
	} {
		config := base
		config.Taints, config.Capacity.Extras = tc.taints, tc.extras
		got, err := config.withDefaults()
		if tc.want == "" && (err != nil || !slices.Equal(got.Taints, tc.taints)) || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%v, %v: %v, want %q", tc.taints, tc.extras, err, tc.want)
		}
	}
}
