/* Which system calls the daemon may make while it serves.
 *
 * It reads what others wrote: whoever takes it over by that can do with the kernel what a
 * mount does, and no more. No program is started any more (core/starter.h), nothing mounted,
 * no memory is both written and run, no process but itself and no network reached.
 *
 * A call that the table has not fails with EPERM, as one that the kernel forbids does, and is
 * logged by its name: a disk goes on, should a library come to need another one. So the
 * filter raises SIGSYS, whose handler notes the call and answers in the kernel's place; the
 * watch of the end (end.c) logs what was noted. No thread blocks that signal. */
#include "syscalls.h"

#include <errno.h>
#include <glib.h>
#include <linux/fs.h>
#include <linux/fuse.h>
#include <linux/loop.h>
#include <seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <ucontext.h>
#include <unistd.h>

#include "core/log.h"

/* ---- The table --------------------------------------------------------------- */

struct purpose {
	const char *of;
	const char *calls; /* names; some are of one architecture only */
};

/* clang-format off */
static const struct purpose purposes[] = {
	{"requests, images and the cache",
	 "read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2 io_setup io_submit io_getevents "
	 "io_pgetevents io_cancel io_destroy fsync fdatasync fallocate ftruncate fadvise64 copy_file_range"},
	{"files of a pool",
	 "open openat openat2 close close_range lseek fstat stat lstat newfstatat statx fstatfs statfs getdents64 "
	 "readlink readlinkat access faccessat faccessat2 rename renameat renameat2 link linkat unlink unlinkat mkdir "
	 "mkdirat rmdir chmod fchmod fchmodat fchown fchownat utimensat fgetxattr fsetxattr flistxattr fremovexattr "
	 "getxattr lgetxattr setxattr removexattr flock umask getcwd"},
	{"descriptors",
	 "dup dup2 dup3 fcntl pipe2 poll ppoll epoll_create1 epoll_ctl epoll_wait epoll_pwait eventfd2 memfd_create"},
	{"memory",
	 "munmap mremap madvise brk"},
	{"threads",
	 "clone clone3 futex futex_waitv set_robust_list rseq gettid exit exit_group sched_yield sched_getaffinity "
	 "getcpu membarrier rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack restart_syscall getpid wait4"},
	{"time and chance",
	 "clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time getrandom"},
	{"the process and its limits",
	 "getuid geteuid getgid getegid getppid uname sysinfo getrlimit getrusage"},
	{"the log, the service manager and the starter",
	 "connect sendto sendmsg recvmsg getsockopt"},
	{"the end of the start",
	 "chdir setsid"},
	{"the end of the mount",
	 "umount2"},
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	{"a sanitizer's reports",
	 "mmap mprotect prctl ptrace getdents process_vm_readv personality mincore msync"},
#endif
};
/* clang-format on */

/* An argument decides: those that have with MASK the value of VALUE. */
struct restricted {
	const char *call;
	unsigned argument;
	uint64_t mask;
	uint64_t value;
};

#define ALL_32 UINT64_C(0xffffffff)

static const struct restricted restricted[] = {
	{"ioctl", 1, ALL_32, BLKGETSIZE64},	  /* a device's size */
	{"ioctl", 1, ALL_32, FUSE_DEV_IOC_CLONE}, /* another loop */
	{"ioctl", 1, ALL_32, LOOP_GET_STATUS64},  /* whose file a loop device has */
	{"ioctl", 1, ALL_32, TCGETS},		  /* progress on a terminal */
	{"kill", 1, ALL_32, 0},			  /* an owner's process: is it there */
	{"mmap", 2, PROT_EXEC, 0},		  /* memory */
	{"mmap", 2, PROT_WRITE, 0},		  /* libraries */
	{"mprotect", 2, PROT_EXEC, 0},		  /* memory of threads */
	{"prctl", 0, ALL_32, PR_SET_NAME},	  /* of a thread */
	{"prlimit64", 0, ALL_32, 0},		  /* its own limits */
	{"socket", 0, ALL_32, AF_UNIX},		  /* the log and the service manager */
};

/* ---- A call that is refused -------------------------------------------------- */

#define CALLS_MAX 1024
#define WORD_BITS 64

static _Atomic uint64_t refused[CALLS_MAX / WORD_BITS]; /* a bit for each number */
static uint64_t logged[CALLS_MAX / WORD_BITS];
static _Atomic int refused_fd = -1;

/* False: not here, and the kernel is to answer. */
static bool set_result(ucontext_t *context, long result)
{
#if defined(__x86_64__)
	context->uc_mcontext.gregs[REG_RAX] = result;
	return true;
#elif defined(__aarch64__)
	context->uc_mcontext.regs[0] = (unsigned long long)result;
	return true;
#else
	(void)context;
	(void)result;
	return false;
#endif
}

/* In the thread that made the call: nothing but what a signal handler may do. */
static void take_refused(int number, siginfo_t *info, void *context)
{
	unsigned call = (unsigned)info->si_syscall;
	int saved = errno;
	uint64_t one = 1;

	(void)number;
	if (call < CALLS_MAX)
		atomic_fetch_or(&refused[call / WORD_BITS], UINT64_C(1) << call % WORD_BITS);
	(void)!write(refused_fd, &one, sizeof(one));
	(void)set_result(context, -EPERM);
	errno = saved;
}

int syscalls_fd(void)
{
	return refused_fd;
}

static void log_call(unsigned call)
{
	char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, (int)call);

	log_warning(
		"the system call %s (%u) was refused, as it is not among those that a mount needs; if something fails "
		"for that, please report it with this line",
		name ? name : "without a name", call);
	free(name);
}

void syscalls_log_refused(void)
{
	uint64_t count;

	if (read(refused_fd, &count, sizeof(count)) < 0)
		return;
	for (unsigned call = 0; call < CALLS_MAX; call++) {
		uint64_t bit = UINT64_C(1) << call % WORD_BITS;

		if (!(atomic_load(&refused[call / WORD_BITS]) & bit) || logged[call / WORD_BITS] & bit)
			continue;
		logged[call / WORD_BITS] |= bit;
		log_call(call);
	}
}

/* ---- The filter -------------------------------------------------------------- */

/* A call of another architecture is nothing to allow. */
static int allow(scmp_filter_ctx filter, const char *name)
{
	int call = seccomp_syscall_resolve_name(name);

	return call < 0 ? 0 : seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0);
}

static int allow_purpose(scmp_filter_ctx filter, const struct purpose *purpose)
{
	g_auto(GStrv) names = g_strsplit(purpose->calls, " ", -1);
	int result = 0;

	log_debug(LOG_FUSE, "system calls for %s: %s", purpose->of, purpose->calls);
	for (char **name = names; *name && result == 0; name++)
		result = allow(filter, *name);
	return result;
}

static int allow_restricted(scmp_filter_ctx filter, const struct restricted *rule)
{
	struct scmp_arg_cmp compare = SCMP_CMP(rule->argument, SCMP_CMP_MASKED_EQ, rule->mask, rule->value);
	int call = seccomp_syscall_resolve_name(rule->call);

	return call < 0 ? 0 : seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, call, 1, &compare);
}

static int fill(scmp_filter_ctx filter)
{
	const struct restricted own_threads = {"tgkill", 0, ALL_32, (uint64_t)getpid()};
	int result = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);

	for (unsigned i = 0; i < G_N_ELEMENTS(purposes) && result == 0; i++)
		result = allow_purpose(filter, &purposes[i]);
	for (unsigned i = 0; i < G_N_ELEMENTS(restricted) && result == 0; i++)
		result = allow_restricted(filter, &restricted[i]);
	return result == 0 ? allow_restricted(filter, &own_threads) : result;
}

static int load(uint32_t otherwise)
{
	scmp_filter_ctx filter = seccomp_init(otherwise);
	int result = filter ? fill(filter) : -ENOMEM;

	if (result == 0)
		result = seccomp_load(filter);
	seccomp_release(filter);
	return result;
}

/* Where no handler can answer, the kernel does, and its log has the call. */
static uint32_t begin_refusing(void)
{
	struct sigaction action = {.sa_sigaction = take_refused, .sa_flags = SA_SIGINFO};
	ucontext_t none = {0};

	refused_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (refused_fd < 0 || !set_result(&none, 0) || sigaction(SIGSYS, &action, NULL) != 0)
		return SCMP_ACT_ERRNO(EPERM);
	return SCMP_ACT_TRAP;
}

void syscalls_limit(void)
{
	int result;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		log_warning("programs could still gain privileges: %s", g_strerror(errno));
	result = load(begin_refusing());
	if (result < 0)
		log_warning("the daemon's system calls are not limited: %s", g_strerror(-result));
}
