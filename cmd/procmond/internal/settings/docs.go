package settings

import (
	"fmt"
	"strings"
)

// Markdown is the body of docs/configuration.md.
func Markdown() string {
	var b strings.Builder
	b.WriteString(`# Configuration

<!-- Made from the settings table of cmd/procmond; ` + "`just generate`" + ` makes it again. -->

Every setting of ` + "`procmond run`" + ` is a flag, an environment variable and a key of an optional YAML file. A flag wins over the
environment, the environment over the file, the file over the default. All three are checked whole at the start, whatever wins:
every fault is named, with its place (the first 20 if there are more), and the daemon does not start (exit 64 if the command line is wrong, else 78).

The file is the one that ` + "`--config`" + ` or ` + "`PROCMOND_CONFIG`" + ` names (an empty name: none), else ` + "`" + DefaultFile + "`" + ` if it is there. It is
one YAML mapping, at most 1 MiB; unknown keys, keys given twice, wrong types and aliases are faults. An empty environment
variable counts as not set; where several values are possible they are separated by commas, and a value that holds a comma goes
into the file or a flag. A list replaces the list of a lower place.

SIGHUP reads the file again. Settings marked *hot* are in force at once, also those that the agent had changed meanwhile; a
change of another is named in the log and waits for a restart. If anything is wrong the running configuration stays, and the log
names every fault.

| flag | environment | file | hot key | default | accepts |
|---|---|---|---|---|---|
| ` + "`--config`" + ` | ` + "`PROCMOND_CONFIG`" + ` | | | ` + "`" + DefaultFile + "`" + ` | a path |
`)
	table := Table()
	for i := range table {
		s := &table[i]
		hot := ""
		if s.Hot != "" {
			hot = "`" + s.Hot + "`"
		}
		fmt.Fprintf(&b, "| `%s` | `%s` | `%s` | %s | %s | %s |\n",
			s.Flag(), s.Env(), s.Key(), hot, code(s.Default), strings.ReplaceAll(s.accepts(), "|", `\|`))
	}
	b.WriteString("\n")
	for i := range table {
		s := &table[i]
		many := ""
		if s.Many {
			many = " Can be given more than once."
		}
		fmt.Fprintf(&b, "- `%s`: %s%s\n", s.Name, s.Help, many)
	}
	b.WriteString("\nAn example:\n\n```yaml\n" + Example + "```\n")
	return b.String()
}

// Example is a configuration file that uses the forms there are.
const Example = `interval: 15
log_level: info
retention: 7d,2GiB
metrics_listen: 9464        # on this machine only
min_process_lifetime: 0
exclude:
  - exe:/usr/bin/runc
  - uid:65534
redact:
  - "-pin$"
`

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}
