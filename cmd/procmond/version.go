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
	b := readBuild()
	return cli.Write(p.stdout, fmt.Sprintf("procmond %s\ncommit   %s\n%s %s/%s\n", b.version, b.commit, runtime.Version(), runtime.GOOS, runtime.GOARCH))
}

// build is what the toolchain wrote into this program.
type build struct{ version, commit string }

func readBuild() build {
	b := build{version: version, commit: "unknown"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = new(debug.BuildInfo)
	}
	if b.version == "" {
		b.version = info.Main.Version
	}
	if b.version == "" || b.version == "(devel)" {
		b.version = "devel"
	}
	var modified bool
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.commit = s.Value
		case "vcs.modified":
			modified = s.Value == "true"
		}
	}
	if modified {
		b.commit += " (modified)"
	}
	return b
}
