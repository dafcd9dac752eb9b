/* What somebody would try who has taken the daemon over: loaded into it before everything else, it waits for
 * the file FORBIDDEN_GATE and then makes calls that no mount needs. A line for each, with its name and the
 * errno (0: it was let through), goes to FORBIDDEN_RESULT. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static FILE *result;

static void say(const char *name, long outcome)
{
	int failed = outcome == -1 ? errno : 0;

	fprintf(result, "%s %d\n", name, failed);
}

static void try_memory(void)
{
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	void *both = mmap(NULL, 4096, PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	say("mmap", both == MAP_FAILED ? -1 : 0);
	say("mprotect", mprotect(page, 4096, PROT_READ | PROT_EXEC));
}

static void try_all(void)
{
	char *const argv[] = {"/bin/true", NULL};

	say("execve", execve(argv[0], argv, NULL));
	say("execveat", syscall(SYS_execveat, AT_FDCWD, argv[0], argv, NULL, 0));
	say("mount", mount("none", "/proc", "tmpfs", MS_REMOUNT, NULL));
	say("fsopen", syscall(SYS_fsopen, "tmpfs", 0));
	say("unshare", unshare(CLONE_NEWNS));
	say("ptrace", ptrace(PTRACE_CONT, -1, NULL, NULL));
	say("kill", kill(getppid(), SIGCONT));
	say("socket", socket(AF_INET, SOCK_STREAM, 0));
	say("bind", bind(0, NULL, 0));
	say("ioctl", ioctl(0, TIOCSTI, ""));
	say("prctl", prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
	say("setuid", syscall(SYS_setuid, getuid()));
	say("bpf", syscall(SYS_bpf, BPF_MAP_CREATE, NULL, 0));
	say("process_vm_writev", syscall(SYS_process_vm_writev, getppid(), NULL, 0, NULL, 0, 0));
	say("open_by_handle_at", syscall(SYS_open_by_handle_at, AT_FDCWD, NULL, 0));
	say("reboot", syscall(SYS_reboot, 0, 0, 0, NULL));
	try_memory();
}

static void *wait_and_try(void *unused)
{
	while (access(getenv("FORBIDDEN_GATE"), F_OK) != 0)
		usleep(20 * 1000);
	try_all();
	fclose(result);
	return unused;
}

__attribute__((constructor)) static void begin(void)
{
	pthread_t thread;
	sigset_t all, before;

	result = fopen(getenv("FORBIDDEN_RESULT"), "we");
	sigfillset(&all);
	sigdelset(&all, SIGSYS);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	if (!result || pthread_create(&thread, NULL, wait_and_try, NULL) != 0)
		abort();
	pthread_detach(thread);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}
