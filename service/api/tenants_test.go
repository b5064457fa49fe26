package api

import (
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	adminv1 "github.com/hodei-jobs/hodei/gen/hodei/admin/v1"
	policyv1 "github.com/hodei-jobs/hodei/gen/hodei/policy/v1"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
	"github.com/hodei-jobs/hodei/service/access"
	"github.com/hodei-jobs/hodei/service/job"
)

// model is the policy in a few lines of its own: what the built-in roles permit is written down once more.
type model struct {
	bindings map[access.Binding]bool
	jobs     map[string]string // the namespaces of jobs, by their ids
}

var modelRoles = map[string]string{
	"viewer":    "jobs.read logs.read queues.read namespaces.read workers.read",
	"submitter": "jobs.read logs.read queues.read namespaces.read workers.read jobs.submit jobs.cancel secrets.list",
	"operator": "jobs.read logs.read queues.read namespaces.read workers.read jobs.submit jobs.cancel secrets.list jobs.release queues.write " +
		"namespaces.write secrets.set secrets.delete workers.drain retention.set retention.list tokens.create tokens.list tokens.revoke",
	"auditor": "audit.read access.read tokens.list logins.list revocations.read authority.read",
}

// may reports whether a user holds a permission in a namespace; "*" is everywhere, "?" anywhere.
func (m *model) may(user, permission, namespace string) bool {
	for b := range m.bindings {
		permits := b.Role == "admin" || slices.Contains(strings.Fields(modelRoles[b.Role]), permission)
		if b.Subject == "user/"+user && permits && (namespace == "?" || b.Namespace == "*" || b.Namespace == namespace) {
			return true
		}
	}
	return false
}

// touched are the namespaces that a request names, or whose jobs it names. Of a job that is not there it is "".
func (m *model) touched(request proto.Message) []string {
	var all []string
	walk(request.ProtoReflect(), func(of protoreflect.Message, field protoreflect.FieldDescriptor, value string) {
		switch field.Name() {
		case "id", "job_id":
			if of.Descriptor() == request.ProtoReflect().Descriptor() {
				all = append(all, m.jobs[value])
			}
		case "namespace":
			all = append(all, value)
		}
	})
	// What is not set means "default".
	each(request.ProtoReflect(), func(of protoreflect.Message) {
		if field := of.Descriptor().Fields().ByName("namespace"); field != nil && field.Kind() == protoreflect.StringKind && of.Get(field).String() == "" {
			all = append(all, "default")
		}
		for i := range of.Descriptor().Fields().Len() {
			field := of.Descriptor().Fields().Get(i)
			part := field.Message() != nil && !field.IsList() && !field.IsMap() && field.ContainingOneof() == nil
			if part && field.Message().Fields().ByName("namespace") != nil && !of.Has(field) {
				all = append(all, "default")
			}
		}
	})
	return all
}

// each visits a message and all that are in it.
func each(m protoreflect.Message, visit func(protoreflect.Message)) {
	visit(m)
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.Message() == nil || field.IsMap():
		case field.IsList():
			for i := range value.List().Len() {
				each(value.List().Get(i).Message(), visit)
			}
		default:
			each(value.Message(), visit)
		}
		return true
	})
}

// walk visits the texts of a message, and of those that are in it, that are not empty.
func walk(m protoreflect.Message, visit func(protoreflect.Message, protoreflect.FieldDescriptor, string)) {
	each(m, func(m protoreflect.Message) {
		m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
			switch {
			case field.Kind() != protoreflect.StringKind || field.IsMap():
			case field.IsList():
				for i := range value.List().Len() {
					visit(m, field, value.List().Get(i).String())
				}
			default:
				visit(m, field, value.String())
			}
			return true
		})
	})
}

// maker makes requests at random.
type maker struct {
	*rand.Rand
	jobs []string
}

func pick[T any](m *maker, from ...T) T { return from[m.IntN(len(from))] }

func (m *maker) text(field protoreflect.FieldDescriptor) string {
	switch field.Name() {
	case "namespace":
		return pick(m, "", "a", "a", "b", "b", "default", "*", "ab", "A", "a*", "../a")
	case "id", "job_id", "ids":
		if m.IntN(8) == 0 {
			return pick(m, "", "job_00000000000000000000000001", "x", "*", "wkr_1", "tok_1")
		}
		return m.jobs[m.IntN(len(m.jobs))]
	case "name", "queue", "parent":
		return pick(m, "", "one", "ONE", "two", "*")
	case "subject":
		return pick(m, "user/ann", "user/bea", "user/both", "group/devs")
	case "role":
		return pick(m, "viewer", "submitter", "operator", "admin")
	case "permission", "permissions":
		return pick(m, "jobs.read", "access.write", "x")
	}
	return ""
}

// fill sets fields of a message.
func (m *maker) fill(msg protoreflect.Message, depth int) {
	fields := msg.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		if depth > 3 || field.IsMap() || field.Name() == "follow" || field.Message() != nil && m.IntN(4) == 0 {
			continue
		}
		for range pick(m, 1, 1, 1, 2) {
			value := protoreflect.Value{}
			switch {
			case field.Kind() == protoreflect.StringKind:
				value = protoreflect.ValueOfString(m.text(field))
			case field.Kind() == protoreflect.BoolKind:
				value = protoreflect.ValueOfBool(m.IntN(2) == 0)
			case field.Kind() == protoreflect.Int32Kind && (field.Name() == "page_size" || field.Name() == "weight"):
				value = protoreflect.ValueOfInt32(int32(1 + m.IntN(5)))
			case field.Kind() == protoreflect.BytesKind && field.Name() == "value":
				value = protoreflect.ValueOfBytes([]byte("a secret value"))
			case field.Kind() == protoreflect.MessageKind && strings.HasPrefix(string(field.Message().FullName()), "hodei."):
				value = m.message(msg, field, depth)
			}
			switch {
			case !value.IsValid():
			case field.IsList():
				msg.Mutable(field).List().Append(value)
			default:
				msg.Set(field, value)
			}
		}
	}
}

func (m *maker) message(parent protoreflect.Message, field protoreflect.FieldDescriptor, depth int) protoreflect.Value {
	if field.Message().FullName() == "hodei.v1.JobSpec" { // one that is valid, but perhaps for its namespace
		return protoreflect.ValueOfMessage((&hodeiv1.JobSpec{
			Namespace: m.text(field.Message().Fields().ByName("namespace")), Queue: pick(m, "", "one"),
			Steps: []*hodeiv1.Step{{Action: &hodeiv1.Step_Script{Script: &hodeiv1.Script{Text: "true"}}}},
		}).ProtoReflect())
	}
	var value protoreflect.Value
	if field.IsList() {
		value = parent.Mutable(field).List().NewElement()
	} else {
		value = parent.NewField(field)
	}
	m.fill(value.Message(), depth+1)
	return value
}

// Two tenants, and users with rights in none, one, both or all of them: whatever anybody asks for, they get, and learn of, nothing in
// which they have no right, and are denied nothing in which they have one.
func TestTenantsNeverMeet(t *testing.T) {
	t.Parallel()
	const requests = 100_000
	w := newWorld(t)
	m := &model{bindings: map[access.Binding]bool{}, jobs: map[string]string{}}
	for _, b := range []string{
		"ann submitter a", "amy viewer a", "bea submitter b", "ben admin b", "both viewer a", "both submitter b", "oz operator *", "aud auditor *", "ada auditor a",
	} {
		f := strings.Fields(b)
		m.bindings[access.Binding{Subject: "user/" + f[0], Role: f[1], Namespace: f[2]}] = true
		w.grant(t, "user/"+f[0], f[1], f[2])
	}
	users := []string{"ann", "amy", "bea", "ben", "both", "oz", "aud", "ada", "none"}
	seed := rand.Uint64()
	mk := &maker{Rand: rand.New(rand.NewPCG(seed, 1))}
	admin := w.token(t, "admin")
	for i := range 20 {
		namespace := []string{"a", "b", "ab", "default"}[i%4]
		answers, err := w.call(t.Context(), admin, "/hodei.v1.JobService/SubmitJob", &hodeiv1.SubmitJobRequest{Spec: newSpec(func(s *hodeiv1.JobSpec) {
			s.Namespace, s.Name = namespace, "one"
		})})
		if err != nil {
			t.Fatal(err)
		}
		id := answers[0].(*hodeiv1.SubmitJobResponse).GetJob().GetId()
		m.jobs[id] = namespace
		mk.jobs = append(mk.jobs, id)
	}
	// A worker that has jobs of all of them.
	if _, err := w.config.Jobs.Connect(t.Context(), job.Worker{ID: "wkr_1", Name: "one", Session: 1, Slots: 1000}, nil, false); err != nil {
		t.Fatal(err)
	}
	tokens := make(map[string]string)
	for _, user := range users {
		tokens[user] = w.token(t, user)
	}
	all := userMethods(t)
	var fine, denied, hidden, other int
	for n := 0; n < requests; {
		method, user := pick(mk, all...), pick(mk, users...)
		rule, err := ruleOf(connect.Spec{Procedure: procedureOf(method), Schema: method})
		if err != nil {
			t.Fatal(err)
		}
		if rule.open() || rule.scope == policyv1.Scope_SCOPE_SELF {
			continue
		}
		n++
		request := newMessage(t, method.Input())
		mk.fill(request.ProtoReflect(), 0)
		answers, err := w.call(t.Context(), tokens[user], procedureOf(method), request)
		trial := fmt.Sprintf("%s by %s: %v: %v %v (seed %d)", procedureOf(method), user, request, answers, err, seed)
		allowed := m.allows(user, rule, request)
		switch code := connect.CodeOf(err); {
		case err == nil && !allowed:
			t.Fatalf("wrongly allowed: %s", trial)
		case err == nil:
			fine++
			m.note(rule, request, answers)
			m.checkAnswers(t, user, rule, answers, trial)
		case code == connect.CodePermissionDenied && allowed:
			// Only those who may bind a role in a namespace but do not hold all of it may be told so.
			if !strings.Contains(err.Error(), "do not hold") {
				t.Fatalf("wrongly denied: %s", trial)
			}
		case code == connect.CodePermissionDenied:
			denied++
		case code == connect.CodeNotFound:
			hidden++
			m.checkHidden(t, request, err, trial)
		case code == connect.CodeInternal:
			t.Fatalf("failed: %s", trial)
		default:
			other++
		}
	}
	t.Logf("%d requests: %d allowed, %d denied, %d not found, %d wrong otherwise (seed %d)", requests, fine, denied, hidden, other, seed)
	if fine < requests/20 || denied < requests/10 || hidden < requests/200 {
		t.Error("too few of a kind to mean anything")
	}
}

func newMessage(t *testing.T, d protoreflect.MessageDescriptor) proto.Message {
	t.Helper()
	kind, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		t.Fatal(err)
	}
	return kind.New().Interface()
}

// unknownJob is how the answer for a job begins that is not there.
const unknownJob = `there is no job "ID"`

// bindingOf is the binding that a request makes or removes; nil: it does neither.
func bindingOf(request proto.Message) *access.Binding {
	named, ok := request.(interface{ GetBinding() *adminv1.Binding })
	if !ok {
		return nil
	}
	b := named.GetBinding()
	return &access.Binding{Subject: b.GetSubject(), Role: b.GetRole(), Namespace: b.GetNamespace()}
}

// allows says by the model whether a request is allowed.
func (m *model) allows(user string, r *rule, request proto.Message) bool {
	switch r.scope {
	case policyv1.Scope_SCOPE_CLUSTER:
		return m.may(user, r.permission, "*")
	case policyv1.Scope_SCOPE_ANY_NAMESPACE:
		return m.may(user, r.permission, "?")
	}
	if !m.may(user, r.permission, "?") {
		return false
	}
	for _, namespace := range m.touched(request) {
		lists := slices.Contains([]string{"ListJobs", "WatchJobs", "ListQueues"}, path.Base(r.action))
		if lists && namespace == "*" && m.may(user, r.permission, "?") {
			continue
		}
		if namespace != "" && !m.may(user, r.permission, namespace) {
			return false
		}
	}
	return true
}

// note keeps the model in step with what was done.
func (m *model) note(r *rule, request proto.Message, answers []proto.Message) {
	for _, a := range answers {
		if submitted, ok := a.(*hodeiv1.SubmitJobResponse); ok && submitted.GetJob().GetId() != "" {
			m.jobs[submitted.GetJob().GetId()] = submitted.GetJob().GetSpec().GetNamespace()
		}
		if many, ok := a.(*hodeiv1.SubmitJobsResponse); ok {
			for i, result := range many.GetResults() {
				namespace := request.(*hodeiv1.SubmitJobsRequest).GetRequests()[i].GetSpec().GetNamespace() //nolint:forcetypeassert // answers it
				if namespace == "" {
					namespace = "default"
				}
				m.jobs[result.GetJobId()] = namespace
			}
		}
	}
	if b := bindingOf(request); b != nil {
		m.bindings[*b] = strings.HasSuffix(r.action, "CreateBinding")
		if !m.bindings[*b] {
			delete(m.bindings, *b)
		}
	}
}

// checkAnswers looks for anything in answers that is of a namespace in which the caller has no right.
func (m *model) checkAnswers(t *testing.T, user string, r *rule, answers []proto.Message, trial string) {
	t.Helper()
	for _, a := range answers {
		walk(a.ProtoReflect(), func(of protoreflect.Message, field protoreflect.FieldDescriptor, value string) {
			namespace, named := m.jobs[value]
			if field.Name() == "namespace" || field.Name() == "name" && of.Descriptor().Name() == "Namespace" {
				namespace, named = value, true
			}
			if named && !m.may(user, r.permission, namespace) {
				t.Fatalf("%q was shown: %s", value, trial)
			}
		})
	}
}

// checkHidden compares what is said of a job that somebody else has with what is said of none.
func (m *model) checkHidden(t *testing.T, request proto.Message, err error, trial string) {
	t.Helper()
	field := request.ProtoReflect().Descriptor().Fields().ByName("id")
	if field == nil {
		field = request.ProtoReflect().Descriptor().Fields().ByName("job_id")
	}
	if field == nil || strings.Contains(string(request.ProtoReflect().Descriptor().Name()), "Worker") {
		return
	}
	id := request.ProtoReflect().Get(field).String()
	if _, known := m.jobs[id]; known && !strings.Contains(err.Error(), strings.ReplaceAll(unknownJob, "ID", id)) {
		t.Fatalf("the answer is not that for a job that is not there: %s", trial)
	}
}
