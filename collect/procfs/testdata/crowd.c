// Starts N processes that sleep, with a command line of some 130 bytes each, says
// "ready" when all have replaced their image, and ends them when its input ends.
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc > 2) { // one of the crowd
        for (;;) pause();
    }
    int n = argc > 1 ? atoi(argv[1]) : 0, started = 0, ready[2];
    if (pipe(ready) < 0) return 1;
    pid_t *pids = calloc(n + 1, sizeof *pids);
    for (int i = 0; i < n; i++) {
        pid_t pid = fork();
        if (pid < 0) break;
        if (pid == 0) {
            char name[32], pad[96];
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            snprintf(name, sizeof name, "sleeper-%06d", i);
            memset(pad, 'a' + i % 26, sizeof pad - 1);
            pad[sizeof pad - 1] = 0;
            // The write end of the pipe goes with the old image.
            close(ready[0]);
            dup2(ready[1], 100);
            close(ready[1]);
            close(0);
            close(1);
            if (fcntl(100, F_SETFD, FD_CLOEXEC) < 0) _exit(1);
            execl("/proc/self/exe", name, "--configuration", pad, (char *)0);
            _exit(1);
        }
        pids[started++] = pid;
    }
    close(ready[1]);
    char c;
    while (read(ready[0], &c, 1) > 0) {}
    printf("%d ready\n", started);
    fflush(stdout);
    while (read(0, &c, 1) > 0) {}
    for (int i = 0; i < started; i++) kill(pids[i], SIGKILL);
    while (wait(0) > 0) {}
    return 0;
}
