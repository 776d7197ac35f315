package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"daemoneye.dev/procmond/cmd/internal/cli"
)

//go:embed service/procmond.service.tmpl
var systemdUnit string

//go:embed service/procmond.plist.tmpl
var launchdPlist string

// servicePrintCommand prints what makes a service of procmond, and changes nothing.
type servicePrintCommand struct {
	Systemd bool   `help:"Print a unit for systemd."`
	Launchd bool   `help:"Print a property list for launchd (macOS)."`
	Program string `placeholder:"PATH" help:"Where procmond is installed. Default: this program."`
}

// Help is what kong shows besides the flags.
func (servicePrintCommand) Help() string {
	return `Examples:

  procmond service print --systemd > /etc/systemd/system/procmond.service

  procmond service print --launchd > /Library/LaunchDaemons/dev.daemoneye.procmond.plist`
}

func (c *servicePrintCommand) run(_ context.Context, p invocation) error {
	if c.Systemd == c.Launchd {
		return &exitError{code: exitUsage, err: errors.New("which service manager? Give --systemd or --launchd")}
	}
	installed, err := c.program()
	if err != nil {
		return err
	}
	text := systemdUnit
	if c.Launchd {
		text = launchdPlist
	}
	out, err := fillTemplate(text, map[string]string{"Program": installed, "FinalCodes": finalCodes()})
	if err != nil {
		return err
	}
	return cli.Write(p.stdout, out)
}

// program is the path to start, absolute and without what would need quoting.
func (c *servicePrintCommand) program() (string, error) {
	path := c.Program
	if path == "" {
		self, err := os.Executable()
		if err != nil {
			return "", fmt.Errorf("find this program: %w", err)
		}
		path = self
	}
	if !filepath.IsAbs(path) || strings.ContainsAny(path, " \t\n\"'\\%$;") {
		return "", &exitError{
			code: exitUsage, err: fmt.Errorf("%q can not stand in a unit: want an absolute path without spaces, quotes, %%, $ and backslashes", path),
			hint: "Give the path where procmond is installed with --program.",
		}
	}
	return path, nil
}

func fillTemplate(text string, values map[string]string) (string, error) {
	escape := func(s string) (string, error) {
		var b bytes.Buffer
		err := xml.EscapeText(&b, []byte(s))
		return b.String(), err
	}
	t, err := template.New("service").Funcs(template.FuncMap{"xml": escape}).Option("missingkey=error").Parse(text)
	if err != nil {
		return "", fmt.Errorf("parse template: %w", err)
	}
	var b strings.Builder
	if err := t.Execute(&b, values); err != nil {
		return "", fmt.Errorf("fill template: %w", err)
	}
	return b.String(), nil
}
