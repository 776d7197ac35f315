// paced RATE N WORKERS TAG PROGRAM: starts N programs, so many a second, from so many
// processes, as PROGRAM TAG-i with i from 0 to N-1. It prints the nanoseconds that
// they took. A worker that is late catches up.
#define _GNU_SOURCE
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct timespec begin;

static void wait_until(long long ns) {
	struct timespec at = {begin.tv_sec + ns / 1000000000, begin.tv_nsec + ns % 1000000000};
	if (at.tv_nsec >= 1000000000) {
		at.tv_sec++;
		at.tv_nsec -= 1000000000;
	}
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL))
		;
}

static void start(char *program, const char *tag, int i) {
	char id[64];
	pid_t pid;
	snprintf(id, sizeof id, "%s-%d", tag, i);
	char *args[] = {program, id, NULL}, *env[] = {NULL};
	if (posix_spawn(&pid, program, NULL, NULL, args, env) || waitpid(pid, NULL, 0) != pid)
		_exit(1);
}

int main(int argc, char **argv) {
	if (argc != 6)
		return 2;
	int rate = atoi(argv[1]), n = atoi(argv[2]), workers = atoi(argv[3]), status, failed = 0;
	struct timespec end;
	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (int w = 0; w < workers; w++)
		if (fork() == 0) {
			for (int i = w; i < n; i += workers) {
				wait_until(i * 1000000000LL / rate);
				start(argv[5], argv[4], i);
			}
			_exit(0);
		}
	for (int w = 0; w < workers; w++)
		if (wait(&status) < 0 || status)
			failed = 1;
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("%lld\n", (end.tv_sec - begin.tv_sec) * 1000000000LL + end.tv_nsec - begin.tv_nsec);
	return failed;
}
