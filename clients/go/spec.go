package hodei

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

// MaxSpecBytes is the largest file of specs that ParseSpecs takes; the server takes no larger message.
const MaxSpecBytes = 4 << 20

// ParseSpecs reads job specs from YAML or JSON, one for each document. The fields are those of JobSpec by their proto names.
// Short forms are taken too: a step's "run" is a script and its "command" may be a list, "cpu" and "memory" in resources are
// written like 1.5 and 2Gi, a duration like 1h30m, and a constraint as ParseConstraint reads it. A field that does not exist is
// an error that names its line.
func ParseSpecs(data []byte) ([]*hodeiv1.JobSpec, error) {
	if len(data) > MaxSpecBytes {
		return nil, fmt.Errorf("the spec has %d bytes and the limit is %d; put large data into files that the job reads", len(data), MaxSpecBytes)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var specs []*hodeiv1.JobSpec
	for {
		var document yaml.Node
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("the spec is neither YAML nor JSON: %w", err)
		}
		if len(document.Content) == 0 || document.Content[0].Tag == "!!null" {
			continue
		}
		spec, err := parseSpec(document.Content[0])
		if err != nil {
			return nil, err
		}
		specs = append(specs, spec)
	}
	if len(specs) == 0 {
		return nil, errors.New("the spec is empty; it needs at least steps, for example: {steps: [{command: [echo, hello]}]}")
	}
	return specs, nil
}

func parseSpec(node *yaml.Node) (*hodeiv1.JobSpec, error) {
	spec := new(hodeiv1.JobSpec)
	w := &walker{left: maxSpecNodes}
	tree, err := w.messageTree(node, spec.ProtoReflect().Descriptor())
	if err != nil {
		return nil, err
	}
	encoded, err := json.Marshal(tree)
	if err != nil {
		return nil, err
	}
	if err := protojson.Unmarshal(encoded, spec); err != nil {
		return nil, fmt.Errorf("the spec that begins in line %d is not valid: %w", node.Line, err)
	}
	return spec, nil
}

// maxSpecNodes bounds the values of a spec with all aliases written out, so that a small file cannot stand for a huge one.
const maxSpecNodes = 1_000_000

// walker turns YAML into what protojson reads.
type walker struct{ left int }

// visit counts a node. An alias that contains itself runs into the same bound.
func (w *walker) visit(node *yaml.Node) error {
	if w.left--; w.left < 0 {
		return fmt.Errorf("line %d: the spec has more than %d values when its aliases are written out", node.Line, maxSpecNodes)
	}
	return nil
}

// messageTree turns a YAML mapping into what protojson reads as a message of this type, short forms written out.
func (w *walker) messageTree(node *yaml.Node, message protoreflect.MessageDescriptor) (any, error) {
	if err := w.visit(node); err != nil {
		return nil, err
	}
	if node.Kind == yaml.AliasNode {
		return w.messageTree(node.Alias, message)
	}
	if message.FullName() == "google.protobuf.Duration" {
		return durationTree(node)
	}
	if message.FullName() == "google.protobuf.Timestamp" {
		return node.Value, nil
	}
	if message.Name() == "Command" && node.Kind == yaml.SequenceNode {
		argv, err := w.valueTree(node, message.Fields().ByName("argv"))
		return map[string]any{"argv": argv}, err
	}
	if message.Name() == "SecretRef" && node.Kind == yaml.ScalarNode {
		return map[string]any{"name": node.Value}, nil
	}
	if message.Name() == "Script" && node.Kind == yaml.ScalarNode {
		return map[string]any{"text": node.Value}, nil
	}
	if message.Name() == "Constraint" && node.Kind == yaml.ScalarNode {
		return constraintTree(node)
	}
	if message.Name() == "Concurrency" && node.Kind == yaml.ScalarNode {
		return map[string]any{"key": node.Value}, nil
	}
	if node.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: %s must be a mapping of fields", node.Line, message.Name())
	}
	tree := make(map[string]any, len(node.Content)/2)
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		name, converted, err := w.fieldTree(key, value, message)
		if err != nil {
			return nil, err
		}
		if _, twice := tree[name]; twice {
			return nil, fmt.Errorf("line %d: %q is given twice", key.Line, key.Value)
		}
		tree[name] = converted
	}
	return tree, nil
}

// fieldTree converts one field, and returns its proto name.
func (w *walker) fieldTree(key, value *yaml.Node, message protoreflect.MessageDescriptor) (string, any, error) {
	switch short := string(message.Name()) + "." + key.Value; short {
	case "Step.run":
		return "script", map[string]any{"text": value.Value}, nil
	case "Resources.cpu":
		cpus, err := strconv.ParseFloat(value.Value, 64)
		if err != nil || cpus < 0 || cpus > math.MaxInt32/1000 {
			return "", nil, fmt.Errorf("line %d: cpu %q is not a number of CPUs like 1.5", value.Line, value.Value)
		}
		return "milli_cpu", int32(math.Round(cpus * 1000)), nil
	case "Resources.memory":
		mib, err := ParseMemoryMiB(value.Value)
		if err != nil {
			return "", nil, fmt.Errorf("line %d: %w", value.Line, err)
		}
		return "memory_mib", mib, nil
	}
	field := message.Fields().ByName(protoreflect.Name(key.Value))
	if field == nil {
		field = message.Fields().ByJSONName(key.Value)
	}
	if field == nil {
		return "", nil, unknownField(key, message)
	}
	converted, err := w.valueTree(value, field)
	return string(field.Name()), converted, err
}

func (w *walker) valueTree(node *yaml.Node, field protoreflect.FieldDescriptor) (any, error) {
	if err := w.visit(node); err != nil {
		return nil, err
	}
	switch {
	case node.Kind == yaml.AliasNode:
		return w.valueTree(node.Alias, field)
	case field.IsMap():
		return w.mapTree(node, field)
	case field.IsList():
		if node.Kind != yaml.SequenceNode {
			return nil, fmt.Errorf("line %d: %s must be a list", node.Line, field.Name())
		}
		list := make([]any, 0, len(node.Content))
		for _, item := range node.Content {
			converted, err := w.singleTree(item, field)
			if err != nil {
				return nil, err
			}
			list = append(list, converted)
		}
		return list, nil
	}
	return w.singleTree(node, field)
}

func (w *walker) mapTree(node *yaml.Node, field protoreflect.FieldDescriptor) (any, error) {
	if node.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: %s must be a mapping", node.Line, field.Name())
	}
	tree := make(map[string]any, len(node.Content)/2)
	for i := 0; i+1 < len(node.Content); i += 2 {
		converted, err := w.singleTree(node.Content[i+1], field.MapValue())
		if err != nil {
			return nil, err
		}
		tree[node.Content[i].Value] = converted
	}
	return tree, nil
}

// singleTree converts one value. A string field takes any scalar as it is written: an argument 007 stays 007.
func (w *walker) singleTree(node *yaml.Node, field protoreflect.FieldDescriptor) (any, error) {
	if field.Message() != nil {
		return w.messageTree(node, field.Message())
	}
	if node.Kind == yaml.AliasNode {
		return w.singleTree(node.Alias, field)
	}
	if node.Kind != yaml.ScalarNode {
		return nil, fmt.Errorf("line %d: %s must be a single value", node.Line, field.Name())
	}
	switch field.Kind() {
	case protoreflect.StringKind, protoreflect.EnumKind:
		return enumOrString(node.Value, field), nil
	case protoreflect.BoolKind:
		value, err := strconv.ParseBool(node.Value)
		if err != nil {
			return nil, fmt.Errorf("line %d: %s %q is not true or false", node.Line, field.Name(), node.Value)
		}
		return value, nil
	case protoreflect.DoubleKind:
		value, err := strconv.ParseFloat(node.Value, 64)
		if err != nil {
			return nil, fmt.Errorf("line %d: %s %q is not a number", node.Line, field.Name(), node.Value)
		}
		return value, nil
	}
	value, err := strconv.ParseInt(node.Value, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("line %d: %s %q is not a whole number of at most %d", node.Line, field.Name(), node.Value, math.MaxInt32)
	}
	return value, nil
}

// enumOrString lets an enum be written without its prefix and in lower case: "in" for CONSTRAINT_OPERATOR_IN.
func enumOrString(value string, field protoreflect.FieldDescriptor) string {
	if field.Kind() != protoreflect.EnumKind {
		return value
	}
	zero := string(field.Enum().Values().Get(0).Name())
	long := strings.TrimSuffix(zero, "UNSPECIFIED") + strings.ToUpper(value)
	if field.Enum().Values().ByName(protoreflect.Name(long)) != nil {
		return long
	}
	return value
}

func constraintTree(node *yaml.Node) (any, error) {
	if tag := node.ShortTag(); !strings.HasPrefix(tag, "!!") { // to YAML, what begins with '!' is a type
		return nil, fmt.Errorf("line %d: write a constraint that begins with '!' in quotes, as \"!label\"", node.Line)
	}
	c, err := ParseConstraint(node.Value)
	if err != nil {
		return nil, fmt.Errorf("line %d: %w", node.Line, err)
	}
	return map[string]any{"label": c.GetLabel(), "operator": c.GetOperator().String(), "values": c.GetValues()}, nil
}

func durationTree(node *yaml.Node) (any, error) {
	d, err := time.ParseDuration(node.Value)
	if err != nil {
		return nil, fmt.Errorf("line %d: %q is not a duration like 90s or 1h30m", node.Line, node.Value)
	}
	return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "s", nil
}

func unknownField(key *yaml.Node, message protoreflect.MessageDescriptor) error {
	var names []string
	for i := range message.Fields().Len() {
		names = append(names, string(message.Fields().Get(i).Name()))
	}
	slices.Sort(names)
	what := fmt.Sprintf("line %d: %s has no field %q", key.Line, message.Name(), key.Value)
	if near := nearest(key.Value, names); near != "" {
		return fmt.Errorf("%s; did you mean %q?", what, near)
	}
	return fmt.Errorf("%s; its fields are %s", what, strings.Join(names, ", "))
}

// nearest returns the name that differs least, if it differs little.
func nearest(word string, names []string) string {
	best, bestDistance := "", len(word)/2+1
	for _, name := range names {
		if d := distance(word, name); d < bestDistance {
			best, bestDistance = name, d
		}
	}
	return best
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

// ParseMemoryMiB reads an amount of memory like 512Mi, 2Gi, 1.5G or a number of bytes, in mebibytes, rounded up.
func ParseMemoryMiB(text string) (int32, error) {
	units := []struct {
		suffix string
		factor float64
	}{{"Ki", 1 << 10}, {"Mi", 1 << 20}, {"Gi", 1 << 30}, {"Ti", 1 << 40}, {"K", 1e3}, {"M", 1e6}, {"G", 1e9}, {"T", 1e12}, {"", 1}}
	for _, unit := range units {
		number, ok := strings.CutSuffix(strings.TrimSuffix(text, "B"), unit.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(number, 64)
		mib := math.Ceil(n * unit.factor / (1 << 20))
		if err != nil || !(mib >= 0 && mib <= math.MaxInt32) {
			break
		}
		return int32(mib), nil
	}
	return 0, fmt.Errorf("%q is not an amount of memory like 512Mi or 2Gi", text)
}
