/* Preloaded into a process, this makes each write to its disk take longer: SLOW_DISK_US microseconds a sync. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

static int slowly(const char *name, int fd)
{
	const char *delay_us = getenv("SLOW_DISK_US");
	int (*sync)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);

	usleep(delay_us ? (useconds_t)atoi(delay_us) : 0);
	return sync(fd);
}

int fsync(int fd)
{
	return slowly("fsync", fd);
}

int fdatasync(int fd)
{
	return slowly("fdatasync", fd);
}
