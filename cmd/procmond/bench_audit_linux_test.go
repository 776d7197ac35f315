package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// auditRules make the kernel tell of each program that is run.
var auditRules = [][]string{
	{"always,exit", "-F", "arch=b64", "-S", "execve", "-S", "execveat", "-k", "procmond-bench"},
	{"always,exit", "-F", "arch=b32", "-S", "execve", "-S", "execveat", "-k", "procmond-bench"},
}

// auditUnused says why audit on this host can not be lent, or nothing.
func auditUnused(b *testing.B) string {
	b.Helper()
	if os.Getuid() != 0 {
		return "it must be run as root"
	}
	if _, err := exec.LookPath("auditctl"); err != nil {
		return err.Error()
	}
	state, err := exec.Command("auditctl", "-s").CombinedOutput()
	if err != nil {
		return fmt.Sprintf("auditctl -s: %v: %s", err, state)
	}
	if auditValue(string(state), "pid") != "0" || auditValue(string(state), "enabled") == "2" {
		return "audit is in use on this host"
	}
	if rules := auditctl(b, "-l"); strings.TrimSpace(rules) != "No rules" {
		return "audit has rules on this host"
	}
	if kauditd() == 0 {
		return "no kauditd in sight"
	}
	return ""
}

func auditctl(b *testing.B, args ...string) string {
	b.Helper()
	out, err := exec.Command("auditctl", args...).CombinedOutput()
	if err != nil {
		b.Fatalf("auditctl %v: %v: %s", args, err, out)
	}
	return string(out)
}

// auditValue is one of `auditctl -s`.
func auditValue(state, name string) string {
	for line := range strings.Lines(state) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// kauditd is the kernel's thread that sends what audit has to tell, or 0.
func kauditd() int {
	paths, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, path := range paths {
		if name, err := os.ReadFile(path); err == nil && string(name) == "kauditd\n" {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			return pid
		}
	}
	return 0
}

// borrowedAudit is the host's audit while a tool has it.
type borrowedAudit struct {
	b      *testing.B
	before string
	lent   bool
}

// borrowAudit has the kernel tell of programs. It is given back at the end of the
// benchmark at the latest.
func borrowAudit(b *testing.B) *borrowedAudit {
	b.Helper()
	a := &borrowedAudit{b: b, before: auditctl(b, "-s"), lent: true}
	b.Cleanup(a.giveBack)
	auditctl(b, "-b", "8192")
	for _, rule := range auditRules {
		auditctl(b, append([]string{"-a"}, rule...)...)
	}
	auditctl(b, "-e", "1")
	return a
}

// stop makes the kernel tell nothing any more.
func (a *borrowedAudit) stop() { auditctl(a.b, "-e", auditValue(a.before, "enabled")) }

// giveBack leaves audit as it was.
func (a *borrowedAudit) giveBack() {
	a.b.Helper()
	if !a.lent {
		return
	}
	a.lent = false
	// The kernel learns that the tool has gone when it has something to tell, as it has
	// of a change while audit is on.
	auditctl(a.b, "-e", "1")
	auditctl(a.b, "-D")
	auditctl(a.b, "-b", auditValue(a.before, "backlog_limit"))
	waitFor(a.b, "the end of the audit daemon", func() bool { return auditValue(auditctl(a.b, "-s"), "pid") == "0" })
	a.stop()
	after := auditctl(a.b, "-s")
	for _, name := range []string{"enabled", "failure", "pid", "rate_limit", "backlog_limit", "backlog_wait_time"} {
		if was, is := auditValue(a.before, name), auditValue(after, name); was != is {
			a.b.Errorf("audit: %s was %s and is %s", name, was, is)
		}
	}
	if lost := auditValue(after, "lost"); lost != auditValue(a.before, "lost") {
		a.b.Logf("audit: %s records lost, %s before", lost, auditValue(a.before, "lost"))
	}
}

// auditd is the audit daemon as Debian configures it, but for its files.
type auditd struct{}

func (*auditd) name() string { return "auditd+kauditd" }

func (*auditd) missing(b *testing.B) string {
	b.Helper()
	if _, err := exec.LookPath("auditd"); err != nil {
		return err.Error()
	}
	return auditUnused(b)
}

// auditdConfig is Debian's in all that costs time, with a log that does not fill.
const auditdConfig = `local_events = yes
write_logs = yes
log_file = %s
log_format = ENRICHED
flush = INCREMENTAL_ASYNC
freq = 50
priority_boost = 4
max_log_file = 4096
max_log_file_action = IGNORE
space_left = 75
space_left_action = IGNORE
admin_space_left = 50
admin_space_left_action = IGNORE
disk_full_action = IGNORE
disk_error_action = IGNORE
`

func (*auditd) start(b *testing.B, dir string) watcherRun {
	b.Helper()
	r := &auditRun{audit: borrowAudit(b), log: filepath.Join(dir, "audit.log")}
	if err := os.WriteFile(filepath.Join(dir, "auditd.conf"), fmt.Appendf(nil, auditdConfig, r.log), 0o640); err != nil {
		b.Fatal(err)
	}
	r.printing = printing{b: b, path: filepath.Join(dir, "out")}
	r.begin("auditd", "-n", "-s", "nochange", "-c", dir)
	r.await()
	return r
}

// auditRun is a tool that has the host's audit.
type auditRun struct {
	printing
	audit *borrowedAudit
	log   string
}

// await returns when the kernel talks to the tool.
func (r *auditRun) await() {
	pid := regexp.MustCompile(fmt.Sprintf(`(?m)^pid %d$`, r.cmd.Process.Pid))
	waitFor(r.b, "the audit daemon", func() bool { return pid.MatchString(auditctl(r.b, "-s")) })
}

func (r *auditRun) pids() []int { return append(r.printing.pids(), kauditd()) }

func (r *auditRun) end() {
	r.audit.stop()
	waitFor(r.b, "the backlog", func() bool { return auditValue(auditctl(r.b, "-s"), "backlog") == "0" })
	r.printing.end()
	r.audit.giveBack()
}

func (r *auditRun) found(tag string) int { return distinct(r.b, r.log, tag) }

// goAudit is slackhq/go-audit as its example configures it, writing to a file.
type goAudit struct{}

func (*goAudit) name() string { return "go-audit+kauditd" }

func (*goAudit) missing(b *testing.B) string {
	b.Helper()
	program := os.Getenv("GO_AUDIT")
	if program == "" {
		return "GO_AUDIT names no program"
	}
	if _, err := exec.LookPath(program); err != nil {
		return err.Error()
	}
	return auditUnused(b)
}

const goAuditConfig = `socket_buffer:
  receive: 16384
events:
  min: 1300
  max: 1399
message_tracking:
  enabled: true
  log_out_of_order: false
  max_out_of_order: 500
output:
  file:
    enabled: true
    attempts: 2
    path: %s
    mode: 0600
    user: root
    group: root
rules:
`

func (*goAudit) start(b *testing.B, dir string) watcherRun {
	b.Helper()
	r := &auditRun{audit: borrowAudit(b), log: filepath.Join(dir, "audit.log")}
	config := fmt.Appendf(nil, goAuditConfig, r.log)
	for _, rule := range auditRules { // it removes those that are there
		config = fmt.Appendf(config, "  - -a %s\n", strings.Join(rule, " "))
	}
	path := filepath.Join(dir, "go-audit.yaml")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		b.Fatal(err)
	}
	r.printing = printing{b: b, path: filepath.Join(dir, "out")}
	r.begin(os.Getenv("GO_AUDIT"), "-config", path)
	r.await()
	return r
}
