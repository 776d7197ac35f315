package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// completionScript prints the script for a shell.
func completionScript(t *testing.T, shell string) string {
	t.Helper()
	out, errOut, code := run(t, "completion", shell)
	if code != 0 {
		t.Fatalf("completion %s: exit %d: %s", shell, code, errOut)
	}
	return out
}

// bashCompletes is what bash offers for the last word of a line.
func bashCompletes(t *testing.T, script string, words ...string) []string {
	t.Helper()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is not installed here")
	}
	const ask = `source "$1"; shift
complete -p procmond >/dev/null || exit 1
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _procmond
printf '%s\n' "${COMPREPLY[@]}"`
	args := append([]string{"--norc", "-c", ask, "bash", script}, words...)
	out, err := exec.CommandContext(t.Context(), bash, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("bash: %v\n%s", err, out)
	}
	return strings.Fields(string(out))
}

func TestBashCompletion(t *testing.T) {
	script := filepath.Join(t.TempDir(), "procmond.bash")
	if err := os.WriteFile(script, []byte(completionScript(t, "bash")), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		line string
		want []string
	}{
		{"procmond st", []string{"state", "store"}},
		{"procmond store ", []string{"verify", "stats", "--help", "--version"}},
		{"procmond store ver", []string{"verify"}},
		{"procmond --int", []string{"--interval"}},
		{"procmond run --log-l", []string{"--log-level"}},
		{"procmond run --log-level w", []string{"warning"}},
		{"procmond events --kind ", []string{"start", "exec", "modify", "stop", "loss", "sensor"}},
		{"procmond events -o json --output ", []string{"table", "json"}},
		{"procmond events -o ", []string{"table", "json"}},
		{"procmond events -o j", []string{"json"}},
		{"procmond events -n ", nil},
		// Bash divides words at = unless it was told not to.
		{"procmond run --log-level = w", []string{"warning"}},
		{"procmond run --log-level =", []string{"trace", "debug", "info", "warning", "error"}},
		{"procmond run --log-level=w", []string{"--log-level=warning"}},
		{"procmond events --output=", []string{"--output=table", "--output=json"}},
		{"procmond run --interval=", nil},
		{"procmond run --interval = 1", nil},
		{"procmond run --log-level = warning --int", []string{"--interval"}},
		{"procmond completion ", []string{"bash", "zsh", "fish", "--help", "--version"}},
		{"procmond run --interval ", nil},
		{"procmond nonsense-", nil},
	} {
		got := bashCompletes(t, script, strings.Split(c.line, " ")...)
		if !slices.Equal(got, c.want) {
			t.Errorf("%q completes to %q, want %q", c.line, got, c.want)
		}
	}
}

// The other shells may not be installed; what can be said without them is that
// every command and flag is there.
func TestOtherCompletions(t *testing.T) {
	for _, shell := range []string{"zsh", "fish"} {
		script := completionScript(t, shell)
		for _, word := range []string{"events", "verify", "interval", "metrics-listen", "follow", "launchd"} {
			if !strings.Contains(script, word) {
				t.Errorf("%s: %s is missing", shell, word)
			}
		}
		path, err := exec.LookPath(shell)
		if err != nil {
			t.Logf("%s is not installed here: its script is not parsed", shell)
			continue
		}
		file := filepath.Join(t.TempDir(), "script")
		if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), path, "-n", file).CombinedOutput(); err != nil {
			t.Errorf("%s -n: %v\n%s", shell, err, out)
		}
	}
}
