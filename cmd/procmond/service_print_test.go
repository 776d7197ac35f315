package main

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func service(t *testing.T, text string) string {
	t.Helper()
	out, err := fillTemplate(text, map[string]string{"Program": "/usr/bin/procmond", "FinalCodes": finalCodes()})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// unitLines are the settings of a unit by name.
func unitLines(t *testing.T, unit string) map[string]string {
	t.Helper()
	lines := make(map[string]string)
	for line := range strings.Lines(unit) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") || strings.HasPrefix(line, "[") {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok || lines[name] != "" {
			t.Errorf("line %q is no setting, or is there twice", line)
		}
		lines[name] = value
	}
	return lines
}

func TestUnit(t *testing.T) {
	lines := unitLines(t, service(t, systemdUnit))
	for name, want := range map[string]string{
		"Type": "notify", "Restart": "on-failure", "RestartPreventExitStatus": "64 65 76 77 78", "StateDirectory": "daemoneye",
		"RuntimeDirectory": "procmond", "NoNewPrivileges": "yes", "ProtectSystem": "strict", "UMask": "0077",
	} {
		if lines[name] != want {
			t.Errorf("%s is %q, want %q", name, lines[name], want)
		}
	}
	for _, name := range []string{"WatchdogSec", "MemoryMax", "LimitNOFILE", "CapabilityBoundingSet", "TimeoutStopSec"} {
		if lines[name] == "" {
			t.Errorf("%s is missing", name)
		}
	}
	for _, blinding := range []string{"ProtectProc", "ProcSubset", "PrivatePIDs", "PrivateUsers"} {
		if _, ok := lines[blinding]; ok {
			t.Errorf("%s would blind it", blinding)
		}
	}
}

// systemdAnalyze skips, visibly, where the tool is missing.
func systemdAnalyze(t *testing.T, args ...string) string {
	t.Helper()
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed here")
	}
	out, err := exec.CommandContext(t.Context(), tool, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("systemd-analyze %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// unitFile is the printed unit with a program that exists.
func unitFile(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "procmond.service")
	unit := strings.ReplaceAll(service(t, systemdUnit), "/usr/bin/procmond", self)
	if err := os.WriteFile(name, []byte(unit), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestUnitIsVerified(t *testing.T) {
	if out := systemdAnalyze(t, "verify", "--man=no", unitFile(t)); strings.Contains(out, "procmond.service") {
		t.Errorf("systemd-analyze verify says:\n%s", out)
	}
}

// mostExposure is what `systemd-analyze security` may say at most: 0 is safe, 10
// is exposed.
const mostExposure = 3.0

func TestUnitIsHardened(t *testing.T) {
	out := systemdAnalyze(t, "security", "--offline=yes", "--no-pager", unitFile(t))
	_, after, _ := strings.Cut(out, "Overall exposure level for procmond.service: ")
	figure, _, _ := strings.Cut(after, " ")
	exposure, err := strconv.ParseFloat(figure, 64)
	if err != nil {
		t.Fatalf("no exposure in:\n%s", out)
	}
	t.Logf("exposure %.1f", exposure)
	if exposure > mostExposure {
		t.Errorf("exposure %.1f, want at most %.1f:\n%s", exposure, mostExposure, out)
	}
}

// plistValue reads the value that begins with start: a string, an int64, a bool,
// a []any or a map[string]any.
func plistValue(d *xml.Decoder, start xml.StartElement) (any, error) {
	switch start.Name.Local {
	case "true", "false":
		return start.Name.Local == "true", d.Skip()
	case "string", "integer":
		var text string
		if err := d.DecodeElement(&text, &start); err != nil {
			return nil, err
		}
		if start.Name.Local == "string" {
			return text, nil
		}
		return strconv.ParseInt(text, 10, 64)
	case "array":
		return plistArray(d)
	case "dict":
		return plistDict(d)
	}
	return nil, fmt.Errorf("unknown element %s", start.Name.Local)
}

// nextElement is the next child, nil at the end of the parent. Text between
// elements may only be space.
func nextElement(d *xml.Decoder) (*xml.StartElement, error) {
	for {
		token, err := d.Token()
		if err != nil {
			return nil, err
		}
		switch token := token.(type) {
		case xml.StartElement:
			return &token, nil
		case xml.EndElement:
			return nil, nil
		case xml.CharData:
			if strings.TrimSpace(string(token)) != "" {
				return nil, fmt.Errorf("stray text %q", token)
			}
		}
	}
}

func plistArray(d *xml.Decoder) (any, error) {
	var list []any
	for {
		start, err := nextElement(d)
		if err != nil || start == nil {
			return list, err
		}
		value, err := plistValue(d, *start)
		if err != nil {
			return nil, err
		}
		list = append(list, value)
	}
}

func plistDict(d *xml.Decoder) (any, error) {
	dict := make(map[string]any)
	for {
		start, err := nextElement(d)
		if err != nil || start == nil {
			return dict, err
		}
		var key string
		if start.Name.Local != "key" {
			return nil, fmt.Errorf("want a key, found %s", start.Name.Local)
		}
		if err := d.DecodeElement(&key, start); err != nil {
			return nil, err
		}
		if _, twice := dict[key]; twice {
			return nil, fmt.Errorf("key %s is there twice", key)
		}
		value, err := nextElement(d)
		if err != nil || value == nil {
			return nil, errors.Join(err, fmt.Errorf("key %s has no value", key))
		}
		if dict[key], err = plistValue(d, *value); err != nil {
			return nil, err
		}
	}
}

func TestPlist(t *testing.T) {
	d := xml.NewDecoder(strings.NewReader(service(t, launchdPlist)))
	root, err := nextElement(d)
	if err != nil || root == nil || root.Name.Local != "plist" {
		t.Fatalf("root %v, %v", root, err)
	}
	start, err := nextElement(d)
	if err != nil || start == nil {
		t.Fatal(start, err)
	}
	value, err := plistValue(d, *start)
	if err != nil {
		t.Fatal(err)
	}
	if end, err := nextElement(d); end != nil || err != nil {
		t.Fatalf("plist has more than one value: %v %v", end, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) && err != nil {
		t.Fatal(err)
	}
	dict := value.(map[string]any)
	if keep, ok := dict["KeepAlive"].(map[string]any); !ok || keep["SuccessfulExit"] != false {
		t.Errorf("KeepAlive %v", dict["KeepAlive"])
	}
	if dict["ThrottleInterval"] != int64(30) || dict["Umask"] != int64(0o077) || dict["RunAtLoad"] != true {
		t.Errorf("ThrottleInterval %v, Umask %v, RunAtLoad %v", dict["ThrottleInterval"], dict["Umask"], dict["RunAtLoad"])
	}
	args, _ := dict["ProgramArguments"].([]any)
	if len(args) == 0 || args[0] != "/usr/bin/procmond" || !slices.Contains(args, any("/var/lib/daemoneye/processes.db")) {
		t.Errorf("ProgramArguments %v", args)
	}
	for _, key := range []string{"Label", "StandardErrorPath", "WorkingDirectory"} {
		if text, ok := dict[key].(string); !ok || text == "" {
			t.Errorf("%s %v", key, dict[key])
		}
	}
}
