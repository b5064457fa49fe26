package access

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/hodei-jobs/hodei/service/job"
)

// Explain says whether a caller holds a permission in a namespace ("default" when empty), and by what or why not, in a sentence.
// CodeInvalid when there is no such permission.
func (a *Access) Explain(c *Caller, permission, namespace string) (allowed bool, reason string, err error) {
	namespace = cmp.Or(namespace, job.DefaultNamespace)
	if !slices.Contains(a.catalog, permission) {
		return false, "", invalid("permission: there is no permission %.80q; there are %s", permission, strings.Join(a.catalog, ", "))
	}
	p := a.Policy()
	where := "in namespace " + namespace
	if namespace == Everywhere {
		where = "in all namespaces"
	}
	for _, b := range p.Of(c) {
		if !p.covers(b.Role, b.Namespace, permission, namespace) {
			continue
		}
		if !p.within(c, permission, namespace) {
			return false, fmt.Sprintf("%s holds %s %s, but the API token does not permit it", b.Subject, permission, where), nil
		}
		return true, fmt.Sprintf("%s has the role %s in %s", b.Subject, b.Role, b.Namespace), nil
	}
	return false, fmt.Sprintf("no binding of %s gives %s %s", strings.Join(c.Subjects, " or "), permission, where), nil
}
