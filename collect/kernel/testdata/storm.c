// storm KIND N WORKERS [PROGRAM TAG]: N processes as fast as they go, from so many
// processes at a time. It prints the nanoseconds that they took.
// With STORM_PIN each of these keeps to a CPU, and so do its children.
//
//   exec     PROGRAM TAG-i CODE, with i from 0 to N-1 and CODE i modulo 256
//   vfork    a child that ends at once
//   threads  a child of eight threads that all end at the same time, with the code 7
//   takeover PROGRAM TAG-i CODE, run by another thread than the first of a child
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 8 };
static pthread_barrier_t together;

static void *end(void *unused) {
	pthread_barrier_wait(&together);
	syscall(SYS_exit, 7);
	return unused;
}

static char **next;

static void *run(void *unused) {
	execve(next[0], next, NULL);
	_exit(1);
	return unused;
}

static void start(const char *kind, int i, char *program, const char *tag) {
	char id[64], code[8];
	pid_t pid;
	snprintf(id, sizeof id, "%s-%d", tag, i);
	snprintf(code, sizeof code, "%d", i % 256);
	char *args[] = {program, id, code, NULL}, *env[] = {NULL};
	if (!strcmp(kind, "exec")) {
		if (posix_spawn(&pid, program, NULL, NULL, args, env))
			_exit(1);
	} else if (!strcmp(kind, "vfork")) {
		if ((pid = vfork()) == 0)
			_exit(0);
	} else if ((pid = fork()) == 0 && !strcmp(kind, "takeover")) {
		pthread_t thread;
		next = args;
		if (pthread_create(&thread, NULL, run, NULL))
			_exit(1);
		if (i % 2) // the first thread ends by itself, or is ended
			syscall(SYS_exit, 3);
		pause();
	} else if (pid == 0) {
		pthread_t thread;
		pthread_barrier_init(&together, NULL, THREADS);
		for (int k = 1; k < THREADS; k++)
			if (pthread_create(&thread, NULL, end, NULL))
				_exit(1);
		end(NULL);
	}
	if (pid < 0 || waitpid(pid, NULL, 0) != pid)
		_exit(1);
}

static void pin(int worker) {
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET(worker % sysconf(_SC_NPROCESSORS_ONLN), &set);
	if (getenv("STORM_PIN") && sched_setaffinity(0, sizeof set, &set))
		_exit(1);
}

int main(int argc, char **argv) {
	int n = atoi(argv[2]), workers = atoi(argv[3]), status, failed = 0;
	char *program = argc > 5 ? argv[4] : "", *tag = argc > 5 ? argv[5] : "";
	struct timespec from, to;
	clock_gettime(CLOCK_MONOTONIC, &from);
	for (int w = 0; w < workers; w++)
		if (fork() == 0) {
			pin(w);
			for (int i = w; i < n; i += workers)
				start(argv[1], i, program, tag);
			_exit(0);
		}
	for (int w = 0; w < workers; w++)
		if (wait(&status) < 0 || status)
			failed = 1;
	clock_gettime(CLOCK_MONOTONIC, &to);
	printf("%lld\n", (to.tv_sec - from.tv_sec) * 1000000000LL + to.tv_nsec - from.tv_nsec);
	return failed;
}
