// The same system calls as package procfs, with as little as possible around
// them: what a scan of /proc costs at least. For each line of input, "cold" or
// "warm", it does one scan and prints the nanoseconds of CPU time and the number
// of processes. A warm scan reads stat of each process, compares it with the
// last, and reads each 30th process whole.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

typedef unsigned long long u64;
typedef unsigned u32;

struct record {
    u32 pid, ppid, session, tty, threads, uid, euid, gid, egid;
    char state, comm[64];
    u64 start, cpu, rss, image[3], args, exit, caps, seen;
};

struct entry { u64 inode; long long offset; unsigned short length; unsigned char type; char name[]; };

static struct record *records;
static u32 *pids;
static int count, room, listed;
static char listing[32 << 10], text[2][2048], rest[8 << 10], cmdline[256 << 10];
static char *strings;
static size_t used, size;
static u64 scans;
static int proc;

static void list(void) {
    listed = 0;
    for (;;) {
        long n = syscall(SYS_getdents64, proc, listing, sizeof listing);
        if (n <= 0) return;
        for (long o = 0; o < n;) {
            struct entry *e = (void *)(listing + o);
            o += e->length;
            u32 pid = 0;
            char *c = e->name;
            for (; *c >= '0' && *c <= '9'; c++) pid = pid * 10 + (*c - '0');
            if (*c || c == e->name) continue;
            if (listed == room) pids = realloc(pids, (room = room ? room * 2 : 1024) * sizeof *pids);
            pids[listed++] = pid;
        }
    }
}

static long get(int dir, const char *name, char *buf, size_t len) {
    long fd = syscall(SYS_openat, dir, name, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return -1;
    long n = syscall(SYS_read, fd, buf, len);
    syscall(SYS_close, fd);
    return n;
}

static int parse(struct record *r, char *b, long n) {
    char *begin = memchr(b, '(', n), *end = memrchr(b, ')', n);
    if (!begin || !end) return -1;
    size_t len = end - begin - 1 < 63 ? end - begin - 1 : 63;
    memcpy(r->comm, begin + 1, len);
    r->comm[len] = 0;
    char *p = end + 2, *stop = b + n;
    r->state = *p;
    p += 2;
    u64 f[53] = {0};
    for (int i = 4; p < stop && i <= 52; i++, p++) {
        u64 v = 0;
        int negative = *p == '-';
        for (p += negative; *p >= '0' && *p <= '9'; p++) v = v * 10 + (*p - '0');
        f[i] = negative ? -v : v;
    }
    r->ppid = f[4], r->session = f[6], r->tty = f[7], r->cpu = f[14] + f[15], r->threads = f[20], r->start = f[22], r->rss = f[24];
    r->image[0] = f[26], r->image[1] = f[27], r->image[2] = f[28], r->args = f[48], r->exit = f[52];
    return 0;
}

static int same(struct record *a, struct record *b) {
    return a->start == b->start && a->ppid == b->ppid && a->session == b->session && a->tty == b->tty && a->args == b->args &&
           !memcmp(a->image, b->image, sizeof a->image) && !strcmp(a->comm, b->comm);
}

static void keep(const char *b, long n) {
    if (n < 0) return;
    if (used + n > size) strings = realloc(strings, size = (used + n) * 2);
    memcpy(strings + used, b, n);
    used += n;
}

static u32 number(const char *p) { return strtoul(p, 0, 10); }

static int whole(struct record *r, int store) {
    char path[16];
    struct record again;
    snprintf(path, sizeof path, "%u", r->pid);
    int dir = syscall(SYS_openat, proc, path, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    if (dir < 0) return -1;
    long n = get(dir, "stat", text[0], sizeof text[0]);
    int ok = n > 0 ? parse(r, text[0], n) : -1;
    n = get(dir, "status", rest, sizeof rest - 1);
    if (n > 0) {
        rest[n] = 0;
        char *p = strstr(rest, "\nUid:");
        if (p) r->uid = number(p + 5), r->euid = number(strchr(p + 6, '\t') + 1);
        if (p && (p = strstr(p, "\nGid:"))) r->gid = number(p + 5), r->egid = number(strchr(p + 6, '\t') + 1);
        if (p && (p = strstr(p, "\nCapEff:"))) r->caps = strtoull(p + 8, 0, 16);
    }
    n = get(dir, "cmdline", cmdline, sizeof cmdline);
    if (store) keep(cmdline, n);
    n = syscall(SYS_readlinkat, dir, "exe", rest, sizeof rest);
    if (store) keep(rest, n);
    n = get(dir, "stat", text[1], sizeof text[1]);
    ok |= n > 0 ? parse(&again, text[1], n) : -1;
    syscall(SYS_close, dir);
    return ok;
}

static void known(struct record *r) {
    char path[32];
    struct record now;
    snprintf(path, sizeof path, "%u/stat", r->pid);
    long n = get(proc, path, text[0], sizeof text[0]);
    if (n <= 0 || parse(&now, text[0], n) < 0) return;
    if (!same(r, &now)) whole(r, 1);
    r->state = now.state, r->threads = now.threads, r->rss = now.rss, r->cpu = now.cpu, r->seen = scans;
}

static void scan(int cold) {
    static int capacity;
    proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    list();
    if (cold) count = 0, used = 0;
    scans++;
    int j = 0, all = count;
    for (int i = 0; i < listed; i++) {
        while (j < all && records[j].pid < pids[i]) j++;
        if (j < all && records[j].pid == pids[i]) {
            if ((pids[i] + scans) % 30 == 0) whole(&records[j], 0);
            else known(&records[j]);
            continue;
        }
        if (!cold) continue; // a warm scan is one of the same processes
        if (count == capacity) records = realloc(records, (capacity = capacity ? capacity * 2 : 1024) * sizeof *records);
        records[count].pid = pids[i];
        if (whole(&records[count], 1) == 0) count++;
    }
    close(proc);
}

static u64 clock_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

int main(void) {
    char line[16];
    while (fgets(line, sizeof line, stdin)) {
        u64 before = clock_ns();
        scan(line[0] == 'c');
        printf("%llu %d\n", clock_ns() - before, count);
        fflush(stdout);
    }
    return 0;
}
