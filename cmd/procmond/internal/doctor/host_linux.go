package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// host are the checks that only Linux has.
func (e *examiner) host() []Check {
	return []Check{e.kernel(), e.rights(), e.ownRights(), e.hidepid(), e.pids(), e.memory()}
}

// read is a file of the process file system or of sysfs, without the newline at
// its end; empty if it can not be read.
func read(path ...string) string {
	text, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// process is a file of the process that is examined.
func (e *examiner) process(file string) string { return read(e.Proc, strconv.Itoa(e.pid), file) }

// oldestKernel is the oldest that Go programs run on: 3.2 (Go 1.24 and later).
const oldestMajor, oldestMinor = 3, 2

func (e *examiner) kernel() Check {
	release := read(e.Proc, "sys/kernel/osrelease")
	c := Check{Name: "kernel", Status: Pass, Finding: "Linux " + release + "."}
	if major, minor, ok := version(release); !ok || major < oldestMajor || major == oldestMajor && minor < oldestMinor {
		c.Status, c.Cost, c.Mend = Note, "Nobody has tried procmond on it.", "uname -r"
	}
	return c
}

// version reads the first two numbers of a kernel's release.
func version(release string) (major, minor int, ok bool) {
	n, err := fmt.Sscanf(release, "%d.%d", &major, &minor)
	return major, minor, err == nil && n == 2
}

// capabilities is a set of capabilities(7).
type capabilities uint64

func (c capabilities) has(bit int) bool { return c&(1<<bit) != 0 }

// capabilities are the effective ones of a process towards the host: none if they can
// not be read, or hold in a user namespace alone.
func (e *examiner) capabilities(pid int) capabilities {
	if e.mapped(pid) {
		return 0
	}
	mask, _ := strconv.ParseUint(field(read(e.Proc, strconv.Itoa(pid), "status"), "CapEff:"), 16, 64)
	return capabilities(mask)
}

// mapped reports whether a process is in a user namespace other than the host's, as far
// as can be seen: that one has every user id, as it is.
func (e *examiner) mapped(pid int) bool {
	ids := strings.Fields(read(e.Proc, strconv.Itoa(pid), "uid_map"))
	return len(ids) > 0 && !slices.Equal(ids, []string{"0", "0", "4294967295"})
}

// field is the rest of the line that begins with name.
func field(text, name string) string {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// needed are the capabilities with which everything can be seen.
var needed = []struct {
	name string
	bit  int
	cost string
}{
	{"CAP_SYS_PTRACE", unix.CAP_SYS_PTRACE, "executables and exit codes of other users' processes are missing, with enhanced metadata also directories, namespaces and environments"},
	{"CAP_DAC_READ_SEARCH", unix.CAP_DAC_READ_SEARCH, "executables that only their owners may read have no hash"},
}

// rights says what the examined process may see.
func (e *examiner) rights() Check {
	caps := e.capabilities(e.pid)
	uid, _, _ := strings.Cut(field(e.process("status"), "Uid:"), "\t")
	c := Check{Name: "rights", Status: Pass, Finding: fmt.Sprintf("%s has user id %s and may see everything (CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH).", e.subject, uid)}
	var lacks, costs []string
	for _, n := range needed {
		if !caps.has(n.bit) {
			lacks, costs = append(lacks, n.name), append(costs, n.cost)
		}
	}
	if len(lacks) > 0 {
		c.Status = Note
		c.Finding = fmt.Sprintf("%s has user id %s and lacks %s.", e.subject, uid, strings.Join(lacks, ", "))
		c.Cost = capital(strings.Join(costs, "; ")) + "."
		c.Mend = "Run it as root or by the unit: procmond service print --systemd | sudo tee /etc/systemd/system/procmond.service"
		if e.mapped(e.pid) {
			c.Finding = fmt.Sprintf("%s has user id %s of a user namespace: no capability that it has there counts on the host.", e.subject, uid)
			c.Mend = "Run it outside of the user namespace: as root of the host, in a container that is not rootless, in a unit PrivateUsers=no"
		}
	}
	return c
}

// ownRights is a fact about who asks, where that is another one than the daemon.
func (e *examiner) ownRights() Check {
	if e.pid == e.Self {
		return Check{}
	}
	caps := e.capabilities(e.Self)
	var has []string
	for _, n := range needed {
		if caps.has(n.bit) {
			has = append(has, n.name)
		}
	}
	if len(has) == 0 {
		has = []string{"none of the capabilities that matter"}
	}
	uid, _, _ := strings.Cut(field(read(e.Proc, strconv.Itoa(e.Self), "status"), "Uid:"), "\t")
	return Check{Name: "your rights", Status: Pass, Finding: fmt.Sprintf("You have user id %s and %s.", uid, strings.Join(has, ", "))}
}

func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// hidepid says what the mount of /proc hides.
func (e *examiner) hidepid() Check {
	c := Check{Name: "hidepid", Status: Pass}
	mounts := e.process("mountinfo")
	if mounts == "" { // of the daemon that is root's alone
		mounts = read(e.Proc, "self/mountinfo")
	}
	options := procOptions(mounts)
	hides := options["hidepid"]
	c.Finding = "/proc shows every process (hidepid=" + orOff(hides) + ")."
	if _, subset := options["subset"]; subset {
		c.Status, c.Finding = Fail, "/proc is mounted with subset=pid."
		c.Cost, c.Mend = "The host's facts can not be read: procmond does not start.", "mount -t proc proc /proc; in a unit ProcSubset=all"
		return c
	}
	if hides == "" || hides == "0" || hides == "off" {
		e.namespace(&c)
		return c
	}
	c.Finding = "/proc is mounted with hidepid=" + hides + "."
	byGroup := e.inGroup(options["gid"]) && hides != "4" && hides != "ptraceable"
	if byGroup || e.capabilities(e.pid).has(unix.CAP_SYS_PTRACE) {
		c.Finding += " " + e.subject + " sees everything all the same."
		e.namespace(&c)
		return c
	}
	c.Status, c.Cost = Fail, "Processes of other users are not seen at all."
	if hides == "1" || hides == "noaccess" {
		c.Status, c.Cost = Note, "Of other users' processes little more than their PIDs is seen."
	}
	c.Mend = "mount -o remount,hidepid=0 /proc; in a unit ProtectProc=default; or run it with CAP_SYS_PTRACE"
	return c
}

// hostPIDs is the host's PID namespace, by the inode that kernels have given it since 3.8.
const hostPIDs = "pid:[4026531836]"

// namespace notes that not even a /proc that hides nothing shows the host.
func (e *examiner) namespace(c *Check) {
	space, err := os.Readlink(filepath.Join(e.Proc, strconv.Itoa(e.pid), "ns/pid"))
	if err != nil || space == hostPIDs {
		return
	}
	c.Status = Note
	c.Finding += " But this is a PID namespace, " + space + ", and not the host."
	c.Cost = "Only the processes of this container are seen."
	c.Mend = "docker run --pid=host, in a pod hostPID: true, in a unit PrivatePIDs=no; if the container is meant, nothing"
}

func orOff(s string) string {
	if s == "" {
		return "off"
	}
	return s
}

// inGroup reports whether the examined process has a group.
func (e *examiner) inGroup(gid string) bool {
	if gid == "" {
		return false
	}
	status := e.process("status")
	for _, g := range append(strings.Fields(field(status, "Groups:")), strings.Fields(field(status, "Gid:"))...) {
		if g == gid {
			return true
		}
	}
	return false
}

// procOptions are the options of the last file system mounted on /proc, in the
// form of proc_pid_mountinfo(5).
func procOptions(mountinfo string) map[string]string {
	options := make(map[string]string)
	for line := range strings.Lines(mountinfo) {
		before, after, found := strings.Cut(line, " - ")
		place, super := strings.Fields(before), strings.Fields(after)
		if !found || len(place) < 6 || len(super) < 3 || place[4] != "/proc" || super[0] != "proc" {
			continue
		}
		clear(options)
		for _, option := range strings.Split(super[2], ",") {
			name, value, _ := strings.Cut(option, "=")
			options[name] = value
		}
	}
	return options
}

// fewPIDs is what kernels give by default, and small hosts with it.
const fewPIDs = 32768

// pids says how many processes there may be, and are.
func (e *examiner) pids() Check {
	c := Check{Name: "pid_max", Status: Pass}
	most, err := strconv.ParseUint(read(e.Proc, "sys/kernel/pid_max"), 10, 64)
	if err != nil {
		return Check{}
	}
	c.Finding = fmt.Sprintf("The host has room for %d threads and processes", most)
	threads := threadsOf(read(e.Proc, "loadavg"))
	if threads > 0 {
		c.Finding += fmt.Sprintf(" and has %d", threads)
	}
	c.Finding += "."
	c.Mend = "sysctl -w kernel.pid_max=4194304"
	switch {
	case threads > most/5*4:
		c.Status, c.Cost = Fail, "Soon no process can be started, nor a thread of procmond."
	case most < fewPIDs:
		c.Status, c.Cost = Note, "PIDs are used again soon: what other programs log of a PID is easily of another process."
	default:
		c.Mend = ""
	}
	return c
}

// threadsOf is how many threads proc_loadavg(5) counts, 0 if it does not say.
func threadsOf(loadavg string) uint64 {
	fields := strings.Fields(loadavg)
	if len(fields) < 4 {
		return 0
	}
	_, all, _ := strings.Cut(fields[3], "/")
	n, err := strconv.ParseUint(all, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// What a procmond needs, in bytes: with 10,000 processes some 55 MiB.
const (
	tightMemory = 64 << 20
	roomyMemory = 128 << 20
)

// memory says what the control group allows.
func (e *examiner) memory() Check {
	c := Check{Name: "memory limit", Status: Pass}
	limit, group := e.memoryLimit()
	if group == "" {
		c.Finding = "The control group of " + lower(e.subject) + " sets no limit."
		return c
	}
	c.Finding = fmt.Sprintf("The control group %s allows %s.", group, bytesText(limit))
	c.Mend = "systemctl set-property procmond.service MemoryMax=256M; in a container raise its limit"
	switch {
	case limit < tightMemory:
		c.Status, c.Cost = Fail, "The kernel kills the daemon on a host with thousands of processes."
	case limit < roomyMemory:
		c.Status, c.Cost = Note, "It is enough for some ten thousand processes, not for many more."
	default:
		c.Mend = ""
	}
	return c
}

func lower(s string) string { return strings.ToLower(s[:1]) + s[1:] }

// memoryLimit is the lowest limit on the way to the root of the control groups,
// and whose it is; of version 2, and of version 1.
func (e *examiner) memoryLimit() (limit uint64, group string) {
	for line := range strings.Lines(e.process("cgroup")) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		var root, file string
		switch {
		case parts[0] == "0" && parts[1] == "":
			root, file = filepath.Join(e.Sys, "fs/cgroup"), "memory.max"
		case strings.Contains(","+parts[1]+",", ",memory,"):
			root, file = filepath.Join(e.Sys, "fs/cgroup/memory"), "memory.limit_in_bytes"
		default:
			continue
		}
		for at := filepath.Clean("/" + parts[2]); ; at = filepath.Dir(at) {
			n, err := strconv.ParseUint(read(root, at, file), 10, 64)
			if err == nil && n < unlimited && (group == "" || n < limit) {
				limit, group = n, at
			}
			if at == "/" {
				break
			}
		}
	}
	return limit, group
}

// unlimited is more than any host has; version 1 has no word for it.
const unlimited = 1 << 60

// clock says whether the wall clock can be believed, and the boot clock.
func (e *examiner) clock(now time.Time) Check {
	c := wallClock(now, e.storeChanged())
	if c.Status == Fail {
		return c
	}
	var boot, mono unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) != nil || unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono) != nil {
		c.Status, c.Finding = Fail, "The clock since boot can not be read."
		c.Cost, c.Mend = "Start times can not be told: procmond does not start.", "Allow clock_gettime in the container's system call filter."
		return c
	}
	if shift := bootShift(read(e.Proc, "self/timens_offsets")); shift != "" {
		c.Status, c.Finding = Note, "This is a time namespace: the clock since boot is shifted by "+shift+" s."
		c.Cost, c.Mend = "Start times are shown shifted.", "Run procmond in the host's time namespace."
		return c
	}
	c.Finding += fmt.Sprintf(" Up since %s.", now.Add(-time.Duration(boot.Nano())).Local().Format(time.DateTime))
	var tx unix.Timex
	if state, err := unix.Adjtimex(&tx); err == nil && (state == unix.TIME_ERROR || tx.Status&unix.STA_UNSYNC != 0) {
		c.Status = Note
		c.Finding += " It is not synchronised."
		c.Cost, c.Mend = "Times of events can not be compared with those of other hosts.", "timedatectl set-ntp true"
	}
	return c
}

// bootShift is the shift of the clock since boot in time_namespaces(7), empty if
// there is none.
func bootShift(offsets string) string {
	fields := strings.Fields(field(offsets, "boottime"))
	if len(fields) < 1 || fields[0] == "0" {
		return ""
	}
	return fields[0]
}

// files says how many files the examined process may have open.
func (e *examiner) files() Check {
	fields := strings.Fields(field(e.process("limits"), "Max open files"))
	if len(fields) < 1 {
		return Check{}
	}
	if fields[0] == "unlimited" {
		return judgeFiles(e.subject, unlimited)
	}
	n, err := strconv.ParseUint(fields[0], 10, 64)
	if err != nil {
		return Check{}
	}
	return judgeFiles(e.subject, n)
}

func spaceOf(st *unix.Statfs_t) space {
	s := space{
		free: st.Bavail * uint64(st.Bsize), files: st.Ffree, counted: st.Files > 0,
		readOnly: st.Flags&unix.ST_RDONLY != 0,
	}
	switch uint32(st.Type) {
	case unix.TMPFS_MAGIC, unix.RAMFS_MAGIC:
		s.kind = "tmpfs"
	case unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.V9FS_MAGIC:
		s.kind = "nfs"
	}
	return s
}
