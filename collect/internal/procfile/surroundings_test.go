package procfile

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
)

const (
	anID    = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	otherID = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"
)

func TestParseCgroup(t *testing.T) {
	pod := "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0f0e.slice"
	tests := []struct{ name, text, path, id string }{
		{"root", "0::/\n", "/", ""},
		{"session", "0::/user.slice/user-1000.slice/session-3.scope\n", "/user.slice/user-1000.slice/session-3.scope", ""},
		{"service", "0::/system.slice/docker.service\n", "/system.slice/docker.service", ""},
		{"docker by systemd", "0::/system.slice/docker-" + anID + ".scope\n", "/system.slice/docker-" + anID + ".scope", anID},
		{"docker by itself", "0::/docker/" + anID + "\n", "/docker/" + anID, anID},
		{"systemd in docker", "0::/docker/" + anID + "/system.slice/a.service\n", "/docker/" + anID + "/system.slice/a.service", anID},
		{"docker in docker", "0::/docker/" + anID + "/docker/" + otherID + "\n", "/docker/" + anID + "/docker/" + otherID, otherID},
		{"containerd", "0::" + pod + "/cri-containerd-" + anID + ".scope\n", pod + "/cri-containerd-" + anID + ".scope", anID},
		{"cri-o", "0::" + pod + "/crio-" + anID + ".scope\n", pod + "/crio-" + anID + ".scope", anID},
		{"kubernetes by itself", "0::/kubepods/besteffort/pod0f0e/" + anID + "\n", "/kubepods/besteffort/pod0f0e/" + anID, anID},
		{"pod without container", "0::" + pod + "\n", pod, ""},
		{"podman", "0::/machine.slice/libpod-" + anID + ".scope/container\n", "/machine.slice/libpod-" + anID + ".scope/container", anID},
		{"podman, split", "0::/a.service/libpod-payload-" + anID + "\n", "/a.service/libpod-payload-" + anID, anID},
		{"podman by itself", "0::/libpod_parent/libpod-" + anID + "\n", "/libpod_parent/libpod-" + anID, anID},
		{"nerdctl", "0::/system.slice/nerdctl-" + anID + ".scope\n", "/system.slice/nerdctl-" + anID + ".scope", anID},
		{"the monitor of podman", "0::/machine.slice/libpod-conmon-" + anID + ".scope\n", "/machine.slice/libpod-conmon-" + anID + ".scope", ""},
		{"the monitor of cri-o", "0::/crio-conmon-" + anID + ".scope\n", "/crio-conmon-" + anID + ".scope", ""},
		{"notation of systemd as a path", "0::/a.service/b.slice:cri-containerd:" + anID + "\n", "/a.service/b.slice:cri-containerd:" + anID, anID},
		{"notation of nobody", "0::/a:b:" + anID + "\n", "/a:b:" + anID, ""},
		{"one colon", "0::/docker:" + anID + "\n", "/docker:" + anID, anID},
		{"deleted", "0::/docker/" + anID + " (deleted)\n", "/docker/" + anID + " (deleted)", anID},
		{"id too short", "0::/docker/" + anID[1:] + "\n", "/docker/" + anID[1:], ""},
		{"id too long", "0::/docker/" + anID + "0\n", "/docker/" + anID + "0", ""},
		{"capitals", "0::/docker/" + strings.ToUpper(anID) + "\n", "/docker/" + strings.ToUpper(anID), ""},
		{"unknown runtime", "0::/other-" + anID + ".scope\n", "/other-" + anID + ".scope", ""},
		{"id as a scope", "0::/" + anID + ".scope\n", "/" + anID + ".scope", ""},
		{"outside of the daemon's namespace", "0::/../../other\n", "/../../other", ""},
		{"colon in the path", "0::/a:b\n", "/a:b", ""},
		{"not UTF-8", "0::/\xff\n", "/\xff", ""},
		{"no line feed at the end", "0::/a", "/a", ""},

		{"mixed, version 2 says nothing", "9:name=systemd:/\n4:memory:/job\n1:cpu,cpuacct:/other\n0::/\n", "/job", ""},
		{"mixed, systemd before memory", "4:memory:/job\n9:name=systemd:/a.service\n0::/\n", "/a.service", ""},
		{"mixed, version 2 before systemd", "9:name=systemd:/a.service\n0::/b.service\n", "/b.service", ""},
		{"mixed, another hierarchy", "4:memory:/\n1:cpu,cpuacct:/other\n2:pids:/more\n0::/\n", "/other", ""},
		{"mixed, a container counts most", "4:memory:/a\n2:pids:/docker/" + anID + "\n0::/system.slice/containerd.service\n", "/docker/" + anID, anID},
		{"version 1 alone", "2:memory:/docker/" + anID + "\n1:name=systemd:/docker/" + anID + "\n", "/docker/" + anID, anID},
		{"version 1, nothing", "2:memory:/\n1:cpu:/\n", "/", ""},

		{"line feed in a name", "0::/a\nb\n", "/a", ""},
		{"lines that are none", "\n::\nx::/x\n0::relative\n0::\n7\n0::/a\n", "/a", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var c Cgroup
			if err := c.Parse([]byte(tt.text)); err != nil {
				t.Fatal(err)
			}
			if string(c.Path) != tt.path || string(c.Container) != tt.id {
				t.Errorf("path %q, container %q, want %q, %q", c.Path, c.Container, tt.path, tt.id)
			}
		})
	}
	for _, text := range []string{"", "\n", "0::", "0::x", "-1::/", "a::/", "0:/", "0"} {
		var c Cgroup
		if err := c.Parse([]byte(text)); err == nil {
			t.Errorf("parsed %q as %q", text, c.Path)
		}
	}
}

func FuzzParseCgroup(f *testing.F) {
	f.Add([]byte("0::/docker/" + anID + "\n"))
	f.Add([]byte("9:name=systemd:/\n4:memory:/a\n0::/libpod-" + anID + ".scope/container\n"))
	f.Add([]byte("0::/a:cri-containerd:" + anID + " (deleted)"))
	f.Add([]byte("0::/\n\n::\n0::/a\nb"))
	if self, err := os.ReadFile("/proc/self/cgroup"); err == nil {
		f.Add(self)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var c Cgroup
		if c.Parse(b) != nil {
			return
		}
		if c.Path[0] != '/' || bytes.IndexByte(c.Path, '\n') >= 0 || !bytes.Contains(b, append([]byte{':'}, c.Path...)) {
			t.Errorf("path %q of %q", c.Path, b)
		}
		if c.Container != nil && (!isContainerID(c.Container) || !bytes.Contains(c.Path, c.Container)) {
			t.Errorf("container %q of %q", c.Container, c.Path)
		}
		for line := range bytes.Lines(b) {
			path := line[bytes.LastIndexByte(line, ':')+1:]
			if c.Container == nil && bytes.HasPrefix(line, []byte("0::/")) && containerID(bytes.TrimSuffix(path, []byte{'\n'})) != nil && path[0] == '/' {
				t.Errorf("no container in %q", b)
			}
		}
	})
}

func TestKeepEnv(t *testing.T) {
	allowed := map[string]struct{}{"LANG": {}, "TZ": {}, "A": {}}
	tests := []struct {
		name, text string
		want       []string
	}{
		{"empty", "", nil},
		{"none of them", "HOME=/\x00PATH=/bin\x00", nil},
		{"some", "HOME=/\x00LANG=C\x00PATH=/bin\x00TZ=UTC\x00", []string{"LANG=C", "TZ=UTC"}},
		{"no value", "LANG=\x00TZ=", []string{"LANG=", "TZ="}},
		{"no equals sign", "LANG\x00TZ=1\x00", []string{"TZ=1"}},
		{"no name", "=LANG\x00=\x00\x00\x00TZ=1\x00", []string{"TZ=1"}},
		{"more of an equals sign", "A=B=C\x00", []string{"A=B=C"}},
		{"the name of another one", "LANGUAGE=de\x00XLANG=C\x00lang=C\x00", nil},
		{"twice", "TZ=1\x00TZ=2\x00", []string{"TZ=1", "TZ=2"}},
		{"cut", "LANG=C\x00TZ=Eur", []string{"LANG=C", "TZ=Eur"}},
		{"a title written over it", "server: worker 3 LANG=C\x00\x00\x00ANG=C\x00TZ=1\x00", []string{"TZ=1"}},
		{"not UTF-8", "A=\xff\xfe\n\x00", []string{"A=\xff\xfe\n"}},
		{"128 KiB", "X=" + strings.Repeat("x", 128<<10) + "\x00A=" + strings.Repeat("a", 128<<10) + "\x00TZ=1\x00", []string{"A=" + strings.Repeat("a", 128<<10), "TZ=1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, cut := SplitArgs(KeepEnv([]byte(tt.text), allowed))
			if !slices.Equal(got, tt.want) || cut {
				t.Errorf("got %.200q, want %.200q", got, tt.want)
			}
		})
	}
	if got := KeepEnv([]byte("LANG=C\x00"), nil); len(got) != 0 {
		t.Errorf("kept %q though nothing is allowed", got)
	}
}

// FuzzKeepEnv holds it to a slow and plain one.
func FuzzKeepEnv(f *testing.F) {
	for _, s := range []string{"", "A=1\x00B=2\x00", "A=1", "A\x00=\x00A=\x00", "B=2\x00\x00A=x=y\x00", "\xff=\x00A=\xff"} {
		f.Add([]byte(s))
	}
	allowed := map[string]struct{}{"A": {}, "B": {}}
	f.Fuzz(func(t *testing.T, b []byte) {
		var want []string
		for pair := range strings.SplitSeq(string(b), "\x00") {
			if strings.HasPrefix(pair, "A=") || strings.HasPrefix(pair, "B=") {
				want = append(want, pair)
			}
		}
		kept := KeepEnv(bytes.Clone(b), allowed)
		got, cut := SplitArgs(kept)
		if !cut && !slices.Equal(got, want) {
			t.Errorf("%q became %q, want %q", b, got, want)
		}
	})
}

func TestParseNumbers(t *testing.T) {
	for text, want := range map[string]int64{"5391 1042 800 1 0 99 0\n": 1042, "0 0 0 0 0 0 0\n": 0, "1 2 ": 2, "": -1, "1": -1, "1 2": -1, "1  2 ": -1, "1 -2 3": -1, "1 x 3": -1, "1 99999999999999999999 3": -1} {
		if got, err := ParseResident([]byte(text)); err != nil && want >= 0 || err == nil && got != want {
			t.Errorf("statm %q: %d, %v, want %d", text, got, err, want)
		}
	}
	for text, want := range map[string]int64{"0": 0, "1000": 1000, "1\t": -1, "4294967295": 4294967295, "7\n": 7, "": -1, "-1": -1, "4294967296": -1, "\n": -1} {
		if got, err := ParseID([]byte(text)); err != nil && want >= 0 || err == nil && int64(got) != want {
			t.Errorf("id %q: %d, %v, want %d", text, got, err, want)
		}
	}
	for text, want := range map[string]int64{"mnt:[4026531832]": 4026531832, "a:[1]": 1, "": -1, "mnt:4026531832": -1, "mnt:[]": -1, "mnt:[1": -1, "mnt:[x]": -1, "mnt:[1]]": -1, "/proc/1/ns": -1} {
		if got, err := ParseNamespace([]byte(text)); err != nil && want >= 0 || err == nil && int64(got) != want {
			t.Errorf("namespace %q: %d, %v, want %d", text, got, err, want)
		}
	}
}

func FuzzParseNumbers(f *testing.F) {
	for _, s := range []string{"5391 1042 800 1 0 99 0\n", "4294967295", "mnt:[4026531832]", "", "1 2 3", "a:[", "0"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if pages, err := ParseResident(b); err == nil && pages < 0 {
			t.Errorf("%q: %d pages", b, pages)
		}
		if _, err := ParseID(b); err == nil && strings.Trim(string(b), "0123456789\n") != "" {
			t.Errorf("%q is taken for an id", b)
		}
		if _, err := ParseNamespace(b); err == nil && !bytes.HasSuffix(b, []byte{']'}) {
			t.Errorf("%q is taken for a namespace", b)
		}
	})
}
