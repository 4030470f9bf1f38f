// Loaded into the manager before the C library (LD_PRELOAD): counts the calls by which it changes files below one folder, over
// all of its threads, writes each into a log, and lets some of them fail.
//
//   ILB_FAIL_BELOW   the folder
//   ILB_FAIL_CALLS   which ones fail, counted from 1: "7", "7,9", or "7+" for all from the seventh on; empty for none
//   ILB_FAIL_ERROR   the number of the error; "torn" instead lets a write get half way before there is no room for the rest
//   ILB_FAIL_LOG     a line for each call: its name, its file, and "failed" if it did
//
// (strace could do it as well, but counts the calls of each thread by themselves, and takes ten times as long.)
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_int calls;

static int below(const char *path)
{
	const char *folder = getenv("ILB_FAIL_BELOW");
	return folder && path && strncmp(path, folder, strlen(folder)) == 0;
}

static int chosen(int number)
{
	const char *list = getenv("ILB_FAIL_CALLS");
	while (list && *list) {
		char *end;
		long wanted = strtol(list, &end, 10);
		if (end == list)
			return 0;
		if (number == wanted || (*end == '+' && number > wanted))
			return 1;
		list = *end ? end + 1 : end;
	}
	return 0;
}

// Whether this call shall fail; then errno says why.
static int fails(const char *name, const char *path)
{
	int before = errno, number, fail;
	char line[PATH_MAX + 64];

	if (!below(path))
		return 0;
	number = atomic_fetch_add(&calls, 1) + 1;
	fail = chosen(number);
	int length = snprintf(line, sizeof line, "%s %s%s\n", name, path, fail ? " failed" : "");
	int log = syscall(SYS_openat, AT_FDCWD, getenv("ILB_FAIL_LOG"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
	if (log >= 0) {
		syscall(SYS_write, log, line, length);
		syscall(SYS_close, log);
	}
	const char *error = getenv("ILB_FAIL_ERROR");
	errno = !fail ? before : error && strcmp(error, "torn") ? atoi(error) : ENOSPC;
	return fail;
}

static int torn(void)
{
	const char *error = getenv("ILB_FAIL_ERROR");
	return error && strcmp(error, "torn") == 0;
}

static int fd_fails(const char *name, int fd)
{
	char link[32], path[PATH_MAX];
	int before = errno;
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t length = readlink(link, path, sizeof path - 1);
	errno = before;
	if (length <= 0)
		return 0;
	path[length] = 0;
	return fails(name, path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *data, size_t size)
{
	if (!fd_fails("write", fd))
		return syscall(SYS_write, fd, data, size);
	return torn() && size > 1 ? syscall(SYS_write, fd, data, size / 2) : -1;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at)
{
	if (!fd_fails("pwrite", fd))
		return syscall(SYS_pwrite64, fd, data, size, at);
	return torn() && size > 1 ? syscall(SYS_pwrite64, fd, data, size / 2, at) : -1;
}

ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags)
{
	return fd_fails("copy", out) ? -1 : syscall(SYS_copy_file_range, in, from, out, to, size, flags);
}

int fsync(int fd)
{
	return fd_fails("fsync", fd) ? -1 : syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
	return fd_fails("fdatasync", fd) ? -1 : syscall(SYS_fdatasync, fd);
}

int sync_file_range(int fd, off64_t from, off64_t size, unsigned flags)
{
	return fd_fails("sync_file_range", fd) ? -1 : syscall(SYS_sync_file_range, fd, from, size, flags);
}

int ftruncate64(int fd, off64_t size)
{
	return fd_fails("ftruncate", fd) ? -1 : syscall(SYS_ftruncate, fd, size);
}

int open64(const char *path, int flags, ...)
{
	va_list rest;
	va_start(rest, flags);
	mode_t mode = va_arg(rest, mode_t);
	va_end(rest);
	if ((flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)) && fails("open", path))
		return -1;
	return syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int mkdir(const char *path, mode_t mode)
{
	return fails("mkdir", path) ? -1 : REAL(mkdir)(path, mode);
}

int rename(const char *from, const char *to)
{
	return fails("rename", to) ? -1 : REAL(rename)(from, to);
}

int unlink(const char *path)
{
	return fails("unlink", path) ? -1 : REAL(unlink)(path);
}
