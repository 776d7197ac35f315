package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"

	"daemoneye.dev/procmond/cmd/internal/cli"
)

// version is set by a release build (-ldflags "-X main.version=1.2.3").
var version = ""

type versionCommand struct{}

func (versionCommand) run(_ context.Context, p invocation) error {
	v, commit := readBuild()
	return cli.Write(p.stdout, fmt.Sprintf("%s %s\ncommit   %s\n%s %s/%s\n", program, v, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH))
}

// readBuild is what the toolchain wrote into this program.
func readBuild() (v, commit string) {
	v, commit = version, "unknown"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = new(debug.BuildInfo)
	}
	if v == "" {
		v = info.Main.Version
	}
	if v == "" || v == "(devel)" {
		v = "devel"
	}
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			commit = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			commit += " (modified)"
		}
	}
	return v, commit
}
