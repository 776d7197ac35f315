package settings

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"gopkg.in/yaml.v3"
)

// maxFile is larger than any sensible configuration, in bytes.
const maxFile = 1 << 20

// readFile finds and reads the configuration file. name is empty if there is
// none, which is a fault only where one was asked for.
func (in Input) readFile(table []Setting) (name string, found map[string][]given, faults Faults) {
	name, asked, origin := in.fileName()
	if name == "" {
		return "", nil, nil
	}
	text, err := readRegular(name)
	if errors.Is(err, fs.ErrNotExist) && !asked {
		return "", nil, nil
	}
	if err != nil {
		return name, nil, Faults{{Origin: origin, What: fmt.Sprintf("read %s: %v", name, reason(err)), Unread: true}}
	}
	found, faults = parseFile(table, name, text)
	return name, found, faults
}

// fileName follows the precedence of all settings. An empty name asks for no
// file at all.
func (in Input) fileName() (name string, asked bool, origin string) {
	if in.ConfigFlag != nil {
		return *in.ConfigFlag, true, "flag --config"
	}
	for _, pair := range in.Environ {
		if value, ok := strings.CutPrefix(pair, EnvPrefix+"CONFIG="); ok {
			return value, true, "environment " + EnvPrefix + "CONFIG"
		}
	}
	return in.DefaultFile, false, "file"
}

// readRegular reads a file that is not endless and does not make us wait.
func readRegular(name string) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("larger than %d bytes", maxFile)
	}
	return text, err
}

// reason is err without the path, which the caller names.
func reason(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}

// parseFile reads one YAML mapping of scalars and lists of scalars. Nothing is
// ever expanded, so aliases can not make it grow: they are refused.
func parseFile(table []Setting, name string, text []byte) (map[string][]given, Faults) {
	root, err := parseYAML(text)
	if err != nil {
		line, what := placeOf(err, text)
		return nil, Faults{{Origin: fmt.Sprintf("file %s:%d", name, line), What: what, Unread: true, Line: line}}
	}
	if root == nil {
		return nil, nil
	}
	p := fileParser{name: name, table: table, found: make(map[string][]given), lines: make(map[string]int)}
	if root.Kind != yaml.MappingNode {
		p.fault(root, "", "want a mapping of settings, like `interval: 30`")
		return nil, p.faults
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		p.entry(root.Content[i], root.Content[i+1])
	}
	return p.found, p.faults
}

// parseYAML returns the root of the only document, nil if the text holds none.
func parseYAML(text []byte) (*yaml.Node, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document, more yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, err
	}
	switch err := decoder.Decode(&more); {
	case err == nil:
		return nil, fmt.Errorf("line %d: want one YAML document, found another", max(more.Line, 1))
	case !errors.Is(err, io.EOF):
		return nil, err
	}
	if document.Kind != yaml.DocumentNode || len(document.Content) == 0 {
		return nil, nil
	}
	if root := document.Content[0]; root.Kind != yaml.ScalarNode || root.Tag != "!!null" {
		return root, nil
	}
	return nil, nil // nothing but comments
}

type fileParser struct {
	name   string
	table  []Setting
	found  map[string][]given
	lines  map[string]int // where a key was first seen
	faults Faults
}

func (p *fileParser) fault(at *yaml.Node, key, format string, args ...any) {
	p.faults = append(p.faults, Fault{Origin: p.origin(at, key), What: fmt.Sprintf(format, args...), Line: at.Line})
}

func (p *fileParser) origin(at *yaml.Node, key string) string {
	origin := fmt.Sprintf("file %s:%d", p.name, at.Line)
	if key != "" {
		origin += ": " + key
	}
	return origin
}

func (p *fileParser) entry(key, value *yaml.Node) {
	if key.Kind != yaml.ScalarNode {
		p.fault(key, "", "want the name of a setting")
		return
	}
	s := p.setting(key)
	if s == nil {
		return
	}
	if first, ok := p.lines[s.Name]; ok {
		p.fault(key, key.Value, "given before in line %d", first)
		return
	}
	p.lines[s.Name] = key.Line
	texts, ok := p.texts(s, key, value)
	if ok {
		p.found[s.Name] = []given{{origin: p.origin(value, s.Key()), line: value.Line, texts: texts}}
	}
}

func (p *fileParser) setting(key *yaml.Node) *Setting {
	var keys []string
	for i := range p.table {
		if p.table[i].Key() == key.Value {
			return &p.table[i]
		}
		keys = append(keys, p.table[i].Key())
	}
	for i := range p.table {
		if p.table[i].Hot == key.Value {
			p.fault(key, "", "unknown setting %q: did you mean %q?", key.Value, p.table[i].Key())
			return nil
		}
	}
	p.fault(key, "", "unknown setting %q%s", clip(key.Value), didYouMean(key.Value, keys))
	return nil
}

func (p *fileParser) texts(s *Setting, key, value *yaml.Node) ([]string, bool) {
	if value.Kind == yaml.SequenceNode && s.Many {
		var texts []string
		whole := true
		for _, item := range value.Content {
			text, ok := p.scalar(s, item)
			texts, whole = append(texts, text), whole && ok
		}
		return texts, whole && len(texts) > 0
	}
	if value.Line == 0 {
		value.Line = key.Line
	}
	text, ok := p.scalar(s, value)
	return []string{text}, ok
}

func (p *fileParser) scalar(s *Setting, value *yaml.Node) (string, bool) {
	switch {
	case value.Kind == yaml.AliasNode:
		p.fault(value, s.Key(), "aliases are not accepted: write the value out")
	case value.Kind != yaml.ScalarNode && s.Many:
		p.fault(value, s.Key(), "want a value or a list of values: %s", s.accepts())
	case value.Kind != yaml.ScalarNode:
		p.fault(value, s.Key(), "want one value: %s", s.accepts())
	case value.Tag == "!!null":
		p.fault(value, s.Key(), "no value: want %s", s.accepts())
	default:
		return value.Value, true
	}
	return "", false
}
