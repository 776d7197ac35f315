// What the kernel tells of processes, copied into a ring at the moment it happens.
//
// Only what is used is declared of the kernel's types: the loader finds where each
// member is in the running kernel (CO-RE). A pointer that a tracepoint gives is
// followed by plain loads, which the kernel guards; one that was computed here is
// followed by BPF_CORE_READ.
//
// A program must not wait, allocate or wake anyone, since it runs in the process
// that it tells of. What finds no room is counted.
#include <stdbool.h>
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
typedef int pid_t;
typedef struct {
	unsigned int val;
} kuid_t;
typedef struct {
	unsigned int val;
} kgid_t;
typedef struct {
	int counter;
} atomic_t;
typedef struct {
	__u64 val; // or an array of two 32-bit words, the lower first: read as bytes
} kernel_cap_t;
struct list_head {
	struct list_head *next;
};
struct upid {
	int nr;
};
struct pid {
	struct upid numbers[1];
};
struct cred {
	kuid_t uid, euid;
	kgid_t gid, egid;
	kernel_cap_t cap_effective;
};
struct tty_driver {
	int major, minor_start;
};
struct tty_struct {
	struct tty_driver *driver;
	int index;
};
struct kernfs_node {
	__u64 id;
};
struct cgroup {
	struct kernfs_node *kn;
};
struct css_set {
	struct cgroup *dfl_cgrp;
};
struct qstr {
	const unsigned char *name;
};
struct hlist_bl_node {
	struct hlist_bl_node **pprev;
};
struct dentry {
	struct hlist_bl_node d_hash;
	struct dentry *d_parent;
	struct qstr d_name;
};
struct vfsmount {
	struct dentry *mnt_root;
};
struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
};
struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};
struct file {
	struct path f_path;
};
struct mm_struct {
	unsigned long arg_start, arg_end;
	struct file *exe_file;
};
struct signal_struct {
	atomic_t live;
	int nr_threads;
	struct list_head thread_head;
	int group_exit_code;
	unsigned int flags;
	struct pid *pids[4];
	struct tty_struct *tty;
	unsigned long maxrss;
	unsigned long long sum_sched_runtime;
};
struct sched_entity {
	__u64 sum_exec_runtime;
};
struct task_struct {
	pid_t pid, tgid;
	int exit_code;
	__u64 start_boottime;
	char comm[16];
	struct task_struct *real_parent, *group_leader;
	const struct cred *real_cred;
	struct mm_struct *mm;
	struct signal_struct *signal;
	struct css_set *cgroups;
	struct list_head thread_node;
	struct sched_entity se;
};
#pragma clang attribute pop

#define EEXIST 17          // asm-generic/errno-base.h
#define SIGNAL_GROUP_EXIT 4 // sched/signal.h: group_exit_code is the whole group's
#define PIDTYPE_SID 3       // pid_types.h

#define COMPONENTS 64    // of a path and mounts on it, one above the other
#define COMPONENT_MAX 256 // NAME_MAX and a NUL byte
#define EXE_MAX 4096
#define ARGS_MAX 8192
#define THREADS 128 // that are dead and not gone yet, or die at once

enum kind {
	FORK = 1,
	EXEC,
	EXIT,
	KINDS,
};

// These are declared in Go by bpf2go: no padding, nothing whose size depends on the
// architecture.
struct head {
	__u32 kind, cpu;
	__s32 pid, ppid;
	__u64 start, parent_start, at; // CLOCK_BOOTTIME, ns
};
struct image {
	__u32 uid, gid, euid, egid;
	__u64 capabilities, cgroup;
	__s32 session, tty;
	__u8 comm[16];
};
struct fork_record {
	struct head head;
	struct image image;
	__s32 creator, unused;
};
struct exec_record {
	struct head head;
	struct image image;
	__u64 args_total;            // bytes that the process has
	__u32 exe_bytes, args_bytes; // of each, behind this struct in this order
	__u32 exe_deleted, failed;
};
struct exit_record {
	struct head head;
	__u64 cpu_time; // ns
	__u64 max_rss;  // pages
	__s32 status;   // as wait(2) gives it
	__u32 unused;
};
enum failure {
	EXE_FAILED = 1,
	ARGS_FAILED = 2,
};
const struct head *head_type __attribute__((unused));
const struct image *image_type __attribute__((unused));
const struct fork_record *fork_record_type __attribute__((unused));
const struct exec_record *exec_record_type __attribute__((unused));
const struct exit_record *exit_record_type __attribute__((unused));

// The loader sets these.
const volatile __u64 wake_from, wake_below; // bytes in the ring between which the reader is woken
const volatile bool tells_dead;             // the exit tracepoint says whether it is the last thread's

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20);
} ring SEC(".maps");

// lost counts what found no room, for one CPU, in a cache line of its own.
struct lost {
	__u64 kinds[KINDS];
	__u64 unused[4];
};
// The reader maps these counters: looking at them costs it no system call. They are
// as many as there are CPUs, which the loader knows.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct lost);
} lost SEC(".maps");

// The reader maps this one too, and writes it.
struct reader {
	__u64 rests; // not 0: it wants to be woken by the next record
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct reader);
} reader SEC(".maps");

// A record of an exec is made here: its size is not known before. The slack is for
// the verifier, which adds up what is possible one by one.
struct scratch {
	struct exec_record record;
	__u8 data[EXE_MAX + COMPONENT_MAX + ARGS_MAX];
};
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scratch);
} scratch SEC(".maps");

// ended has the process that ended last, where the kernel does not tell which of
// several threads that end at the same time is the last one. The loader gives it room
// for what each CPU keeps to itself, or one CPU might drop what another has just put.
struct identity {
	__u64 start, pid;
};
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct identity);
	__type(value, __u8);
} ended SEC(".maps");

// Waking the reader costs the process several times what all the rest does. So it is
// woken by the records that are written just above a certain fill, and by no others:
// several, since of two that are written at the same time neither may see the fill
// pass the mark.
static __always_inline __u64 wake(void)
{
	__u64 fill = bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA);
	return fill >= wake_from && fill < wake_below ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

// rouse wakes a reader that rests, by something in the ring that is no record. It is
// called once the record can be seen: either the reader finds that, after it has said
// that it rests, or this finds that it has said so.
static __always_inline void rouse(void)
{
	__u32 zero = 0;
	volatile struct reader *r = bpf_map_lookup_elem(&reader, &zero);
	if (!r || !r->rests)
		return;
	void *nothing = bpf_ringbuf_reserve(&ring, 8, 0);
	if (!nothing)
		return; // it is full, and the reader awake
	r->rests = 0;
	bpf_ringbuf_discard(nothing, BPF_RB_FORCE_WAKEUP);
}

static __always_inline void count_lost(enum kind kind)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct lost *l = bpf_map_lookup_elem(&lost, &cpu);
	if (l)
		__sync_fetch_and_add(&l->kinds[kind], 1);
}

static __always_inline void fill_head(struct head *h, enum kind kind, struct task_struct *leader)
{
	struct task_struct *parent = leader->real_parent;
	h->kind = kind;
	h->cpu = bpf_get_smp_processor_id();
	h->pid = leader->tgid;
	h->ppid = parent->tgid;
	h->start = leader->start_boottime;
	h->parent_start = parent->group_leader->start_boottime;
	h->at = bpf_ktime_get_boot_ns();
}

// terminal is field 7 of /proc/PID/stat.
static __always_inline __s32 terminal(struct tty_struct *tty)
{
	if (!tty)
		return 0;
	__u32 minor = tty->driver->minor_start + tty->index;
	return (minor & 0xff) | (__u32)tty->driver->major << 8 | (minor & ~0xffU) << 12;
}

static __always_inline void fill_image(struct image *m, struct task_struct *t)
{
	const struct cred *cred = t->real_cred;
	if (cred) { // always, but a kernel that clang has built wants to see it looked at
		m->uid = cred->uid.val;
		m->gid = cred->gid.val;
		m->euid = cred->euid.val;
		m->egid = cred->egid.val;
		bpf_core_read(&m->capabilities, sizeof(m->capabilities), &cred->cap_effective);
	}
	m->cgroup = 0;
	if (bpf_core_field_exists(t->cgroups))
		m->cgroup = t->cgroups->dfl_cgrp->kn->id;
	m->session = BPF_CORE_READ(t, signal, pids[PIDTYPE_SID], numbers[0].nr);
	m->tty = terminal(t->signal->tty);
	bpf_core_read(m->comm, sizeof(m->comm), &t->comm);
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	if (child->pid != child->tgid)
		return 0; // a thread
	struct fork_record *r = bpf_ringbuf_reserve(&ring, sizeof(*r), 0);
	if (!r) {
		count_lost(FORK);
		return 0;
	}
	fill_head(&r->head, FORK, child);
	fill_image(&r->image, child);
	r->creator = parent->tgid;
	r->unused = 0;
	bpf_ringbuf_submit(r, wake());
	rouse();
	return 0;
}

// fill_exe copies the names on the way from the executable to the root of its mount
// namespace, each with a NUL byte. It is what d_path does for /proc/PID/exe, for which
// programs have no leave. (That begins at the root of who reads it. For a daemon in a
// chroot it is another path.)
//
// How many bytes there are is kept in memory of which the verifier knows nothing: so
// it looks at each round of the loop once, and not at all that may have been before.
static __always_inline void fill_exe(struct scratch *s, struct mm_struct *mm)
{
	struct path *path = &mm->exe_file->f_path;
	struct dentry *dentry = BPF_CORE_READ(path, dentry);
	struct mount *mount = (void *)BPF_CORE_READ(path, mnt) - bpf_core_field_offset(struct mount, mnt);
	volatile __u32 *used = &s->record.exe_bytes;

	*used = 0;
	s->record.exe_deleted = !BPF_CORE_READ(dentry, d_hash.pprev);
	for (int i = 0; i < COMPONENTS; i++) {
		if (dentry == BPF_CORE_READ(mount, mnt.mnt_root)) {
			struct mount *below = BPF_CORE_READ(mount, mnt_parent);
			if (below == mount)
				return;
			dentry = BPF_CORE_READ(mount, mnt_mountpoint);
			mount = below;
			continue;
		}
		__u64 n = *used;
		if (n > EXE_MAX - COMPONENT_MAX)
			break;
		long size = bpf_probe_read_kernel_str(&s->data[n], COMPONENT_MAX, BPF_CORE_READ(dentry, d_name.name));
		if (size <= 0)
			break;
		*used = n + size;
		struct dentry *parent = BPF_CORE_READ(dentry, d_parent);
		if (dentry == parent)
			return; // a file that is in no directory, made of memory
		dentry = parent;
	}
	*used = 0;
	s->record.failed |= EXE_FAILED;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct *t)
{
	__u32 zero = 0;
	struct scratch *s = bpf_map_lookup_elem(&scratch, &zero);
	struct mm_struct *mm = t->mm;
	if (!s || !mm)
		return 0; // neither can be
	struct exec_record *r = &s->record;
	fill_head(&r->head, EXEC, t);
	fill_image(&r->image, t);
	r->failed = 0;

	fill_exe(s, mm);
	__u64 exe = *(volatile __u32 *)&r->exe_bytes;
	if (exe > EXE_MAX)
		return 0; // never
	unsigned long from = mm->arg_start;
	__u64 args = mm->arg_end - from;
	r->args_total = args;
	if (args > ARGS_MAX)
		args = ARGS_MAX;
	if (args && bpf_probe_read_user(&s->data[exe], args, (void *)from)) {
		r->failed |= ARGS_FAILED;
		args = 0;
	}
	r->args_bytes = args;
	if (bpf_ringbuf_output(&ring, s, sizeof(*r) + exe + args, wake()))
		count_lost(EXEC);
	rouse();
	return 0;
}

// cpu_time adds what the scheduler gave to threads that are gone and to those that
// are still to be seen. A thread that goes meanwhile would be missed: then all is
// added up again.
static __always_inline __u64 cpu_time(struct task_struct *t)
{
	struct signal_struct *signal = t->signal;
	int threads = signal->nr_threads;
	if (threads == 1)
		return signal->sum_sched_runtime + t->se.sum_exec_runtime;
	__u64 sum = 0;
	for (int try = 0; try < 3; try++) {
		struct list_head *head = &signal->thread_head, *node = BPF_CORE_READ(head, next);
		sum = signal->sum_sched_runtime;
		for (int i = 0; i < THREADS && node != head; i++) {
			struct task_struct *each = (void *)node - bpf_core_field_offset(struct task_struct, thread_node);
			sum += BPF_CORE_READ(each, se.sum_exec_runtime);
			node = BPF_CORE_READ(node, next);
		}
		if (signal->nr_threads == threads)
			break;
		threads = signal->nr_threads;
	}
	return sum;
}

// is_last reports whether the process ends with this thread. A kernel before 6.16 does
// not tell: when threads end at the same time, each of them may find that none is
// alive, and the last one that it is alone. Told twice is better than not at all.
static __always_inline bool is_last(unsigned long long *ctx, struct task_struct *t)
{
	if (tells_dead)
		return (__u8)ctx[1];
	struct signal_struct *signal = t->signal;
	if (signal->live.counter)
		return false;
	struct identity id = {.start = t->group_leader->start_boottime, .pid = t->tgid};
	if (signal->nr_threads == 1)
		return !bpf_map_lookup_elem(&ended, &id);
	__u8 value = 0;
	// Before 6.4 only the lower half of the result is one.
	return (int)bpf_map_update_elem(&ended, &id, &value, BPF_NOEXIST) != -EEXIST;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit, struct task_struct *t)
{
	if (!is_last(ctx, t))
		return 0;
	struct exit_record *r = bpf_ringbuf_reserve(&ring, sizeof(*r), 0);
	if (!r) {
		count_lost(EXIT);
		return 0;
	}
	struct task_struct *leader = t->group_leader;
	struct signal_struct *signal = t->signal;
	fill_head(&r->head, EXIT, leader);
	r->status = signal->flags & SIGNAL_GROUP_EXIT ? signal->group_exit_code : leader->exit_code;
	r->cpu_time = cpu_time(t);
	r->max_rss = signal->maxrss;
	r->unused = 0;
	bpf_ringbuf_submit(r, wake());
	rouse();
	return 0;
}
