package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Two agents of a machine that would give the same UID to their jobs cannot run at once.
func TestRangesOfAgentsDoNotOverlap(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can run jobs as other users")
	}
	file := filepath.Join(t.TempDir(), "claims")
	claim := func(text string) (func(), error) {
		u, err := newUsers(text, passwdFile, groupFile)
		if err != nil {
			t.Fatal(err)
		}
		return u.claim(file)
	}
	release, err := claim("3100010-3100019")
	if err != nil {
		t.Fatal(err)
	}
	for text, free := range map[string]bool{
		"3100000-3100009": true, "3100020-3100029": true, "": true, "nobody": true,
		"3100010-3100019": false, "3100019-3100030": false, "3100000-3100010": false, "3100000-3100050": false, "3100012-3100012": false,
	} {
		other, err := claim(text)
		if (err == nil) != free || err != nil && !strings.Contains(err.Error(), "another agent") {
			t.Errorf("%q gave %v, free: %v", text, err, free)
		}
		if err == nil {
			other()
		}
	}
	release()
	if release, err = claim("3100010-3100019"); err != nil {
		t.Errorf("what was released is still taken: %v", err)
	} else {
		release()
	}
	if _, err := (&users{first: 1, last: 2}).claim(filepath.Join(file, "nowhere")); err == nil {
		t.Error("a file that cannot be had gave no error")
	}
}
